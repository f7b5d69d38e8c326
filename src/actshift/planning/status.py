"""Where a sweep stands, from files alone: states by cell, failures, what is stale, and what is left to pay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from actshift.planning.halving import states as states_of
from actshift.planning.manifests import Manifest
from actshift.store.records import Cell
from actshift.store.store import Store

STATES = ("done", "running", "failed", "missing")
DROPPED = "dropped"
"""The state of a run that lagged behind where rates are chosen by halving; no other sweep has one."""


@dataclass(frozen=True)
class CellStatus:
    """How many runs of a cell in one stage are in which state, and the estimated seconds of those not done."""

    stage: str
    cell: Cell
    states: Mapping[str, int]
    stale: int
    """How many of the missing runs were begun by a process that no longer runs."""
    seconds_left: float


@dataclass(frozen=True)
class Failure:
    """A failed run: its last error line, and how often it was tried."""

    stage: str
    cell: Cell
    lr: float
    seed: int
    identity: str
    attempts: int
    last_line: str


@dataclass(frozen=True)
class Status:
    """A sweep's standing over all its stages."""

    sweep: str
    cells: tuple[CellStatus, ...]
    failures: tuple[Failure, ...]
    queue: Mapping[str, int]
    """Jobs of the sweep by SLURM's state of them; empty where squeue does not answer."""

    def counts(self, stage: str) -> Counter[str]:
        """Runs of a stage by state."""
        total: Counter[str] = Counter()
        for each in self.cells:
            if each.stage == stage:
                total.update(each.states)
        return total

    @property
    def unfinished(self) -> int:
        """How many runs are missing or running."""
        return sum(each.states["missing"] + each.states["running"] for each in self.cells)

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.stage for each in self.cells))

    def to_json(self) -> dict[str, Any]:
        stages = {stage: {state: self.counts(stage)[state] for state in STATES} for stage in self.stages}
        return {"stages": stages, **asdict(self)}


def status_of(
    store: Store,
    manifests: Sequence[Manifest],
    *,
    seconds: Mapping[tuple[Cell, str], float],
    queue: Mapping[str, int] | None = None,
) -> Status:
    """The status of a sweep's stages; `seconds` estimates a run by cell and stage (0 where there is none)."""
    cells, failures = [], []
    for manifest in manifests:
        by_cell: dict[Cell, list[str]] = {planned.cell: [] for planned in manifest.cells}
        stale: Counter[Cell] = Counter()
        for run, state in zip(manifest.runs, states_of(manifest, store), strict=True):
            state = "missing" if state == "waiting" else state
            by_cell[run.cell].append(state)
            stale[run.cell] += state == "missing" and store.stale(run.identity)
            note = store.failure(run.identity, run.split) if state == "failed" else None
            if note is not None:
                facts = (run.lr, run.seed, run.identity, note["attempts"], note["last_line"])
                failures.append(Failure(manifest.stage, run.cell, *facts))
        for cell, states in by_cell.items():
            left = sum(state in ("missing", "running") for state in states)
            known = (*STATES, DROPPED) if manifest.halves else STATES
            count = {state: states.count(state) for state in known}
            each = seconds.get((cell, manifest.stage), 0.0)
            cells.append(CellStatus(manifest.stage, cell, count, stale[cell], left * each))
    return Status(manifests[0].sweep, tuple(cells), tuple(failures), dict(queue or {}))


def headline(status: Status) -> str:
    """The status in one line: runs by state, what is left to pay, the queue."""
    parts = []
    for stage in status.stages:
        counts = status.counts(stage)
        parts.append(
            f"{stage}: " + ", ".join(f"{counts[state]} {state}" for state in (*STATES, DROPPED) if counts[state])
        )
    left = sum(each.seconds_left for each in status.cells)
    parts += [f"about {left / 3600:.1f} device hours left"] if left >= 360 else []
    parts += [f"queue: {', '.join(f'{n} {state}' for state, n in status.queue.items())}"] if status.queue else []
    return f"{status.sweep} " + " | ".join(parts)
