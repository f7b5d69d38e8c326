"""Predictions: what a model answered on a split, each answer with its label and its score."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from actshift.evaluation.generation import generate
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.records import write_atomically
from actshift.tasks.base import Task
from actshift.tasks.examples import Rows


@dataclass(frozen=True)
class Prediction:
    """One row's continuation. `extracted` is the label that the task's rule finds in it, None where it finds none."""

    row: int
    output: str
    label: str
    extracted: str | None
    correct: bool


def predict(
    base: Base,
    adaptation: Adaptation,
    *,
    task: Task,
    rows: Rows,
    max_new_tokens: int,
    batch_tokens: int,
    progress: Callable[[int, int], None],
) -> list[Prediction]:
    """Generate from every row's prompt and score the continuations, in the order of the rows."""
    prompts = [row.ids[: row.prompt_length] for row in rows]
    predictions = {}
    for place, ids in generate(
        base, adaptation, prompts=prompts, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens
    ):
        output = base.tokenizer.decode(ids, skip_special_tokens=True)
        assert isinstance(output, str)
        label = rows[place].label
        predictions[place] = Prediction(
            place, output, label, extracted=task.extract(output), correct=task.score(output, label)
        )
        progress(len(predictions), len(rows))
    return [predictions[place] for place in range(len(rows))]


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Keep predictions as JSON Lines, complete or not at all."""
    lines = (json.dumps(asdict(prediction), ensure_ascii=False) for prediction in predictions)
    write_atomically(path, "".join(f"{line}\n" for line in lines))
