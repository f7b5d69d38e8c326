"""Judgments by function calling: what is sent in either protocol, and what is read from a call."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift import paths
from actshift.errors import ActshiftError
from actshift.judging.config import judge_config
from actshift.judging.function_calls import calling, ranking_of, with_function
from actshift.judging.judges import judge_all, paired
from actshift.judging.judgments import is_switched
from actshift.judging.ledger import open_ledger
from actshift.judging.prompts import judge_messages
from actshift.judging.protocols import PROTOCOLS
from actshift.judging.recorded import as_completion

FUNCTION = "make_partial_leaderboard"
COUNT = 6


def arguments(*ranks: tuple[str, Any]) -> str:
    return json.dumps({"ordered_models": [{"model": model, "rank": rank} for model, rank in ranks]})


def completion_of(text: str, **rest: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": None, "tool_calls": [calling(FUNCTION, text)]}, **rest}


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (arguments(("m", 1), ("M", 2)), 1),
        (arguments(("M", 1), ("m", 2)), 2),
        (arguments(("m", 2.0), ("M", 1)), 2),
        (arguments(("m", 1), ("M", 1)), 1),  # as upstream reads it: the rank of m alone counts
        (json.dumps({"concise_explanation": "...", **json.loads(arguments(("m", 2)))}), 2),
        (arguments(("m", 3), ("M", 1)), None),
        (arguments(("m", True), ("M", 2)), None),
        (arguments(("m", "1"), ("M", 2)), None),
        (arguments(("M", 1)), None),
        (arguments(("model_1", 1), ("model_2", 2)), None),
        ("{}", None),
        ('{"ordered_models": "m"}', None),
        ('{"ordered_models": [{"rank": 1}]}', None),
        ("[1]", None),
        ("m", None),
        (arguments(("m", 1), ("M", 2))[:-9], None),  # cut off by max_tokens
    ],
)
def test_the_preference_is_the_rank_of_the_answer_shown_first(text: str, first: int | None) -> None:
    assert ranking_of(completion_of(text), switched=False) == first
    assert ranking_of(completion_of(text), switched=True) == (None if first is None else 3 - first)


def test_a_refusal_is_unjudged_and_an_answer_without_a_call_cannot_be_read() -> None:
    refused = [
        {"message": {"content": None, "refusal": "I cannot help with that."}, "finish_reason": "stop"},
        {"message": {"content": ""}, "finish_reason": "content_filter"},
        {"message": {"content": "", "tool_calls": []}, "finish_reason": "refusal"},
    ]
    assert [ranking_of(each, switched=False) for each in refused] == [None] * 3
    unreadable: list[dict[str, Any]] = [
        {},
        {"message": None},
        {"message": {"content": "m"}},
        {"message": {"tool_calls": []}},
    ]
    for each in unreadable:
        with pytest.raises(ActshiftError, match="has no tool_calls"):
            ranking_of(each, switched=False)


def test_the_request_forces_upstream_s_function_in_either_protocol() -> None:
    ours, claude = judge_config("gpt4_turbo_fn"), judge_config("claude_fn")
    messages = judge_messages("Which?", reference="a", output="b", name=ours.template)
    assert f"format for the {FUNCTION} function" in messages[1]["content"]
    body = PROTOCOLS["openai"].body(ours, messages)
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (100, 0, 1)
    assert body["tool_choice"] == {"type": "function", "function": {"name": FUNCTION}}
    (tool,) = body["tools"]
    properties = tool["function"]["parameters"]["properties"]["ordered_models"]["items"]["properties"]
    assert tool["function"]["name"] == FUNCTION and list(properties) == ["model", "rank"]
    body = PROTOCOLS["anthropic"].body(claude, messages)
    assert body["tool_choice"] == {"type": "tool", "name": FUNCTION}
    (other,) = body["tools"]
    assert other["input_schema"] == tool["function"]["parameters"] and set(other) == {
        "name",
        "description",
        "input_schema",
    }
    # What is declared is paid as part of the question.
    bare = {"max_tokens": 100, "temperature": 0, "top_p": 1}
    assert ours.dollars(messages) > replace(ours, request=bare).dollars(messages)


def test_a_function_of_one_s_own_is_another_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = yaml.safe_load((paths.conf_dir() / "judge" / "gpt4_turbo_fn.yaml").read_text()) | {"name": "mine"}
    given["request"] = json.loads(json.dumps(with_function(given["request"])))
    (tmp_path / "judge").mkdir()
    file = tmp_path / "judge" / "mine.yaml"
    monkeypatch.setenv(paths.CONFIG_DIR, str(tmp_path))
    file.write_text(yaml.safe_dump(given))  # the same function, its keys in another order
    assert judge_config("mine").identity == judge_config("gpt4_turbo_fn").identity
    given["request"]["tools"][0]["function"]["description"] = "Rank."
    file.write_text(yaml.safe_dump(given))
    assert judge_config("mine").identity != judge_config("gpt4_turbo_fn").identity
    given["request"]["tool_choice"]["function"]["name"] = "other"
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(ActshiftError, match="must declare a function with the argument ordered_models"):
        judge_config("mine")


def test_answers_of_anthropic_s_protocol_are_calls() -> None:
    part = {"type": "tool_use", "id": "1", "name": FUNCTION, "input": json.loads(arguments(("M", 1), ("m", 2)))}
    answer = {"model": "x", "content": [{"type": "text", "text": "Well:"}, part], "stop_reason": "tool_use"}
    assert ranking_of(PROTOCOLS["anthropic"].completion(answer), switched=False) == 2
    answer = {"model": "x", "content": [], "stop_reason": "refusal"}
    assert ranking_of(PROTOCOLS["anthropic"].completion(answer), switched=False) is None


@pytest.mark.parametrize("form", ["text", "object", "completion"])
def test_recorded_calls_are_replayed(form: str, tmp_path: Path) -> None:
    """AlpacaEval records a call's arguments as text or as an object, and our own files a whole completion."""
    config, rows = judge_config("replay_fn"), []
    for number in range(COUNT):
        text = arguments(("m", 1 + number % 2), ("M", 2 - number % 2))
        raw = {"text": text, "object": json.loads(text), "completion": completion_of(text)}[form]
        answers = {"output_1": f"base {number}", "output_2": f"ours {number}"}
        rows.append({"instruction": f"Q{number}?", **answers, "annotator": config.annotator, "raw_completion": raw})
    (tmp_path / "r.json").write_text(json.dumps(rows))
    for name in ("ours", "base"):
        outputs = [{"instruction": f"Q{n}?", "output": f"{name} {n}", "generator": name} for n in range(COUNT)]
        (tmp_path / f"{name}.json").write_text(json.dumps(outputs))
    given = paired(tmp_path / "ours.json", tmp_path / "base.json")
    found = judge_all(given, config, open_ledger(tmp_path / "l"), recorded=[tmp_path / "r.json"])
    for number, row in enumerate(found):
        shown = 1 + number % 2
        assert row["preference"] == (3 - shown if is_switched(row["instruction"]) else shown)
        assert row["annotator"] == "alpaca_eval_gpt4_turbo_fn"


def test_recorded_text_is_read_by_the_judge_s_parser() -> None:
    verdict = judge_config("claude")
    assert as_completion("m", verdict) == {
        "message": {"role": "assistant", "content": "m"},
        "logprobs": None,
        "finish_reason": None,
    }
    weighted, choice = judge_config("replay"), {"logprobs": {"content": []}}
    assert as_completion(json.dumps(choice), weighted) == choice == as_completion(choice, weighted)
    for nothing in (None, "", "m", "[1]", 3):
        assert as_completion(nothing, weighted) is None
