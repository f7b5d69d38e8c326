"""Grids that grow beyond an edge: which rates are added, and what stays."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from actshift.commands.runs import _tuned
from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.planning.extend import extend, keep_extended
from actshift.planning.manifests import Manifest, freeze, read_manifest
from actshift.planning.selection import select
from actshift.store.store import Store
from tests.unit.test_selection import manifest, records


def extended(correct: list[int | None]) -> Manifest:
    """The plan of rates 0.001, 0.002, 0.005, 0.01 after a selection by so many right answers of ten."""
    plan = manifest()
    return extend(plan, select(plan, records(plan, correct)))


@pytest.mark.parametrize(
    ("correct", "added"),
    [
        ([1, 5, 3, 2], ()),
        ([5, 1, 1, 1], (0.0005,)),  # 0.001 * 0.001 / 0.002
        ([1, 1, 1, 5], (0.02,)),  # 0.01 * 0.01 / 0.005
        ([0, 0, 0, 0], (0.0005, 0.02)),  # equally bad everywhere: the rates may be too small as well as too large
    ],
)
def test_a_rate_is_added_beyond_the_chosen_edge(correct: list[int | None], added: tuple[float, ...]) -> None:
    plan, larger = manifest(), extended(correct)
    assert larger.cells[0].added == added
    assert larger.cells[0].rates == tuple(sorted((*plan.cells[0].rates, *added)))
    assert larger.cells[1] == plan.cells[1], "a cell of one rate has nothing to choose"
    identities = {run.identity for run in larger.runs}
    assert identities >= {run.identity for run in plan.runs} and len(identities) == 4 + len(added)


def test_a_cell_of_equal_rates_can_be_left_as_it_is() -> None:
    plan = manifest()
    flat, edge = (select(plan, records(plan, correct)) for correct in ([0, 0, 0, 0], [5, 5, 1, 1]))
    assert extend(plan, flat, flat=False) == plan
    assert extend(plan, edge, flat=False).cells[0].added == (0.0005,), "a tie that is not of all rates"


class Engine:
    """An engine whose runs answer the more right, the larger their rate is, up to a best rate."""

    def __init__(self, store: Store, best: float) -> None:
        self.store, self.best, self.grids = store, best, 0

    def do(self, grid: Manifest) -> Counter[str]:
        self.grids += 1
        scores = [int(10 * min(run.lr, self.best) / max(run.lr, self.best)) for run in grid.runs]
        for record in records(grid, list(scores)):
            write_file(self.store.root / "records" / record.file_name, json.dumps(record.to_json()))
        return Counter(done=len(grid.runs))


@pytest.mark.parametrize(
    ("best", "extensions", "grids", "last", "edge"),
    [(0.005, 3, 1, 0.01, None), (0.02, 3, 3, 0.04, None), (0.02, 0, 1, 0.01, "highest"), (0.09, 3, 4, 0.08, "highest")],
)
def test_a_sweep_extends_its_grids_until_choices_are_interior(
    best: float, extensions: int, grids: int, last: float, edge: str | None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    engine = Engine(store, best)
    larger, selection = _tuned(engine, store, freeze(store, manifest()), extensions=extensions)  # type: ignore[arg-type]
    assert engine.grids == grids and larger.cells[0].rates[-1] == last
    assert selection is not None and selection.choices[0].edge == edge
    assert read_manifest(store.manifest_path("small", "grid")) == larger


def test_an_extended_plan_is_kept_when_the_sweep_is_planned_again(tmp_path: Path) -> None:
    store, larger = Store(tmp_path), extended([1, 1, 1, 5])
    freeze(store, manifest())
    freeze(store, larger, replan=True)
    frozen = read_manifest(store.manifest_path("small", "grid"))
    assert frozen == larger and frozen.extended == (larger.cells[0].cell,)
    assert freeze(store, keep_extended(manifest(), frozen)) == larger
    assert keep_extended(manifest(), manifest()) == manifest()


def test_a_selection_of_other_cells_extends_nothing() -> None:
    plan = manifest()
    chosen = select(plan, records(plan, [1, 1, 1, 5]))
    with pytest.raises(ActshiftError, match="select again"):
        extend(plan, replace(chosen, choices=chosen.choices[:1]))
