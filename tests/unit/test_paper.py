"""The paper's numbers are read as they are printed, under names that the rest of the project knows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from actshift.errors import ActshiftError
from actshift.paper import printed as paper

ROWS = {1: 96, 2: 96, 3: 7, 4: 54, 11: 64, 12: 64, 13: 36}


@pytest.mark.parametrize("number", paper.FILES)
def test_every_label_has_a_method_of_ours(number: int) -> None:
    frame = paper.table(number)
    assert frame["method"].notna().all(), frame.loc[frame["method"].isna(), "label"].unique()
    assert len(frame) == ROWS.get(number, len(frame)) > 0


@pytest.mark.parametrize("number", paper.FILES)
def test_a_cell_is_printed_once(number: int) -> None:
    frame = paper.table(number)
    keys = [key for key in ("model", "method", "dataset") if key in frame]
    assert not frame.duplicated(keys).any()


def test_numbers_are_as_printed_slips_included() -> None:
    frame = paper.table(1).set_index(["model", "method", "dataset"])
    ours = frame.loc[("llama3.2-1b", "post_block", "boolq")]
    assert (ours["accuracy"], ours["delta_vs_sft"], ours["avg_delta"], ours["params_pct"]) == (86.2, -2.0, -0.2, 0.04)
    # 33.6 - 36.2 is -2.6; the paper prints -2.9.
    assert frame.loc[("llama3.2-1b", "lora_r8", "aqua"), "delta_vs_sft"] == -2.9


def test_methods_of_tables_are_what_the_paper_means_by_its_labels() -> None:
    assert set(paper.table(1)["method"]) == {"sft", "lora_r8", "reft", "post_block"}
    assert set(paper.table(2)["method"]) == {"lofit", "jola", "post_block_vector", "post_block_r1"}
    joint = {"sft", "lora_r16", "lora_r8", "adapter_r64", "joint", "joint_orth"}
    assert set(paper.table(4)["method"]) == joint
    assert set(paper.table(13)["method"]) <= joint
    assert set(paper.table(11)["method"]) == set(paper.table(1)["method"])
    assert set(paper.table(12)["method"]) == set(paper.table(2)["method"])


def test_a_caller_cannot_change_the_facts() -> None:
    frame = paper.table(1)
    frame.loc[0, "accuracy"] = 0.0
    assert paper.table(1).loc[0, "accuracy"] == 88.2


def test_learning_rates_are_numbers_and_the_odd_grid_stays_in_its_printed_order() -> None:
    grids = paper.learning_rate_grids()
    odd = grids[(grids["scale"] == "4b") & (grids["family"] == "steering_r1_vector")].sort_values("position")
    assert odd["lr"].tolist() == [5e-4, 7e-3, 1e-3, 2e-3, 3e-3]
    assert pd.api.types.is_float_dtype(paper.table(9)["lr"])


def test_a_table_that_is_not_carried_is_refused() -> None:
    with pytest.raises(ActshiftError, match=r"unknown table of the paper '7'.*Allowed: 1, 10"):
        paper.table(7)


@pytest.mark.parametrize(("name", "number"), [("table1", 1), ("2", 2), ("table 13", 13), (None, None), ("smoke", None)])
def test_table_numbers_are_read_from_sweep_tables(name: str | None, number: int | None) -> None:
    assert paper.table_number(name) == number


def test_package_data_equals_the_shared_facts(shared: Path) -> None:
    files = sorted((shared / "paper").glob("*.csv"))
    assert [file.name for file in files] == sorted(file.name for file in paper.FOLDER.glob("*.csv"))
    assert all((paper.FOLDER / file.name).read_bytes() == file.read_bytes() for file in files)
