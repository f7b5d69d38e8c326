"""Selection: validation alone decides, and what a reader must know about a choice is written beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.planning.expand import expand_final
from actshift.planning.manifests import Manifest, PlannedCell, Variant
from actshift.planning.selection import Choice, read_selection, select, write_selection
from actshift.store.records import Cell, Record
from actshift.store.store import Store

RATES = (0.001, 0.002, 0.005, 0.01)
CELLS = (Cell("tiny", "post_block", "boolq", "paper"), Cell("tiny", "sft", "boolq", "paper"))


def manifest(rates: tuple[float, ...] = RATES, *, seeds: tuple[int, ...] = (42,)) -> Manifest:
    """Two cells: post_block with a grid of rates, sft with one rate only."""
    planned = []
    for cell, grid in zip(CELLS, (rates, (0.1,)), strict=True):
        config = {group: {"name": name} for group, name in cell.to_json().items()} | {"lr": grid[0], "seed": 42}
        planned.append(PlannedCell(cell, grid, (42, 43), (Variant("", (f"method={cell.method}",), config),)))
    runs = tuple(planned[0].run(stage="grid", lr=lr, seed=seed) for lr in rates for seed in seeds)
    return Manifest(
        sweep="small",
        stage="grid",
        title="Small",
        table=None,
        models=("tiny",),
        methods=("post_block", "sft"),
        datasets=("boolq",),
        reference="sft",
        exclusions=(),
        cells=tuple(planned),
        runs=runs,
    )


def records(plan: Manifest, correct: list[int | None], *, diverged: tuple[float, ...] = ()) -> list[Record]:
    """A record a run with so many of 10 rows correct; None leaves the run without one."""
    found = []
    for run, right in zip(plan.runs, correct, strict=True):
        if right is not None:
            metrics = {"accuracy": 10.0 * right, "rows": 10, "correct": right, "diverged": run.lr in diverged}
            found.append(Record(run.identity, "validation", run.cell, run.lr, run.seed, {}, metrics, {}))
    return found


def choice(correct: list[int | None], **options: Any) -> Choice:
    plan = manifest()
    return select(plan, records(plan, correct, **options), allow_missing=None in correct).choices[0]


@pytest.mark.parametrize(
    ("correct", "lr", "tie", "edge"),
    [
        ([1, 5, 3, 2], 0.002, (), None),
        ([5, 1, 1, 1], 0.001, (), "lowest"),
        ([1, 1, 1, 5], 0.01, (), "highest"),
        ([1, 5, 5, 1], 0.002, (0.002, 0.005), None),
        ([1, 1, 5, 5], 0.005, (0.005, 0.01), None),
        ([0, 0, 0, 0], 0.001, RATES, "lowest"),
    ],
)
def test_the_best_rate_its_ties_and_the_edge(
    correct: list[int | None], lr: float, tie: tuple[float, ...], edge: str | None
) -> None:
    chosen = choice(correct)
    assert (chosen.lr, chosen.tie, chosen.edge) == (lr, tuple(f"{rate:g}" for rate in tie), edge)
    assert chosen.accuracy == max(10.0 * right for right in correct if right is not None)
    assert not chosen.incomplete


def test_a_diverged_rate_is_listed_and_chosen_only_where_all_did() -> None:
    chosen = choice([1, 2, 9, 0], diverged=(0.005, 0.01))
    assert (chosen.lr, chosen.diverged, chosen.edge) == (0.002, ("0.005", "0.01"), None)
    chosen = choice([0, 0, 0, 0], diverged=(0.001,))
    assert (chosen.lr, chosen.tie) == (0.002, ("0.002", "0.005", "0.01"))
    assert choice([0, 0, 0, 0], diverged=RATES).lr == 0.001


def test_a_cell_of_one_rate_is_chosen_without_a_run() -> None:
    plan = manifest()
    chosen = select(plan, records(plan, [1, 2, 3, 4])).choice(CELLS[1])
    assert chosen is not None
    assert (chosen.lr, chosen.accuracy, chosen.rates, chosen.edge, chosen.incomplete) == (0.1, None, (), None, False)


def test_the_mean_over_seeds_decides_and_equal_means_tie() -> None:
    plan = manifest((0.001, 0.002), seeds=(1, 2, 3))
    chosen = select(plan, records(plan, [1, 2, 9, 7, 3, 2])).choices[0]
    assert chosen.tie == ("0.001", "0.002") and chosen.accuracy == pytest.approx(40)
    assert [(rate.finished, rate.planned) for rate in chosen.rates] == [(3, 3), (3, 3)]


def test_a_test_record_is_refused_even_beside_all_that_is_needed() -> None:
    plan = manifest()
    found = records(plan, [1, 2, 3, 4])
    values = vars(found[1]) | {
        "split": "test",
        "metrics": {"accuracy": 100.0, "rows": 1, "correct": 1, "diverged": False},
    }
    with pytest.raises(ActshiftError, match="validation split only, got the test record"):
        select(plan, [*found, Record(**values)])
    with pytest.raises(ActshiftError, match="validation split only"):
        select(plan, [Record(**values | {"identity": "0" * 16})], allow_missing=True)


def test_the_choice_is_the_same_whatever_test_records_lie_beside(tmp_path: Path) -> None:
    plan, store = manifest(), Store(tmp_path)
    before = select(plan, records(plan, [1, 2, 3, 2]))
    (tmp_path / "records").mkdir()
    for record in records(plan, [1, 2, 3, 2]):
        for split, metrics in (
            ("validation", record.metrics),
            ("test", record.metrics | {"accuracy": 0.0, "correct": 0}),
        ):
            one = Record(**vars(record) | {"split": split, "metrics": metrics})
            (tmp_path / "records" / one.file_name).write_text(json.dumps(one.to_json()))
    assert select(plan, store.records("validation")) == before
    with pytest.raises(ActshiftError, match="test record"):
        select(plan, store.records())


def test_the_final_stage_cannot_be_selected_from() -> None:
    plan = manifest()
    final = expand_final(plan, select(plan, records(plan, [1, 2, 3, 4])))
    with pytest.raises(ActshiftError, match="from the grid stage, got the final"):
        select(final, [])


def test_missing_runs_are_refused_with_how_many_and_which() -> None:
    plan = manifest()
    with pytest.raises(ActshiftError, match="2 of 4 grid runs of 'small' have no record") as caught:
        select(plan, records(plan, [1, None, 3, None]))
    message = str(caught.value)
    assert plan.runs[1].identity in message and plan.runs[3].identity in message
    assert plan.runs[0].identity not in message and "--allow-missing" in message


def test_selecting_without_missing_runs_says_so() -> None:
    plan = manifest()
    selection = select(plan, records(plan, [1, 2, None, 1]), allow_missing=True)
    assert selection.incomplete and [(run.identity, run.lr) for run in selection.missing] == [
        (plan.runs[2].identity, 0.005)
    ]
    assert selection.choices[0].incomplete and not selection.choices[1].incomplete
    assert (selection.choices[0].lr, selection.choices[0].edge) == (0.002, None)


def test_the_edge_is_that_of_what_finished() -> None:
    assert choice([None, 3, 1, 2]).edge == "lowest"
    assert choice([1, 3, None, None]).edge == "highest"
    assert choice([None, 3, None, None]).edge is None


def test_nothing_finished_is_no_choice() -> None:
    plan = manifest()
    selection = select(plan, [], allow_missing=True)
    assert (selection.choices[0].lr, selection.choices[0].accuracy, selection.choices[0].edge) == (None, None, None)
    assert expand_final(plan, selection).runs_of(CELLS[0]) == ()


def test_records_of_other_sweeps_are_not_used_and_edited_ones_are_refused() -> None:
    plan = manifest()
    found = records(plan, [1, 2, 3, 4])
    stranger = Record(**vars(found[0]) | {"identity": "f" * 16, "metrics": found[3].metrics})
    assert select(plan, [*found, stranger]).choices[0].lr == 0.01
    found[0] = Record(**vars(found[0]) | {"lr": 0.9})
    with pytest.raises(ActshiftError, match="one of the two files was edited"):
        select(plan, found)


@given(st.lists(st.integers(0, 10), min_size=4, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(correct: list[int | None], rng: Any) -> None:
    plan = manifest()
    found = records(plan, correct)
    expected = select(plan, found)
    rng.shuffle(found)
    assert select(plan, found) == expected
    best = max(right for right in correct if right is not None)
    assert expected.choices[0].lr == RATES[correct.index(best)], "the smaller rate of tied ones"


def test_a_selection_is_written_the_same_and_read_back(tmp_path: Path) -> None:
    plan, store = manifest(), Store(tmp_path)
    selection = select(plan, records(plan, [3, None, 3, 0], diverged=(0.01,)), allow_missing=True)
    write_selection(store, selection)
    first = store.selected_path("small").read_bytes()
    write_selection(store, read_selection(store, "small"))
    assert store.selected_path("small").read_bytes() == first
    assert read_selection(store, "small") == selection
    data = json.loads(first)
    assert (
        data["incomplete"] is True and data["split"] == "validation" and data["choices"][0]["tie"] == ["0.001", "0.005"]
    )


def test_a_selection_that_is_not_there_or_torn_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ActshiftError, match="actshift select small"):
        read_selection(store, "small")
    path = store.selected_path("small")
    path.parent.mkdir()
    for text in ("{", "[]", "{}", '{"schema": 1, "split": "test", "choices": [], "missing": [], "sweep": "small"}'):
        path.write_text(text)
        with pytest.raises(ActshiftError, match=r"small\.json"):
            read_selection(store, "small")


def with_variants() -> Manifest:
    """One cell that tunes its scope with the rate."""
    plan = manifest(RATES[:2])
    config = plan.cells[0].config
    scopes = tuple(
        Variant(name, ("method=post_block", f"method.scope={name}"), {**config, "scope": name})
        for name in ("last", "all")
    )
    planned = PlannedCell(CELLS[0], RATES[:2], (42,), scopes)
    runs = tuple(planned.run(stage="grid", lr=lr, seed=42, variant=name) for lr, name in planned.candidates)
    return replace(plan, cells=(planned,), runs=runs)


@pytest.mark.parametrize(
    ("correct", "chosen", "tie", "edge"),
    [
        # candidates: 0.001 last, 0.001 all, 0.002 last, 0.002 all
        ([1, 2, 3, 9], (0.002, "all"), (), "highest"),
        ([1, 9, 3, 2], (0.001, "all"), (), "lowest"),
        ([1, 9, 9, 2], (0.001, "all"), ("0.001 all", "0.002 last"), "lowest"),
        ([9, 9, 1, 2], (0.001, "last"), ("0.001 last", "0.001 all"), "lowest"),
    ],
)
def test_a_scope_is_tuned_with_the_rate(
    correct: list[int | None], chosen: tuple[float, str], tie: tuple[str, ...], edge: str
) -> None:
    plan = with_variants()
    assert len({run.identity for run in plan.runs}) == 4
    selection = select(plan, records(plan, correct))
    (made,) = selection.choices
    assert ((made.lr, made.variant), made.tie, made.edge) == (chosen, tie, edge)
    (final,) = expand_final(plan, selection).runs
    trained = next(run for run in plan.runs if (run.lr, run.variant) == chosen)
    assert final.identity == trained.identity, "the final run takes over what the grid trained"
    assert f"method.scope={chosen[1]}" in final.overrides


def test_a_selection_of_variants_comes_back_from_its_file(tmp_path: Path) -> None:
    selection = select(with_variants(), records(with_variants(), [1, 9, 9, 2]))
    write_selection(Store(tmp_path), selection)
    assert read_selection(Store(tmp_path), "small") == selection
