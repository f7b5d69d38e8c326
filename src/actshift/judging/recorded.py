"""Raw answers of judges as files of judgments record them, in the one form that our parsers read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from actshift.judging.config import BY_PROBABILITIES, JudgeConfig
from actshift.judging.function_calls import RANKING, calling, forced_function
from actshift.judging.ledger import Completion


def as_completion(raw: Any, config: JudgeConfig) -> Completion | None:
    """A recorded raw answer as a completion; None of what holds no answer for the judge's parser.

    AlpacaEval records a whole choice where the log probabilities count, and text alone otherwise: of a function call
    its arguments, in some files as text and in others as an object.
    """
    if isinstance(raw, Mapping):
        if config.parser != "tool" or RANKING not in raw:
            return raw
        raw = json.dumps(raw)
    if not isinstance(raw, str) or not raw:
        return None
    if config.parser in BY_PROBABILITIES:
        return _object(raw)
    message: dict[str, Any] = {"role": "assistant", "content": raw}
    if config.parser == "tool":
        message |= {"content": None, "tool_calls": [calling(forced_function(config.request) or "", raw)]}
    return {"message": message, "logprobs": None, "finish_reason": None}


def _object(text: str) -> Completion | None:
    """The JSON object in a text, None where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
