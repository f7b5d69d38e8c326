"""The learning rate of every cell, chosen on validation: by accuracy, by reward under GRPO, by loss without scores."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.planning.manifests import Manifest, PlannedCell, Run
from actshift.store.records import Cell, Record, read_json
from actshift.store.store import Store

SCHEMA = 2
SPLIT = "validation"
SHOWN = 10  # missing runs in one message


@dataclass(frozen=True)
class Rate:
    """One candidate of a cell: its mean validation accuracy in percent over `finished` of `planned` runs.

    Where no answer is right or wrong it has a `loss` instead, in nats a token. One that halving dropped trained a share
    `dropped_at` of its steps and had a validation `loss` then (null: not finite).
    """

    lr: float
    variant: str
    accuracy: float | None
    finished: int
    planned: int
    diverged: bool
    dropped_at: float | None = None
    loss: float | None = None
    reward: float | None = None
    """Mean validation reward, by which runs are chosen that were trained on rewards; None of all others."""

    @property
    def ranked(self) -> bool:
        """Whether it was compared with the others: by its score, or by its loss when it was dropped."""
        return self.finished > 0 or self.dropped_at is not None

    @property
    def score(self) -> float:
        """What the best candidate has the most of: reward, else accuracy, else the loss, of which less is better.

        Of a run that diverged before it had any of these, the least.
        """
        value = self.accuracy if self.reward is None else self.reward
        if value is not None:
            return value
        return -math.inf if self.loss is None else -self.loss

    def to_json(self) -> dict[str, Any]:
        left_out = {"reward"} if self.reward is None else set()
        if self.dropped_at is None:
            left_out |= {"dropped_at"} if self.loss is not None else {"dropped_at", "loss"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def label(self) -> str:
        """The candidate in words: its rate, and its variant where the cell tunes one."""
        return f"{self.lr:g} {self.variant}".rstrip()


@dataclass(frozen=True)
class Choice:
    """The candidate chosen for a cell (no rate where no run of it finished) and what a reader must know about it.

    `tie` holds the labels of all candidates that share the best accuracy (empty without a tie); `edge` is "lowest" or
    "highest" where the chosen rate is the outermost that finished with its variant, so that the best may lie beyond
    the grid; `diverged` holds the labels of those at which a run diverged; `incomplete` says that planned runs are
    missing. A cell with one candidate is chosen without a run: its `rates` are empty.
    """

    cell: Cell
    lr: float | None
    variant: str
    accuracy: float | None
    rates: tuple[Rate, ...]
    tie: tuple[str, ...]
    edge: str | None
    diverged: tuple[str, ...]
    incomplete: bool


@dataclass(frozen=True)
class Missing:
    """A planned run that has no validation record."""

    identity: str
    cell: Cell
    lr: float
    seed: int


@dataclass(frozen=True)
class Selection:
    """The choices of a sweep in table order, and the runs that they were made without."""

    sweep: str
    choices: tuple[Choice, ...]
    incomplete: bool
    missing: tuple[Missing, ...]
    halved: bool = False
    """Whether candidates that lagged behind were dropped before their end."""

    def choice(self, cell: Cell) -> Choice | None:
        return next((choice for choice in self.choices if choice.cell == cell), None)

    def to_json(self) -> dict[str, Any]:
        choices = [{**asdict(choice), "rates": [rate.to_json() for rate in choice.rates]} for choice in self.choices]
        halved = {"halved": True} if self.halved else {}
        missing = [asdict(run) for run in self.missing]
        known = {"sweep": self.sweep, "incomplete": self.incomplete, "missing": missing}
        return {"schema": SCHEMA, "split": SPLIT, **known, "choices": choices, **halved}


Dropped = Mapping[str, tuple[float, float]]
"""Runs that halving dropped, by identity: the share of their steps that they trained, and their validation loss."""


def select(
    manifest: Manifest, records: Iterable[Record], *, allow_missing: bool = False, dropped: Dropped | None = None
) -> Selection:
    """The candidate of highest mean validation `score` of every cell; of tied ones the first.

    Candidates stand in the order of rates, then variants.

    A rate at which a run diverged is chosen only where all did. Records of other sweeps are not used. Raises
    ActshiftError on a record of another split than validation, on another stage's manifest, and, unless
    `allow_missing`, where planned runs have no record.
    """
    if manifest.stage != "grid":
        raise ActshiftError(
            f"rates are selected from the grid stage, got the {manifest.stage} stage of '{manifest.sweep}'"
        )
    found = _validation_records(records)
    recorded = {planned.cell: planned.recorded for planned in manifest.cells}
    for run in manifest.runs:
        if run.identity in found:
            _check_same(run, found[run.identity], cell=recorded[run.cell])
    dropped = dropped or {}
    missing = [run for run in manifest.runs if run.identity not in found and run.identity not in dropped]
    if missing and not allow_missing:
        raise _incomplete(manifest, missing)
    choices = tuple(_choose(planned, manifest.runs_of(planned.cell), found, dropped) for planned in manifest.cells)
    absent = tuple(Missing(run.identity, run.cell, run.lr, run.seed) for run in missing)
    return Selection(manifest.sweep, choices, bool(missing), absent, manifest.halves)


def write_selection(store: Store, selection: Selection) -> None:
    """Write selected/<sweep>.json; the same selection is the same bytes."""
    text = json.dumps(selection.to_json(), sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_file(store.selected_path(selection.sweep), text)


def read_selection(store: Store, sweep: str) -> Selection:
    """The selection of a sweep. Errors: none there, torn, or of another version; the message names the file."""
    path = store.selected_path(sweep)
    try:
        data = read_json(path)
        if (data.pop("schema"), data.pop("split")) != (SCHEMA, SPLIT):
            raise KeyError("schema")
        choices = tuple(_choice_from(choice, where=path) for choice in data["choices"])
        missing = tuple(Missing(**run | {"cell": Cell.from_json(run["cell"], where=path)}) for run in data["missing"])
        return Selection(**data | {"choices": choices, "missing": missing})
    except FileNotFoundError as error:
        raise ActshiftError(f"nothing is selected yet ({path}): run `actshift select {sweep}`") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ActshiftError(f"{path} is not a selection of schema {SCHEMA}: run `actshift select {sweep}`") from error


def _validation_records(records: Iterable[Record]) -> dict[str, Record]:
    found = {}
    for record in records:
        if record.split != SPLIT:
            raise ActshiftError(
                f"selection may see the {SPLIT} split only, got the {record.split} record {record.file_name} "
                f"of {record.cell}: read the records with split='{SPLIT}'"
            )
        found[record.identity] = record
    return found


def _check_same(run: Run, record: Record, *, cell: Cell) -> None:
    if (cell, run.lr, run.seed) != (record.cell, record.lr, record.seed):
        raise ActshiftError(
            f"record {record.file_name} is of {record.cell} at lr {record.lr!r}, seed {record.seed}, but the manifest "
            f"plans that identity as {cell} at lr {run.lr!r}, seed {run.seed}: one of the two files was edited"
        )


def _incomplete(manifest: Manifest, missing: list[Run]) -> ActshiftError:
    head = f"{len(missing)} of {len(manifest.runs)} grid runs of '{manifest.sweep}' have no record:"
    lines = [f"{run.identity}  {run.cell}, lr {run.lr!r}, seed {run.seed}" for run in missing[:SHOWN]]
    rest = [f"... and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
    return ActshiftError(
        "\n  ".join([head, *lines, *rest])
        + "\nFinish or retry them, or select without them (--allow-missing): the table will say so."
    )


def _choose(planned: PlannedCell, runs: Iterable[Run], found: dict[str, Record], dropped: Dropped) -> Choice:
    if len(planned.candidates) == 1:
        return Choice(planned.cell, *planned.candidates[0], None, (), (), None, (), False)
    of = {one: [run for run in runs if (run.lr, run.variant) == one] for one in planned.candidates}
    rates = tuple(_rate(*candidate, of[candidate], found, dropped) for candidate in planned.candidates)
    finished = [rate for rate in rates if rate.finished]
    sound = [rate for rate in finished if not rate.diverged] or finished
    # Means of equal shares may differ in the last bit.
    best = max((round(rate.score, 9) for rate in sound), default=None)
    tied = [rate for rate in sound if round(rate.score, 9) == best]
    chosen = tied[0] if tied else None
    return Choice(
        cell=planned.cell,
        lr=chosen.lr if chosen else None,
        variant=chosen.variant if chosen else "",
        accuracy=chosen.accuracy if chosen else None,
        rates=rates,
        tie=tuple(rate.label for rate in tied) if len(tied) > 1 else (),
        edge=_edge(chosen, [rate for rate in rates if chosen and rate.ranked and rate.variant == chosen.variant]),
        diverged=tuple(rate.label for rate in rates if rate.diverged),
        incomplete=any(rate.finished < rate.planned and rate.dropped_at is None for rate in rates),
    )


def _rate(lr: float, variant: str, runs: list[Run], found: dict[str, Record], dropped: Dropped) -> Rate:
    metrics = [found[run.identity].metrics for run in runs if run.identity in found and run.identity not in dropped]
    accuracy, loss_of_records = _mean("accuracy", metrics), _mean("loss", metrics)
    rewarded = any("reward" in each for each in metrics)
    # A diverged run has answered nothing, so it has earned nothing.
    reward = statistics.fmean(each.get("reward", 0.0) for each in metrics) if rewarded else None
    share, loss = next((dropped[run.identity] for run in runs if run.identity in dropped), (None, None))
    loss = loss_of_records if share is None else round(loss, 5) if loss is not None and math.isfinite(loss) else None
    diverged = any(each["diverged"] for each in metrics)
    return Rate(lr, variant, accuracy, len(metrics), len(runs), diverged, share, loss, reward)


def _mean(name: str, metrics: list[dict[str, Any]]) -> float | None:
    """The mean of a metric over runs; none where one of them has none."""
    values = [each.get(name) for each in metrics]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _edge(chosen: Rate | None, ranked: list[Rate]) -> str | None:
    """Which end of the rates that were compared was chosen; one rate alone has no ends."""
    if chosen is None or len(ranked) < 2:
        return None
    return "lowest" if chosen is ranked[0] else "highest" if chosen is ranked[-1] else None


def _choice_from(data: dict[str, Any], *, where: object) -> Choice:
    rates = tuple(Rate(**rate) for rate in data["rates"])
    lists = {name: tuple(data[name]) for name in ("tie", "diverged")}
    return Choice(**data | lists | {"cell": Cell.from_json(data["cell"], where=where), "rates": rates})
