"""What a record says of a split: the answers that are right, or where none can be, the loss on what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actshift.evaluation.answers import AnswerLoss
from actshift.evaluation.predictions import Prediction, per_token_metrics
from actshift.runtime.train import Trained
from actshift.tasks.base import Task


def accuracy_metrics(predictions: Sequence[Prediction], *, rows: int, task: Task) -> dict[str, Any]:
    """Accuracy in percent over the whole split. A diverged run has answered nothing, so it scores 0."""
    right = [prediction.correct for prediction in predictions] or [False] * rows
    correct = sum(right)
    pairs = [(prediction.output, prediction.label) for prediction in predictions]
    return {
        "accuracy": 100 * correct / rows,
        **per_token_metrics(predictions),
        **(task.metrics(pairs) if pairs else {}),
        "rows": rows,
        "correct": correct,
        # Which rows, in the order of the split, eight to a byte: what paired tests between runs are made from.
        "answers": np.packbits(right).tobytes().hex(),
    }


def loss_metrics(loss: AnswerLoss | None, *, rows: int) -> dict[str, Any]:
    """The mean loss of an answer's token in nats; none of a diverged run."""
    found: dict[str, Any] = {"loss": None, "answer_tokens": None}
    if loss is not None:
        found = {"loss": loss.nats / loss.tokens, "answer_tokens": loss.tokens}
    return {**found, "rows": rows}


def training_metrics(trained: Trained) -> dict[str, Any]:
    """What a record holds of how its adapter was trained."""
    return {
        "trainable_parameters": trained.trainable_parameters,
        "total_parameters": trained.total_parameters,
        "final_loss": None if trained.diverged else trained.final_loss,
        "steps": trained.steps,
        "loss_curve": trained.loss_curve,
        "validation_curve": trained.validation_curve,
        "diverged": trained.diverged,
        "rows_touched": {
            "truncated": trained.truncated,
            "lost_answers": trained.lost_answers,
            "dropped": trained.dropped,
            "overlap": trained.overlap,
        },
        **({"reinforcement": trained.reinforcement} if trained.reinforcement else {}),
    }
