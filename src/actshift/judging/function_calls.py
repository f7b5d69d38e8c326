"""Judgments by function calling: the function that a judge must call, and the preference in its arguments.

`make_partial_leaderboard.json` is the request of upstream's `alpaca_eval_gpt4_turbo_fn` (tatsu-lab/alpaca_eval @
cd543a149d, Apache-2.0): the function's declaration and the choice that forces it. The judge ranks both answers by
calling it, and the preference is the rank of the answer that it was shown first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.judgments import FIRST

RANKING = "ordered_models"
"""The argument that holds the ranking: a list of objects with `model` and `rank`."""
REFUSALS = ("content_filter", "refusal")
"""Why an answer ended where the judge, or what guards it, declined this one question."""


@cache
def _leaderboard() -> str:
    return files("actshift.judging").joinpath("make_partial_leaderboard.json").read_text(encoding="utf-8")


def with_function(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request with upstream's function and the choice that forces it, unless it declares functions of its own."""
    return dict(request) if "tools" in request else {**request, **json.loads(_leaderboard())}


def forced_function(request: Mapping[str, Any]) -> str | None:
    """The name of the function that a request declares with a ranking and forces; None where there is none."""
    try:
        name = str(request["tool_choice"]["function"]["name"])
        declared = {tool["function"]["name"]: tool["function"] for tool in request["tools"]}
        return name if RANKING in declared[name]["parameters"]["properties"] else None
    except (KeyError, TypeError):
        return None


def in_anthropics_words(request: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for Anthropic's protocol, which declares functions in words of its own."""
    if "tools" not in request:
        return dict(request)
    declared = [tool["function"] for tool in request["tools"]]
    tools = [
        {"name": each["name"], "description": each.get("description", ""), "input_schema": each["parameters"]}
        for each in declared
    ]
    choice = {"type": "tool", "name": request["tool_choice"]["function"]["name"]}
    return {**request, "tools": tools, "tool_choice": choice}


def calling(name: str, arguments: str) -> dict[str, Any]:
    """A function call in OpenAI's form; `arguments` are JSON text."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def calls_of(content: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The function calls among the parts of an answer of Anthropic's protocol, in OpenAI's form."""
    return [calling(part["name"], json.dumps(part["input"])) for part in content if part.get("type") == "tool_use"]


def ranking_of(completion: Mapping[str, Any], *, switched: bool) -> float | None:
    """The preference in a function call: the rank (1 or 2) of the answer shown first, 3 minus that where switched.

    As upstream does it, that rank alone counts, whatever rank the other answer has. None of arguments that are cut off,
    no JSON, or without such a rank, and of a refusal. Errors: an answer without a call, which is no refusal.
    """
    message = completion.get("message")
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    if not calls:
        refused = isinstance(message, Mapping) and message.get("refusal")
        if refused or completion.get("finish_reason") in REFUSALS:
            return None
        raise ActshiftError(
            "a judge's answer has no tool_calls, so there is no ranking to read: ask a model that calls functions"
        )
    rank = _rank(calls)
    if rank is None:
        return None
    return 3 - rank if switched else rank


def _rank(calls: Sequence[Any]) -> float | None:
    """The rank of the answer shown first by the first call; None where it has none that is 1 or 2."""
    try:
        ranking = json.loads(calls[0]["function"]["arguments"])[RANKING]
        found = next(each["rank"] for each in ranking if each["model"] == FIRST)
    except (ValueError, KeyError, IndexError, TypeError, StopIteration):
        return None
    return float(found) if not isinstance(found, bool) and found in (1, 2) else None
