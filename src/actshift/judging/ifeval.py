"""IFEval: prompts whose instructions a program can verify, and how many of them a file of responses follows.

Strict: the response follows an instruction. Loose: any of eight variants of it does, with the first, the last or both
lines gone, and asterisks removed or not. By prompt: all instructions of a prompt are followed; by instruction: each
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.instructions import Instruction, instruction
from actshift.judging.rows import read_rows

PROMPTS = Path("ifeval") / "input_data.jsonl"
"""The prompts within a folder of data sets."""

RESPONSE_NAMES = ("response", "output")


@dataclass(frozen=True)
class Prompt:
    """One prompt of the data: its key, its text, its instructions."""

    key: str
    text: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Verdict:
    """Which instructions of a prompt a response follows, strictly and loosely, in the order of the prompt's."""

    prompt: Prompt
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


@dataclass(frozen=True)
class Accuracy:
    """How many of `count` prompts or instructions are followed, strictly and loosely. `strict_pct` is in percent."""

    name: str
    count: int
    strict: int
    loose: int

    @property
    def strict_pct(self) -> float:
        return 100 * self.strict / self.count

    @property
    def loose_pct(self) -> float:
        return 100 * self.loose / self.count


def variants(response: str) -> list[str]:
    """The response, and what loose scoring forgives: without its first, last or both lines, without asterisks."""
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    texts = [response, *cut]
    return list(dict.fromkeys([*texts, *(text.replace("*", "") for text in texts)]))


def verdict(prompt: Prompt, response: str) -> Verdict:
    """Score one response against its prompt."""
    loose = variants(response)
    return Verdict(
        prompt,
        tuple(each.followed(response) for each in prompt.instructions),
        tuple(any(each.followed(text) for text in loose) for each in prompt.instructions),
    )


def accuracies(verdicts: Sequence[Verdict]) -> list[Accuracy]:
    """By prompt, by instruction, then by kind of instruction in the order of the alphabet. Errors: no verdict."""
    if not verdicts:
        raise ActshiftError("there is no response to score")
    by_kind: dict[str, list[tuple[bool, bool]]] = {}
    for each in verdicts:
        for one, strict, loose in zip(each.prompt.instructions, each.strict, each.loose, strict=True):
            by_kind.setdefault(one.kind, []).append((strict, loose))
    prompts = [(all(each.strict), all(each.loose)) for each in verdicts]
    every = [pair for pairs in by_kind.values() for pair in pairs]
    named = {"prompts": prompts, "instructions": every, **{kind: by_kind[kind] for kind in sorted(by_kind)}}
    return [
        Accuracy(name, len(pairs), sum(strict for strict, _ in pairs), sum(loose for _, loose in pairs))
        for name, pairs in named.items()
    ]


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file in the hub's schema: key, prompt, instruction_id_list, kwargs.

    Errors: a file, a field or an instruction that is missing or wrong, and a key or a text that occurs twice.
    """
    prompts = [_prompt(row, where=f"{path}, line {number}") for number, row in read_rows(path)]
    for name, values in (("key", [each.key for each in prompts]), ("prompt", [each.text for each in prompts])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ActshiftError(
                f"{path}: the {name} {twice[0]!r} occurs more than once. Each prompt stands there once."
            )
    return prompts


def _prompt(row: Mapping[str, Any], *, where: str) -> Prompt:
    missing = [name for name in ("key", "prompt", "instruction_id_list", "kwargs") if name not in row]
    if missing:
        raise ActshiftError(f"{where} has no {', '.join(missing)}: is it a file of IFEval's prompts?")
    kinds, arguments = row["instruction_id_list"], row["kwargs"]
    if len(kinds) != len(arguments):
        raise ActshiftError(f"{where}: {len(kinds)} instructions, but arguments for {len(arguments)}.")
    made = (instruction(kind, given, where=where) for kind, given in zip(kinds, arguments, strict=True))
    return Prompt(str(row["key"]), row["prompt"], tuple(made))


def read_responses(path: Path, prompts: Iterable[Prompt]) -> dict[str, str]:
    """Responses by the key of their prompt, from JSON lines or a JSON list.

    A row names its prompt by `key`, or by its text in `prompt` or `instruction`, and holds `response` or `output`.
    Errors: a row without these, a prompt that is not of the data, two responses to one prompt.
    """
    prompts = list(prompts)
    keys, texts = {each.key for each in prompts}, {each.text: each.key for each in prompts}
    responses: dict[str, str] = {}
    for number, row in read_rows(path):
        where = f"{path}, row {number}"
        key = str(row["key"]) if "key" in row else texts.get(row.get("prompt", row.get("instruction", "")), "")
        if key not in keys:
            raise ActshiftError(f"{where}: no prompt of the data has its `key`, or its text as `prompt`.")
        if key in responses:
            raise ActshiftError(f"{where}: a second response to the prompt {key}. Score one response a prompt.")
        response = next((row[name] for name in RESPONSE_NAMES if name in row), None)
        if not isinstance(response, str):
            raise ActshiftError(f"{where} has no text under {' or '.join(RESPONSE_NAMES)}, got {response!r}.")
        responses[key] = response
    return responses


def score(prompts: Sequence[Prompt], responses: Mapping[str, str], *, partial: bool = False) -> list[Verdict]:
    """The verdict of each prompt. Errors: prompts without a response, unless `partial` scores the others alone."""
    missing = [each.key for each in prompts if each.key not in responses]
    if missing and not partial:
        raise ActshiftError(
            f"{len(missing)} of {len(prompts)} prompts have no response, {missing[0]} the first: give one for each, "
            "a blank one where there is none, or score those that there are with --partial"
        )
    return [verdict(each, responses[each.key]) for each in prompts if each.key in responses]
