"""The cells of a study with their levels, and the answers behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from actshift.errors import ActshiftError
from actshift.planning.fraction import METHOD, Fraction, Levels
from actshift.report.evidence import answers
from actshift.report.frame import cells as cells_of
from actshift.report.statistics import Bits

if TYPE_CHECKING:
    from actshift.planning.manifests import Manifest
    from actshift.planning.selection import Selection
    from actshift.store.records import Record


@dataclass(frozen=True)
class Study:
    """A study as far as it is run.

    `cells` is the frame of `report.frame`, `levels` the levels of each row of the table by its name (a method that the
    sweep names has the one factor `method`), `answers` the right rows of each run by (data set, name): of the cells
    whose runs are all finished and none of them diverged.
    """

    name: str
    title: str
    model: str
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    """The seeds that are planned, by which a cell is finished."""
    fraction: Fraction
    cells: pd.DataFrame
    levels: Mapping[str, Levels]
    answers: Mapping[tuple[str, str], Sequence[Bits]]
    grid_runs: tuple[int, int] = (0, 0)
    """How many runs of the grid stage are done, and of how many."""

    @property
    def planned(self) -> int:
        """How many cells there are."""
        return len(self.cells)

    @property
    def done(self) -> int:
        """How many of them are finished."""
        return int(self.cells["status"].eq("done").sum())

    def finished(self, dataset: str) -> dict[str, Levels]:
        """The levels of the rows that are finished on a data set."""
        return {name: levels for name, levels in self.levels.items() if (dataset, name) in self.answers}


def study_of(
    manifest: Manifest,
    records: Iterable[Record],
    selection: Selection | None,
    *,
    grid_runs: tuple[int, int] = (0, 0),
) -> Study:
    """The study of a sweep's final stage, planned or not. Errors: a sweep without a fraction, one of several models."""
    if manifest.fraction is None:
        raise ActshiftError(
            f"the sweep '{manifest.sweep}' is no study: its file has no fraction (sweep.fraction). It has a table: "
            f"`actshift tables {manifest.sweep}`."
        )
    if len(manifest.models) > 1:
        raise ActshiftError(
            f"a study has one model, '{manifest.sweep}' has {', '.join(manifest.models)}: one file each"
        )
    found = {record.identity: record for record in records}
    frame = cells_of(manifest, found.values(), selection)
    levels = {planned.cell.method: planned.levels or {METHOD: planned.cell.method} for planned in manifest.cells}
    right: dict[tuple[str, str], Sequence[Bits]] = {}
    for row in frame.itertuples():
        bits = [answers(found[name]) for name in str(row.identities).split()]
        if row.status == "done" and all(each is not None for each in bits):
            right[str(row.dataset), str(row.method)] = [each for each in bits if each is not None]
    return Study(
        name=manifest.sweep,
        title=manifest.title,
        model=manifest.models[0],
        datasets=manifest.datasets,
        seeds=tuple(sorted({seed for planned in manifest.cells for seed in planned.seeds})),
        fraction=manifest.fraction,
        cells=frame,
        levels=levels,
        answers=right,
        grid_runs=grid_runs,
    )
