"""The frame says what the records say, of test alone, and compares only what can be compared."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sweep import finished, planned

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.paper import printed as paper
from actshift.planning.expand import expand_grid
from actshift.report import frame

REAL = {"models": ["llama3.2-1b"], "overrides": ["data.source=local"]}
ALL_SETS = ["boolq", "winogrande", "arc_challenge", "gsm8k", "aqua", "listops"]


def row(cells: pd.DataFrame, method: str, dataset: str = "boolq") -> Any:
    return cells.set_index(["method", "dataset"]).loc[(method, dataset)]


def test_mean_deviation_and_difference_are_over_the_finished_seeds() -> None:
    manifest, selection = planned()
    counts = {("tiny", "sft", "boolq"): [700], ("tiny", "lora_r8", "boolq"): [700, 710, 720, 730, 740]}
    cells = frame.cells(manifest, finished(manifest, counts), selection)
    lora, sft = row(cells, "lora_r8"), row(cells, "sft")
    assert (lora["status"], lora["n_finished"], lora["n_planned"]) == ("done", 5, 5)
    assert lora["mean"] == pytest.approx(72)
    assert lora["std"] == pytest.approx(math.sqrt(2.5))  # ddof 1; ddof 0 would be sqrt(2)
    assert lora["delta"] == pytest.approx(2)
    assert lora["values"] == (70.0, 71.0, 72.0, 73.0, 74.0)
    assert lora["seeds"] == (42, 43, 44, 45, 46)
    assert lora["params_pct"] == pytest.approx(0.45)
    assert (sft["status"], sft["n_planned"], sft["delta"], sft["params_pct"]) == ("done", 1, 0.0, 100.0)
    assert math.isnan(sft["std"])


@given(counts=st.lists(st.integers(0, 1000), max_size=5), order=st.randoms())
@settings(max_examples=25, deadline=None)
def test_an_unfinished_cell_has_its_mean_so_far_and_no_difference(counts: list[int], order: Any) -> None:
    manifest, selection = planned()
    records = finished(manifest, {("tiny", "sft", "boolq"): [500], ("tiny", "lora_r8", "boolq"): counts})
    whole = frame.cells(manifest, records, selection)
    cell = row(whole, "lora_r8")
    assert cell["n_finished"] == len(counts)
    assert cell["status"] == ("missing" if not counts else "done" if len(counts) == 5 else "partial")
    assert cell["values"] == tuple(count / 10 for count in counts)
    assert math.isnan(cell["mean"]) == (not counts)
    assert math.isnan(cell["std"]) == (len(counts) < 2)
    assert math.isnan(cell["delta"]) == (len(counts) < 5)
    order.shuffle(records)
    pd.testing.assert_frame_equal(whole, frame.cells(manifest, records, selection))


def test_there_is_no_difference_to_a_reference_that_is_not_finished() -> None:
    manifest, selection = planned(seeds_by_method={})
    counts = {("tiny", "sft", "boolq"): [700] * 4, ("tiny", "lora_r8", "boolq"): [700] * 5}
    assert frame.cells(manifest, finished(manifest, counts), selection)["delta"].isna().all()


def test_a_validation_record_is_refused() -> None:
    manifest, selection = planned()
    records = finished(manifest, {("tiny", "sft", "boolq"): [700]})
    records.append(replace(records[0], split="validation"))
    with pytest.raises(ActshiftError, match=r"0000000000000001 of tiny / sft / boolq .* is of the validation split"):
        frame.cells(manifest, records, selection)


def test_records_that_are_not_planned_are_not_used() -> None:
    manifest, selection = planned()
    records = finished(manifest, {("tiny", "lora_r8", "boolq"): [700, 700]})
    foreign = replace(records[0], identity="f" * 16, metrics={**records[0].metrics, "accuracy": 1.0})
    cell = row(frame.cells(manifest, [*records, foreign], selection), "lora_r8")
    assert cell["values"] == (70.0, 70.0)
    assert cell["identities"] == " ".join(record.identity for record in records)


def test_before_the_final_stage_is_planned_every_cell_is_missing() -> None:
    manifest, selection = planned()
    grid = replace(manifest, stage="grid", runs=tuple(replace(run, split="validation") for run in manifest.runs))
    cells = frame.cells(grid, finished(manifest, {("tiny", "sft", "boolq"): [700]}), selection)
    assert set(cells["status"]) == {"missing"}
    assert row(cells, "lora_r8")["n_planned"] == 5


def test_runs_of_a_cell_must_have_trained_the_same_parameters() -> None:
    manifest, selection = planned()
    first, second = finished(manifest, {("tiny", "lora_r8", "boolq"): [700, 700]})
    other = replace(second, metrics={**second.metrics, "trainable_parameters": 1})
    with pytest.raises(ActshiftError, match=r"different numbers of parameters"):
        frame.cells(manifest, [first, other], selection)


def test_the_choice_of_the_learning_rate_is_in_the_open() -> None:
    manifest, selection = planned()
    cells = frame.cells(manifest, [], selection)
    assert (row(cells, "sft")["lr"], row(cells, "sft")["lr_edge"], row(cells, "sft")["lr_tied"]) == (0.002, "", "")
    assert (row(cells, "lora_r8")["lr"], row(cells, "lora_r8")["lr_edge"]) == (0.004, "highest")
    tied = row(cells, "post_block", "listops")
    assert (tied["lr"], tied["lr_edge"], tied["lr_tied"]) == (0.001, "lowest", "0.001; 0.002")
    assert set(cells["lr_incomplete"]) == {""}
    choices = tuple(replace(choice, incomplete=True) for choice in selection.choices)
    rushed = frame.cells(manifest, [], replace(selection, choices=choices, incomplete=True))
    assert set(rushed["lr_incomplete"]) == {"yes"}


def test_an_excluded_cell_keeps_its_place_and_its_reason() -> None:
    manifest, selection = planned(exclude=[{"reason": "too long", "method": "sft", "dataset": "listops"}])
    cells = frame.cells(manifest, [], selection)
    assert len(cells) == 6
    gone = row(cells, "sft", "listops")
    assert (gone["status"], gone["excluded"], gone["n_planned"], gone["protocol"]) == (
        "excluded",
        "too long",
        0,
        "paper",
    )
    assert cells["excluded"].ne("").sum() == 1


def test_the_papers_figures_stand_beside_the_papers_cells() -> None:
    manifest, selection = planned(**REAL)
    counts = {("llama3.2-1b", "post_block", "boolq"): [860] * 5, ("llama3.2-1b", "lora_r8", "boolq"): [800]}
    cells = frame.cells(manifest, finished(manifest, counts), selection)
    ours, lora = row(cells, "post_block"), row(cells, "lora_r8")
    assert (ours["paper_accuracy"], ours["paper_delta"], round(ours["gap"], 9)) == (86.2, -2.0, -0.2)
    assert lora["paper_accuracy"] == 84.7
    assert math.isnan(lora["gap"])  # one of five runs
    assert cells["paper_avg_delta"].isna().all()  # two of the six data sets


def test_the_papers_average_stands_only_over_the_papers_data_sets() -> None:
    manifest, selection = planned(**REAL, datasets=ALL_SETS)
    averages = frame.averages(frame.cells(manifest, [], selection)).set_index("method")
    assert averages["paper_delta"].to_dict() == {"sft": 0.0, "lora_r8": -2.2, "post_block": -0.2}


@pytest.mark.parametrize(
    "changes",
    [
        {"models": ["tiny"]},
        {"overrides": ["data.source=procedural"]},
        {"overrides": ["data.source=local", "protocol=released"]},
        {"overrides": ["data.source=local", "data.limit.test=100"]},
        {"overrides": ["data.source=local", "training.batch_size=16"]},
        {"table": None},
        {"table": "table2"},
    ],
    ids=str,
)
def test_the_papers_figures_stand_nowhere_else(changes: dict[str, Any]) -> None:
    manifest, selection = planned(**REAL | changes)
    assert frame.cells(manifest, [], selection)["paper_accuracy"].isna().all()


def test_what_is_watched_during_training_does_not_make_another_experiment() -> None:
    manifest, selection = planned(**REAL | {"overrides": ["data.source=local", "training.validation_rows=8"]})
    assert frame.cells(manifest, [], selection)["paper_accuracy"].notna().all()


def test_every_printed_cell_of_table_1_is_found() -> None:
    table = paper.table(1)
    methods = ["sft", "lora_r8", "post_block"]
    manifest, selection = planned(**REAL | {"models": list(table["model"].unique()), "datasets": ALL_SETS})
    cells = frame.cells(manifest, [], selection)
    printed = table[table["method"].isin(methods)].set_index(["model", "method", "dataset"])["accuracy"]
    ours = cells.set_index(["model", "method", "dataset"])["paper_accuracy"]
    assert ours.to_dict() == printed.to_dict()


def test_averages_wait_for_every_data_set() -> None:
    manifest, selection = planned()
    counts = {
        ("tiny", "sft", "boolq"): [700],
        ("tiny", "sft", "listops"): [600],
        ("tiny", "lora_r8", "boolq"): [710] * 5,
        ("tiny", "lora_r8", "listops"): [630] * 5,
        ("tiny", "post_block", "boolq"): [650] * 5,
        ("tiny", "post_block", "listops"): [650] * 4,
    }
    averages = frame.averages(frame.cells(manifest, finished(manifest, counts), selection)).set_index("method")
    assert averages.loc["lora_r8", "delta"] == pytest.approx(2)
    assert averages.loc["lora_r8", "accuracy"] == pytest.approx(67)
    assert averages.loc["sft", "delta"] == 0
    assert math.isnan(averages.loc["post_block", "delta"])
    assert math.isnan(averages.loc["post_block", "accuracy"])
    assert averages.loc["post_block", "n_done"] == 1


def test_reports_are_made_without_the_libraries_that_train() -> None:
    program = (
        "import sys; from actshift.paper import printed; from actshift.report import frame, names, tables; "
        "print(sorted({'torch', 'transformers', 'datasets', 'hydra', 'peft'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_model_that_is_known_by_its_checksum_is_not_the_papers() -> None:
    """Its source and path are in no identity, so a plan does not hold them."""
    sweep = compose(["sweep=real1"]).sweep
    manifest = expand_grid(sweep, CachedComposer())
    assert all("source" not in cell.config["model"] for cell in manifest.cells)
    cells = frame.cells(manifest, [], None)
    assert len(cells) == len(manifest.cells) and cells["paper_accuracy"].isna().all()
