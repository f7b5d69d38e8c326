"""How a configuration's split is scored: which rule, which limits, which rows reach the model and the scorer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from adapted import base_of

from actshift.config.composition import compose
from actshift.data.splits import load_split
from actshift.evaluation.predictions import Prediction
from actshift.observe.progress import Progress
from actshift.runtime import evaluate
from actshift.runtime.baselines import Unadapted
from actshift.runtime.session import Session


def scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *overrides: str) -> tuple[str, dict[str, Any]]:
    """Which of the two ways was taken, and what it was given."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def way(name: str) -> Any:
        def taken(base: Any, adaptation: Any, **given: Any) -> list[list[Prediction]]:
            seen.append((name, given))
            return [[Prediction(row, "", "", None, False) for row in range(len(given["rows"]))]]

        return taken

    for name in ("predict", "choose"):
        monkeypatch.setattr(evaluate, name, way(name))
    config = compose(["dataset=boolq", "data.limit.test=6", *overrides])
    split, base = load_split(config, "test"), base_of("tiny")
    where = {"name": "test", "session": Session(), "cache": tmp_path, "progress": Progress()}
    evaluate.answer(config, base, Unadapted(), split=split, **where)
    assert len(seen) == 1
    return seen[0]


def test_the_rule_and_the_limit_are_those_of_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for rule in ("paper", "released"):
        way, given = scored(
            monkeypatch, tmp_path, f"evaluation.rule={rule}", "protocol.rule=paper", "evaluation.max_new_tokens=7"
        )
        assert way == "predict"
        assert (given["task"].rule, given["max_new_tokens"]) == (rule, 7)


def test_a_batch_keeps_to_the_hardwares_tokens_and_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and values of a token of the embedded model: 2 x 4 layers x 4 heads x 32 x 4 bytes = 4,096."""
    for scoring in ("generation", "likelihood"):
        for hardware, tokens in (("bytes=1e6", 244), ("tokens=100", 100)):
            overrides = f"hardware.evaluation_{hardware}", f"evaluation.scoring={scoring}"
            assert scored(monkeypatch, tmp_path, *overrides)[1]["batch_tokens"] == tokens


def test_rows_are_scored_whole_and_without_an_end_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, given = scored(monkeypatch, tmp_path, "training.max_tokens=5", "training.end_token=true")
    end = base_of("tiny").tokenizer.eos_token_id
    assert all(row.prompt_length > 5 and row.ids[-1] != end for row in given["rows"])


def test_the_tokenizers_end_token_ends_a_row_where_there_is_no_chat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert scored(monkeypatch, tmp_path)[1]["ends"] is None
    monkeypatch.setattr(evaluate, "chat_of", lambda *_: SimpleNamespace(ends=(5, 6)))
    monkeypatch.setattr(evaluate, "tokenize", lambda split, **_: list(split.rows))
    assert scored(monkeypatch, tmp_path)[1]["ends"] == (5, 6)


def test_likelihood_is_taken_where_it_is_the_scoring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    way, given = scored(monkeypatch, tmp_path, "evaluation.scoring=likelihood")
    assert way == "choose"
    assert [set(options) for options in given["options"]] == [{"True", "False"}] * 6
