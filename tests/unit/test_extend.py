"""Grids that grow beyond an edge: which rates are added, and what stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actshift.errors import ActshiftError
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
