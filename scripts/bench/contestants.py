"""The contract of a contestant, and the project itself as one of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from actshift.evaluation.answers import predict
from actshift.evaluation.limits import batch_tokens
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import set_products
from actshift.training.batches import step_rows
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train
from bench.case import Case
from bench.measure import timed


class Contestant(Protocol):
    """An adapted model on its way through one cell."""

    def train(self) -> float:
        """Train on the case's rows and return the mean loss of the steps."""

    def evaluate(self) -> list[str]:
        """The continuations of the scored rows' prompts."""

    def close(self) -> None:
        """Leave the base model as it was."""


Entry = Callable[[Case], Contestant]


@dataclass(frozen=True)
class Lap:
    """One cell by one contestant; setting up (attaching, making a trainer) counts as training."""

    train_seconds: float
    evaluation_seconds: float
    loss: float
    outputs: list[str]

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.evaluation_seconds


def lap(case: Case, entry: Entry, *, clock: Callable[[], float] = time.perf_counter) -> Lap:
    """Time a cell by `clock`, from setting up to its last answer."""
    set_products(case.config.training.precision, case.device)  # the contestant before may have had another

    def trained() -> tuple[Contestant, float]:
        contestant = entry(case)
        return contestant, contestant.train()

    train_seconds, (contestant, loss) = timed(trained, device=case.device, clock=clock)
    try:
        evaluation_seconds, outputs = timed(contestant.evaluate, device=case.device, clock=clock)
    finally:
        contestant.close()
    return Lap(train_seconds, evaluation_seconds, loss, outputs)


def order(case: Case) -> list[int]:
    """The rows of the training in the order of the steps, the same for all contestants."""
    size, seed = case.config.training.batch_size, case.config.seed
    steps = step_rows(len(case.rows), batch_size=size, epochs=1, max_steps=None, seed=seed)
    return [row for step in steps for row in step]


class Actshift:
    """The project: the training loop and the evaluation that every run goes through."""

    def __init__(self, case: Case, *, seeds: Sequence[int] = (), lrs: Sequence[float] = ()) -> None:
        self._case = case
        self._seeds = list(seeds) or [case.config.seed]
        self._lrs = list(lrs) or [case.config.lr] * len(self._seeds)
        self.adaptation: Adaptation = attach(case.base, config=case.config.method, seeds=self._seeds)

    def train(self) -> float:
        case = self._case
        with tempfile.TemporaryDirectory() as folder:
            curves = train(
                case.base,
                self.adaptation,
                rows=case.rows,
                validation_rows=(),
                training=replace(case.config.training, epochs=1),
                lrs=self._lrs,
                seeds=self._seeds,
                micro_batch=case.config.hardware.micro_batch,
                checkpoints=Checkpoints(Path(folder), every=0),
                progress=lambda *_: None,
            )
        return sum(curves[0].loss) / len(curves[0].loss)

    def evaluate(self, *, stop: bool = True) -> list[str]:
        case = self._case
        predictions, *_ = predict(
            case.base,
            self.adaptation,
            task=case.task,
            rows=case.scored,
            max_new_tokens=case.config.evaluation.max_new_tokens,
            batch_tokens=batch_tokens(case.config),
            progress=lambda *_: None,
            stop=stop,
        )
        return [prediction.output for prediction in predictions]

    def close(self) -> None:
        self.adaptation.detach()
