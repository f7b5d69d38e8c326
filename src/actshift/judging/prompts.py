"""What a judge is asked: AlpacaEval's template, filled with an instruction and two answers.

`alpaca_eval_clf.txt` is the template of `weighted_alpaca_eval_gpt4_turbo` and of the judges that name one answer,
`alpaca_eval_fn.txt` that of `alpaca_eval_gpt4_turbo_fn`, whose judge calls a function. Both are upstream's
(tatsu-lab/alpaca_eval @ cd543a149d, Apache-2.0), byte for byte, because another prompt is another judge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from actshift.errors import ActshiftError
from actshift.judging.judgments import is_switched

TEMPLATE = "alpaca_eval_clf.txt"
TEMPLATES = (TEMPLATE, "alpaca_eval_fn.txt")
_MESSAGE = re.compile(r"<\|im_start\|>(?P<role>\w+)\n(?P<content>.*?)<\|im_end\|>", re.S)
_PLACE = re.compile(r"\{(instruction|output_1|output_2)\}")

Message = dict[str, str]
"""`role` and `content`, as chat protocols take them."""


@cache
def template(name: str = TEMPLATE) -> str:
    """The text of one of the `TEMPLATES`."""
    return files("actshift.judging").joinpath(name).read_text(encoding="utf-8")


def template_sha256(name: str = TEMPLATE) -> str:
    """What identifies a template in a judge's identity."""
    return hashlib.sha256(template(name).encode()).hexdigest()


def filled(text: str, values: Mapping[str, str]) -> list[Message]:
    """The messages of a template in ChatML, its three places filled in one pass.

    The template is taken apart before it is filled, so that neither a place's name nor a chat marker within an answer
    can change the question. Upstream fills first; on AlpacaEval's rows both give the same.
    Errors: a template without messages, or without one of the places.
    """
    messages = [(found["role"], found["content"].strip()) for found in _MESSAGE.finditer(text)]
    places = [place for _, content in messages for place in _PLACE.findall(content)]
    if sorted(places) != ["instruction", "output_1", "output_2"]:
        raise ActshiftError(
            f"a judge's template must have messages in ChatML with {{instruction}}, {{output_1}} and {{output_2}} once "
            f"each, got {len(messages)} messages with {', '.join(places) or 'none of them'}"
        )
    return [
        {"role": role, "content": _PLACE.sub(lambda place: values[place[1]], content)} for role, content in messages
    ]


def judge_messages(
    instruction: str, *, reference: str, output: str, switched: bool | None = None, name: str = TEMPLATE
) -> list[Message]:
    """What upstream asks its judge about a row by the template `name`.

    `switched`: whether the model's output stands first; None leaves it to the instruction's coin.
    """
    switched = is_switched(instruction) if switched is None else switched
    first, second = (output, reference) if switched else (reference, output)
    return filled(template(name), {"instruction": instruction, "output_1": first, "output_2": second})
