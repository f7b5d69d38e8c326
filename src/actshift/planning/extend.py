"""Learning-rate grids that grow: where the best rate is the outermost of its grid, the best may lie beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from actshift.errors import ActshiftError
from actshift.planning.expand import grid_runs
from actshift.planning.manifests import Manifest
from actshift.planning.selection import Choice, Selection
from actshift.store.records import Cell


def extend(grid: Manifest, selection: Selection) -> Manifest:
    """The grid with one more rate beyond each edge at which a cell's best rate lies; the same grid where none does.

    The new rate keeps the ratio of the two outermost ones: r[0]^2 / r[1] below, r[-1]^2 / r[-2] above, rounded to three
    digits. Where all rates are equally good, both ends grow. Planned runs keep their identities. Raises ActshiftError
    where the selection is of other cells.
    """
    choices = {choice.cell: choice for choice in selection.choices}
    if choices.keys() != {planned.cell for planned in grid.cells}:
        raise ActshiftError(
            f"the selection of '{selection.sweep}' is not one of the cells that are planned: "
            f"select again with `actshift select {grid.sweep}`"
        )
    return with_rates(grid, {cell: _beyond(choice) for cell, choice in choices.items()})


def keep_extended(grid: Manifest, frozen: Manifest) -> Manifest:
    """A freshly expanded grid with the rates that were added to the frozen one of the same cells."""
    known = {planned.cell for planned in grid.cells}
    return with_rates(grid, {planned.cell: planned.added for planned in frozen.cells if planned.cell in known})


def with_rates(grid: Manifest, added: Mapping[Cell, tuple[float, ...]]) -> Manifest:
    """The grid with more rates for some of its cells, and their runs; a rate it has is not added again."""
    cells = []
    for planned in grid.cells:
        new = tuple(rate for rate in added.get(planned.cell, ()) if rate not in planned.rates)
        rates = tuple(sorted((*planned.rates, *new)))
        cells.append(replace(planned, rates=rates, added=tuple(sorted((*planned.added, *new)))))
    return replace(grid, cells=tuple(cells), runs=grid_runs(cells))


def _beyond(choice: Choice) -> tuple[float, ...]:
    """The rates to add beyond the edges of a choice's grid: none where the choice is interior."""
    if choice.edge is None:
        return ()
    rates = [rate for rate in choice.rates if rate.variant == choice.variant and rate.ranked]
    best = {rate.lr for rate in rates if rate.label in choice.tie or rate.lr == choice.lr}
    ends = ((rates[0].lr, rates[1].lr), (rates[-1].lr, rates[-2].lr))
    return tuple(float(f"{end * end / inner:.3g}") for end, inner in ends if end in best)
