"""Predictions: what a model answered on a split, each answer with its label and its score. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file

OPTIONAL = ("logprobs", "prompt", "tokens")
"""What a prediction may lack: likelihoods where it was generated, the prompt in files of older versions, tokens."""


@dataclass(frozen=True)
class Prediction:
    """One row's answer. `extracted` is the label that the task's rule finds in `output`, None where it finds none.

    Of a generation, `output` is the continuation, up to where later text could not change its score. Of a choice by
    likelihood it is the answer chosen; `logprobs` has each label's summed log-likelihood (nats) and tokens. `prompt` is
    the row's text as its task writes it, for people who look at a file of predictions.
    """

    row: int
    output: str
    label: str
    extracted: str | None
    correct: bool
    logprobs: dict[str, tuple[float, int]] | None = None
    prompt: str | None = None
    tokens: int | None = None
    """Of a generation that went on to its end token or its limit: how many, the end token not among them."""

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this prediction; what it does not have is left out."""
        return {name: value for name, value in asdict(self).items() if name not in OPTIONAL or value is not None}


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Keep predictions as JSON Lines, complete or not at all."""
    lines = (json.dumps(prediction.to_json(), ensure_ascii=False) for prediction in predictions)
    write_file(path, "".join(f"{line}\n" for line in lines))


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a file. Errors name the file, and the line that is no prediction."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ActshiftError(f"{path} cannot be read: {error}. Name a predictions-<split>.jsonl of a run.") from error
    predictions = list(_parsed(text, path))
    if not predictions:
        raise ActshiftError(f"{path} holds no predictions.")
    return predictions


def _parsed(text: str, path: Path) -> Iterator[Prediction]:
    kinds: dict[str, tuple[type, ...]] = {"row": (int,), "output": (str,), "label": (str,), "correct": (bool,)}
    kinds |= {"extracted": (str, type(None)), "logprobs": (dict, type(None)), "prompt": (str, type(None))}
    kinds |= {"tokens": (int, type(None))}
    known = {field.name for field in fields(Prediction)}
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: an output may hold other line breaks
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise ActshiftError(f"{path}, line {number}: not JSON ({error}).") from error
        given = {**dict.fromkeys(OPTIONAL), **found} if isinstance(found, dict) else {}
        if given.keys() != known or not all(isinstance(given[name], kinds[name]) for name in known):
            raise ActshiftError(f"{path}, line {number}: a prediction has {', '.join(sorted(known))}; got {line[:80]}")
        logprobs = given["logprobs"] and {label: tuple(score) for label, score in given["logprobs"].items()}
        yield Prediction(**given | {"logprobs": logprobs})


def per_token_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Percent right if the likelihood of an answer counted by token, not in sum; nothing of generated predictions."""
    if not predictions or any(prediction.logprobs is None for prediction in predictions):
        return {}
    return {"accuracy_per_token": 100 * sum(map(_right_by_token, predictions)) / len(predictions)}


def _right_by_token(prediction: Prediction) -> bool:
    logprobs = prediction.logprobs or {}
    return max(logprobs, key=lambda label: logprobs[label][0] / logprobs[label][1]) == prediction.label
