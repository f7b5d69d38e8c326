"""Successive halving of a cell's learning rates: which runs go on, from validation losses alone.

All candidates of a cell train for a quarter of their steps, the better half of them on to a half, the best two to the
end; schedules are those of the whole run, so that a run which is kept is the run of the full grid. Where no more than
two are left nothing is paused. (Successive halving: arXiv 1502.07943, algorithm 1, with these budgets.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from actshift.errors import ActshiftError
from actshift.planning.manifests import Manifest, Run
from actshift.schema.config import TrainingConfig
from actshift.store.records import Cell
from actshift.store.store import Store

SHARES = (0.25, 0.5)
"""The shares of its steps after which a run pauses until the others of its cell have come as far."""
FINALISTS = 2
"""How many candidates train to the end; validation accuracy decides between them, as it does in a full grid."""

LossAt = Callable[[Run, float], float | None]
"""The validation loss of a run after a share of its steps; None where it has not come so far. A run that failed or
diverged before has an infinite one."""


@dataclass(frozen=True)
class Standing:
    """Where a cell stands: `due` are the runs to train up to `share` of their steps (1: to their record).

    `dropped` names those that go no further and the share that they had reached; the rest wait or are done.
    """

    due: tuple[Run, ...]
    share: float
    dropped: Mapping[Run, float] = field(default_factory=dict)


def kept(candidates: int, alive: int, share: float) -> int:
    """How many of `alive` runs go on beyond a share of their steps: the better half of all candidates, then two."""
    wanted = math.ceil(candidates / 2) if share == SHARES[0] else FINALISTS
    return min(alive, max(FINALISTS, wanted))


def standing(runs: Sequence[Run], *, loss_at: LossAt, done: Collection[str]) -> Standing:
    """The standing of one cell's candidates; `done` are the identities of the runs that have ended with a record.

    Equal losses go by the smaller rate, then by variant. Every process that sees the same losses drops the same runs.
    """
    alive, dropped = list(runs), dict[Run, float]()
    for share in SHARES:
        count = kept(len(runs), len(alive), share)
        if count == len(alive):
            continue
        losses = {run: loss_at(run, share) for run in alive}
        if due := tuple(run for run, loss in losses.items() if loss is None):
            return Standing(due, share, dropped)
        order = sorted(alive, key=lambda run: (_finite(losses[run]), run.lr, run.variant))
        dropped |= dict.fromkeys(order[count:], share)
        alive = [run for run in alive if run not in dropped]
    return Standing(tuple(run for run in alive if run.identity not in done), 1.0, dropped)


def pause_step(steps: int, share: float) -> int | None:
    """The step after which a run of so many steps has done a share of them; None where that is none or all of them."""
    step = round(steps * share)
    return step if 0 < step < steps else None


def loss_after(curve: Sequence[Sequence[Any]], *, steps: int, share: float) -> float | None:
    """The first loss of a validation curve at a share of the steps or after it; None where it ends before.

    A record writes a loss that is not finite as null.
    """
    found = (math.inf if loss is None else float(loss) for step, loss in curve if step >= round(steps * share))
    return next(found, None)


def budget(candidates: int) -> tuple[float, int]:
    """How many whole trainings a cell's candidates come to in all, and how many of them are scored."""
    trained, alive, before = 0.0, candidates, 0.0
    for share in SHARES:
        count = kept(candidates, alive, share)
        if count < alive:
            trained += alive * (share - before)
            alive, before = count, share
    return trained + alive * (1 - before), alive


def with_losses(training: TrainingConfig) -> TrainingConfig:
    """A training config whose validation curve has the points that are compared: a multiple of four of them."""
    points = training.validations
    return replace(training, validations=points if points and points % 4 == 0 else 4)


class Halving:
    """The cells of a grid stage, from what its runs have left in a store so far."""

    def __init__(self, manifest: Manifest, store: Store) -> None:
        self._manifest, self._store = manifest, store

    def standing(self, cell: Cell) -> Standing:
        """Which candidates of a cell are due and which are dropped, by the files of this moment."""
        runs = self._manifest.runs_of(cell)
        done = {run.identity for run in runs if self._store.record_path(run.identity, run.split).exists()}
        return standing(runs, loss_at=self.loss, done=done)

    def loss(self, run: Run, share: float) -> float | None:
        """The validation loss of a run after a share of its steps, as `LossAt` has it.

        Errors: a run that is done and has no validation curve.
        """
        record = self._store.record(run.identity, run.split)
        if record is None:
            if self._store.failure(run.identity, run.split) is not None:
                return math.inf
            pause = self._store.paused(run.identity)
            return None if pause is None else loss_after(pause.curve, steps=pause.steps, share=share)
        if record.metrics["diverged"]:
            return math.inf
        loss = loss_after(record.metrics["validation_curve"], steps=record.metrics["steps"], share=share)
        if loss is None:
            raise ActshiftError(
                f"run {run.identity} ({run.cell}, lr {run.lr:g}) is done, and its record has no validation losses for "
                "selection=halving to compare: it was trained with training.validations=0. Take selection=grid, or "
                "another results folder."
            )
        return loss


def states(manifest: Manifest, store: Store) -> list[str]:
    """The state of each run of a stage: the store's, and two more where lagging candidates are dropped.

    "dropped" goes no further; "waiting" is missing, and goes on when the others of its cell have come as far.
    """
    found = [store.state(run.identity, run.split) for run in manifest.runs]
    if not manifest.halves:
        return found
    now = {planned.cell: Halving(manifest, store).standing(planned.cell) for planned in manifest.cells}
    return [
        _state(run, now[run.cell]) if state == "missing" else state
        for run, state in zip(manifest.runs, found, strict=True)
    ]


def dropped(manifest: Manifest, store: Store) -> dict[str, tuple[float, float]]:
    """The runs of a stage that lagged behind, by identity: the share of their steps they trained, their loss there."""
    if not manifest.halves:
        return {}
    halving = Halving(manifest, store)
    found = {}
    for planned in manifest.cells:
        for run, share in halving.standing(planned.cell).dropped.items():
            found[run.identity] = share, halving.loss(run, share) or math.inf
    return found


def _state(run: Run, now: Standing) -> str:
    if run in now.dropped:
        return "dropped"
    return "missing" if run in now.due else "waiting"


def _finite(loss: float | None) -> float:
    return math.inf if loss is None or math.isnan(loss) else loss
