"""The evidence columns: what they are made from, and what they leave empty and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_sweep import finished, planned

from actshift.report import frame, latex, markdown
from actshift.report.evidence import answers
from actshift.report.layout import Bold, layout
from actshift.report.statistics import mcnemar

COUNTS = {
    ("tiny", "sft", "boolq"): [700],
    ("tiny", "sft", "listops"): [850],
    ("tiny", "lora_r8", "boolq"): [500, 510, 520, 505, 515],
    ("tiny", "lora_r8", "listops"): [850, 851, 849, 850, 850],
    ("tiny", "post_block", "boolq"): [700, 690],
}


def small(counts: Any = COUNTS, **changes: Any) -> tuple[pd.DataFrame, Any]:
    manifest, selection = planned(**changes)
    return frame.cells(manifest, finished(manifest, counts), selection), manifest


def row(cells: pd.DataFrame, method: str, dataset: str) -> Any:
    (found,) = cells[cells["method"].eq(method) & cells["dataset"].eq(dataset)].itertuples()
    return found


def test_intervals_and_tests_of_a_finished_cell() -> None:
    lora = row(small()[0], "lora_r8", "boolq")
    low, high = stats.t.interval(0.95, 4, loc=51.0, scale=stats.sem([50, 51, 52, 50.5, 51.5]))
    assert (lora.ci_low, lora.ci_high) == (pytest.approx(low), pytest.approx(high))
    assert lora.prediction_low < lora.ci_low < 51 < lora.ci_high < lora.prediction_high
    assert lora.difference_low < -19 < lora.difference_high < 0 and lora.p < 0.01 and lora.p_holm < 0.05
    assert lora.p_mcnemar < 0.01 and lora.evidence_gap == ""
    # Holm over the four differences that are planned, of which two are finished.
    assert lora.p_holm == pytest.approx(4 * lora.p, rel=1e-4)


def test_a_difference_that_is_none_is_not_bold() -> None:
    cells, manifest = small()
    assert row(cells, "lora_r8", "listops").p_holm > 0.05
    texts = {block[0]: block for _, rows in layout(cells, manifest).blocks for block in rows}
    assert isinstance(texts["LoRA"][2], Bold) and not isinstance(texts["LoRA"][3], Bold)
    assert f"**{texts['LoRA'][2]}**" in markdown.sweep_table(cells, manifest)
    assert latex.sweep_table(cells, manifest).count("textbf") == 1


def test_what_cannot_be_computed_is_empty_and_says_why() -> None:
    cells, _ = small()
    unfinished = row(cells, "post_block", "boolq")
    assert np.isnan(unfinished.p) and unfinished.evidence_gap == "2 of 5 runs finished"
    assert row(cells, "post_block", "listops").evidence_gap == "no finished run"
    assert row(cells, "sft", "boolq").evidence_gap == "one run: no interval" and np.isnan(
        row(cells, "sft", "boolq").ci_low
    )
    without = {key: value for key, value in COUNTS.items() if key[1] != "sft"}
    assert row(small(without)[0], "lora_r8", "boolq").evidence_gap == "sft is not finished"


def test_runs_over_other_rows_are_not_paired() -> None:
    manifest, selection = planned()
    records = finished(manifest, COUNTS)
    other = [
        replace(r, provenance=r.provenance | {"data": {"test": "x"}}) if r.cell.method == "sft" else r for r in records
    ]
    cells = frame.cells(manifest, other, selection)
    assert row(cells, "lora_r8", "boolq").evidence_gap == "the runs were scored on different rows"


def test_the_papers_figure_in_our_prediction_interval() -> None:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"])
    near = {("llama3.2-1b", "post_block", "boolq"): [860, 862, 864, 861, 863]}
    far = {("llama3.2-1b", "post_block", "boolq"): [760, 762, 764, 761, 763]}
    inside = [row(frame.cells(manifest, finished(manifest, c), selection), "post_block", "boolq") for c in (near, far)]
    assert [cell.paper_inside for cell in inside] == ["yes", "no"], "the paper prints 86.2"


def test_answers_come_back_as_they_were_packed() -> None:
    manifest, _ = planned()
    one, *_, other = finished(manifest, COUNTS)
    for record in (one, other):
        bits = answers(record)
        assert bits is not None and len(bits) == record.metrics["rows"] and bits.sum() == record.metrics["correct"]
    assert answers(replace(one, metrics=one.metrics | {"answers": ""})) is None
    first, second = answers(one), answers(other)
    assert first is not None and second is not None and 0 <= mcnemar(first, second) <= 1


def test_a_rounded_figure_of_the_paper_is_inside_where_its_rounding_is() -> None:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"])
    # All five runs at 86.16 would be printed as 86.2.
    same = {("llama3.2-1b", "post_block", "boolq"): [862] * 5}
    records = [replace(r, metrics=r.metrics | {"accuracy": 86.16}) for r in finished(manifest, same)]
    cell = row(frame.cells(manifest, records, selection), "post_block", "boolq")
    assert cell.prediction_low == cell.prediction_high == pytest.approx(86.16) and cell.paper_inside == "yes"


def test_a_column_without_repeated_runs_has_no_test() -> None:
    single = {("tiny", method, "boolq"): [700] for method in ("sft", "lora_r8", "post_block")}
    cells, _ = small(single, seeds=[1])
    assert row(cells, "lora_r8", "boolq").evidence_gap.startswith("no method of this column has two runs")
