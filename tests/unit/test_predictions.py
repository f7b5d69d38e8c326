"""Predictions: what stopping early, batches and replicas leave as it is; the file that they are kept in."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adapted import attached, base_of, method_config, perturb, training_config
from dataset_configs import SCORED, dataset_config
from hypothesis import given
from hypothesis import strategies as st

from actshift.data.examples import Examples, tokenize
from actshift.data.sources import procedural_rows
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.evaluation import answers
from actshift.evaluation.answers import predict
from actshift.evaluation.predictions import Prediction, per_token_metrics, read_predictions, write_predictions
from actshift.methods.base import Adaptation
from actshift.schema.config import ScheduleConfig
from actshift.tasks import get_task
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train


def examples(name: str, count: int) -> Examples:
    """Rows of a procedural set, without end tokens."""
    config = dataset_config(name)
    rows = procedural_rows(config, next(iter(config.procedural.rows)))[:count]
    task = get_task(config.task)
    settings = {"end_token": False, "max_tokens": None, "cache": None}
    return tokenize(Split(rows, ""), task=task, tokenizer=base_of("tiny").tokenizer, **settings)


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adaptation]:
    """The tiny model after a few steps on all data sets: it answers in their forms, and then goes on talking."""
    base = base_of("tiny")
    rows = [row for name in SCORED for row in examples(name, 120)]
    random.Random(0).shuffle(rows)
    with attached(base, method_config("sft", model="tiny")) as adaptation:
        train(
            base,
            adaptation,
            rows=rows,
            validation_rows=[],
            training=training_config(max_steps=50, batch_size=12, schedule=ScheduleConfig("linear", 0.1)),
            lrs=(3e-3,),
            seeds=(0,),
            micro_batch=12,
            checkpoints=Checkpoints(tmp_path_factory.mktemp("train"), every=0),
            progress=lambda *_: None,
        )
        yield adaptation


def predictions(
    adaptation: Adaptation, name: str, *, rule: str = "paper", tokens: int = 4096, rows: int = 40, **settings: int
) -> list[list[Prediction]]:
    return predict(
        base_of("tiny"),
        adaptation,
        task=get_task(dataset_config(name).task, rule=rule),
        rows=examples(name, rows),
        batch_tokens=tokens,
        progress=lambda *_: None,
        **{"max_new_tokens": 48, **settings},
    )


@pytest.mark.parametrize("rule", ["paper", "released"])
@pytest.mark.parametrize("name", SCORED)
def test_stopping_early_changes_no_score(name: str, rule: str, answering: Adaptation) -> None:
    task = get_task(dataset_config(name).task, rule=rule)
    (stopped,) = predictions(answering, name, rule=rule)
    (full,) = predictions(answering, name, rule=rule, stop=False)
    for short, long in zip(stopped, full, strict=True):
        assert long.output.startswith(short.output)
        assert (short.extracted, short.correct, short.label) == (long.extracted, long.correct, long.label)
        assert long.correct == task.score(long.output, long.label)
    assert sum(answer.extracted is not None for answer in full) > 30, "the model answers in the task's form"
    saved = [len(long.output) - len(short.output) for short, long in zip(stopped, full, strict=True)]
    assert (sum(saved) > 0) is task.first_match


@pytest.mark.parametrize("name", SCORED)
def test_no_batch_and_no_padding_changes_a_greedy_answer(name: str, answering: Adaptation) -> None:
    """One row at a time, two sizes of batches, and everything at once, on the tiny model in float32."""
    found = [
        predictions(answering, name, tokens=tokens, rows=8, stop=False, max_new_tokens=16)
        for tokens in (1, 150, 400, 10_000)
    ]
    assert all(each == found[0] for each in found)


def test_replicas_have_a_list_of_predictions_each() -> None:
    config = method_config("post_block", model="tiny")
    with attached(base_of("tiny"), config, seeds=(0, 1)) as adaptation:
        perturb(adaptation)
        states = [adaptation.state_dict(replica) for replica in range(2)]
        together = predictions(adaptation, "boolq", rows=10, tokens=900)
    assert together[0] != together[1]
    for state, found in zip(states, together, strict=True):
        with attached(base_of("tiny"), config) as adaptation:
            adaptation.load_state_dict(state)
            assert predictions(adaptation, "boolq", rows=10) == [found]


def test_progress_counts_the_answers_of_all_replicas() -> None:
    told: list[tuple[int, int]] = []
    with attached(base_of("tiny"), method_config("post_block", model="tiny"), seeds=(0, 1)) as adaptation:
        rows = examples("listops", 3)
        options = {"task": get_task("listops"), "max_new_tokens": 2, "batch_tokens": 1}
        predict(base_of("tiny"), adaptation, rows=rows, progress=lambda *pair: told.append(pair), **options)
    assert told == [(done, 6) for done in range(1, 7)]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCORES = st.dictionaries(TEXT, st.tuples(st.floats(-100, 0), st.integers(1, 9)), min_size=1, max_size=4)
PREDICTION = st.builds(
    Prediction,
    row=st.integers(0, 9999),
    output=TEXT,
    label=TEXT,
    extracted=st.none() | TEXT,
    correct=st.booleans(),
    logprobs=st.none() | SCORES,
)


@given(kept=st.lists(PREDICTION, min_size=1, max_size=5))
def test_what_is_written_is_read(kept: list[Prediction], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("kept") / "predictions-test.jsonl"
    write_predictions(path, kept)
    assert read_predictions(path) == kept
    assert "logprobs" not in path.read_text() or any(each.logprobs is not None for each in kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no predictions"),
        ("\n\n", "holds no predictions"),
        ('{"row": 0', "line 1: not JSON"),
        ("[1]", "line 1: a prediction has"),
        ('{"row": 0, "output": "x", "label": "y", "extracted": null}', "line 1: a prediction has"),
        ('{"row": 0, "output": 3, "label": "y", "extracted": null, "correct": true}', "line 1: a prediction has"),
    ],
)
def test_what_is_no_predictions_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(text)
    with pytest.raises(ActshiftError, match=said) as refused:
        read_predictions(path)
    assert str(path) in str(refused.value)
    with pytest.raises(ActshiftError, match="cannot be read"):
        read_predictions(tmp_path / "elsewhere.jsonl")


def test_a_token_of_a_long_answer_counts_as_one_of_a_short_answer() -> None:
    chosen = Prediction(0, "no", "yes", "no", False, {"no": (-2.0, 1), "yes": (-3.0, 3)})
    right = dataclasses.replace(chosen, label="no")
    assert per_token_metrics([chosen, right, right, right]) == {"accuracy_per_token": 25.0}
    assert per_token_metrics([]) == per_token_metrics([dataclasses.replace(chosen, logprobs=None)]) == {}


def test_half_a_character_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a character shows as U+FFFD, which ends a word where the whole character would have gone on with it."""
    base, task = base_of("tiny"), get_task("arc_challenge")
    whole = base.tokenizer("Answer: B\u00e9", add_special_tokens=False)["input_ids"]
    parts = [whole[:end] for end in range(len(whole) + 1)]
    halves = [ids for ids in parts if answers.continuation_text(base, ids).endswith("\ufffd")]
    assert halves and task.decided("Answer: B\ufffd") and not task.decided("Answer: B")
    asked: list[bool] = []

    def generate(*_: Any, decided: Any, **__: Any) -> Iterator[tuple[int, list[int]]]:
        asked.extend(decided(ids) for ids in halves)
        yield 0, whole

    monkeypatch.setattr(answers, "generate", generate)
    rows = tokenize(
        Split([task.generate(random.Random(0), **dataset_config("arc_challenge").procedural.difficulty)], ""),
        task=task,
        tokenizer=base.tokenizer,
        end_token=False,
        max_tokens=None,
        cache=None,
    )
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        predict(base, adaptation, task=task, rows=rows, max_new_tokens=8, batch_tokens=100, progress=lambda *_: None)
    assert asked and not any(asked)
