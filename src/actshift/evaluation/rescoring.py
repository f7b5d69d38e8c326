"""Scoring a predictions file again, from its texts alone: no model, no data, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actshift.errors import ActshiftError
from actshift.evaluation.predictions import Prediction, read_predictions
from actshift.schema.building import config_of
from actshift.schema.config import Config
from actshift.store.records import SPLITS, read_json
from actshift.tasks import TASKS, get_task, scoring_task
from actshift.tasks.base import Task

SHOWN = 20
"""Changed rows that are printed; of all of them the number is."""


@dataclass(frozen=True)
class Rescored:
    """Predictions as they were recorded and as the task scores them now, row by row."""

    task: Task
    recorded: list[Prediction]
    scored: list[Prediction]

    @property
    def changed(self) -> list[tuple[Prediction, Prediction]]:
        """The rows whose score or whose extracted label is another one now."""
        return [pair for pair in zip(self.recorded, self.scored, strict=True) if pair[0] != pair[1]]

    def text(self) -> str:
        """The accuracies, and the first of the rows that changed."""
        accuracies = f"accuracy {_accuracy(self.scored)}, recorded {_accuracy(self.recorded)}"
        lines = [
            f"{len(self.scored):,} rows of {self.task.name} by the {self.task.rule} rule: {accuracies}, "
            f"{len(self.changed):,} rows changed"
        ]
        for old, new in self.changed[:SHOWN]:
            lines.append(
                f"row {new.row}: {_verdict(old)} -> {_verdict(new)}, the answer is {new.label}: {_short(new.output)}"
            )
        if len(self.changed) > SHOWN:
            lines.append(f"... and {len(self.changed) - SHOWN:,} more rows")
        return "\n".join(lines)


def rescore(path: Path, *, task: str | None = None, rule: str | None = None) -> Rescored:
    """Score the predictions of a file again.

    The task and its rule are those of the run that the file lies with, where they are not given; a file without a run
    needs its task, and is scored by the paper's rule. Errors: what `read_predictions` and `get_task` refuse.
    """
    recorded = read_predictions(path)
    if task is None or rule is None:
        config = _config_beside(path)
        if config is None and task is None:
            raise ActshiftError(f"{path} lies in no run's folder, so its task must be said: --task {_scored_tasks()}.")
        rule = rule or (config.evaluation.rule if config else "paper")
        split = path.stem.removeprefix("predictions-")
        split = split if split in SPLITS else "test"  # an evaluation is of a test split
        scorer = (
            scoring_task(config.dataset, split, rule=rule)
            if task is None and config
            else get_task(str(task), rule=rule)
        )
    else:
        scorer = get_task(task, rule=rule)
    if not scorer.scored:
        raise ActshiftError(f"no answer of {scorer.name} is right or wrong. Tasks that are scored: {_scored_tasks()}.")
    return Rescored(scorer, recorded, [_scored(prediction, scorer) for prediction in recorded])


def _scored(prediction: Prediction, task: Task) -> Prediction:
    return replace(
        prediction,
        extracted=task.extract(prediction.output),
        correct=task.score(prediction.output, prediction.label),
    )


def _config_beside(path: Path) -> Config | None:
    """The config of the run, or of the evaluation of its adapter, that left a predictions file; None without one."""
    what, run = path.stem.removeprefix("predictions-"), path.resolve().parent
    if what in SPLITS:
        found = [run / "adapter" / "facts.json"]
    else:
        found = sorted(run.parent.parent.glob(f"evaluations/{run.name}.*.{what}.json"))
    return config_of(read_json(found[0])["config"]) if found and found[0].is_file() else None


def _scored_tasks() -> str:
    return ", ".join(name for name, task in TASKS.items() if task.scored)


def _accuracy(predictions: Sequence[Prediction]) -> str:
    right = sum(prediction.correct for prediction in predictions)
    return f"{100 * right / len(predictions):.2f}% ({right:,} right)"


def _verdict(prediction: Prediction) -> str:
    return f"{prediction.extracted or 'nothing'} ({'right' if prediction.correct else 'wrong'})"


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:60]}...{text[-37:]}")
