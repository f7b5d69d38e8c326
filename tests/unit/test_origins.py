"""Runs of changed code, of parts of a data set or of other rows: named where they are averaged, or refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from synthetic_sweep import finished, planned

from actshift.errors import ActshiftError
from actshift.report.frame import cells
from actshift.report.layout import layout
from actshift.report.origins import DOUBTS, origin_facts, without
from actshift.store.records import Record

COUNTS = {
    ("tiny", "sft", "boolq"): [700],
    ("tiny", "lora_r8", "boolq"): [700, 710, 720, 730, 740],
}


def with_provenance(record: Record, **facts: Any) -> Record:
    return replace(record, provenance={**record.provenance, **facts})


def made() -> tuple[Any, Any, list[Record]]:
    manifest, selection = planned()
    clean = {"commit": "c" * 40, "dirty": False, "partial": [], "device": "cpu", "precision": "float32"}
    return manifest, selection, [with_provenance(record, **clean) for record in finished(manifest, COUNTS)]


def test_clean_runs_on_one_machine_need_no_word() -> None:
    manifest, selection, records = made()
    assert origin_facts(records) == []
    assert cells(manifest, records, selection).attrs["origins"] == []


@pytest.mark.parametrize(
    ("doubt", "facts"),
    [("dirty", {"dirty": True}), ("uncommitted", {"commit": None}), ("partial", {"partial": ["test"]})],
)
def test_a_doubt_is_counted_in_the_table_and_can_be_left_out(doubt: str, facts: dict[str, Any]) -> None:
    manifest, selection, records = made()
    records[1:3] = [with_provenance(record, **facts) for record in records[1:3]]
    frame = cells(manifest, records, selection)
    (sentence,) = frame.attrs["origins"]
    assert sentence.startswith(f"2 of {len(records)} runs are ")
    assert f"--without {doubt}" in sentence
    assert sentence in layout(frame, manifest).facts
    kept = without(records, [doubt])
    assert len(kept) == len(records) - 2
    assert cells(manifest, kept, selection).attrs["origins"] == []


def test_every_doubt_is_tried_and_an_unknown_one_is_refused() -> None:
    assert set(DOUBTS) == {"dirty", "uncommitted", "partial"}
    with pytest.raises(ActshiftError, match="unknown doubt 'dirt'"):
        without([], ["dirt"])


def test_other_machines_and_precisions_are_named() -> None:
    _, _, records = made()
    records[1] = with_provenance(records[1], device="cuda", precision="bfloat16")
    facts = origin_facts(records)
    assert f"Runs on different devices: cpu ({len(records) - 1}), cuda (1)." in facts
    assert any("different precisions: tiny / lora_r8 / boolq" in fact for fact in facts)


@pytest.mark.parametrize("split", ["test", "train"])
def test_runs_of_other_rows_are_never_averaged(split: str) -> None:
    """A plan with one more seed after the data were edited would otherwise average two test sets."""
    manifest, selection, records = made()
    rows = {"train": "a" * 16, "test": "b" * 16}
    records = [with_provenance(record, data=rows) for record in records]
    assert not cells(manifest, records, selection).empty
    records[-1] = with_provenance(records[-1], data={**rows, split: "f" * 16})
    with pytest.raises(ActshiftError, match=f"different {split} rows of boolq") as refused:
        cells(manifest, records, selection)
    assert "f" * 16 in str(refused.value)
    assert records[-1].identity in str(refused.value)


def test_a_cell_with_a_diverged_run_says_so_and_is_no_difference() -> None:
    """Its run answers nothing, so that it scores 0: the mean with it is no measure of the method."""
    manifest, selection, records = made()
    last = records[-1]
    records[-1] = replace(last, metrics={**last.metrics, "accuracy": 0.0, "correct": 0, "diverged": True})
    frame = cells(manifest, records, selection).set_index(["method", "dataset"])
    row = frame.loc[(last.cell.method, last.cell.dataset)]
    assert (row["status"], row["n_diverged"], row["n_finished"]) == ("diverged", 1, 5)
    assert math.isnan(row["delta"])
    assert math.isnan(row["p"])
    texts = layout(cells(manifest, records, selection), manifest)
    shown = [text for _, block in texts.blocks for line in block for text in line]
    assert any("(1 of 5 runs diverged)" in text for text in shown)


def test_methods_are_never_compared_on_other_test_rows() -> None:
    manifest, selection, records = made()
    records = [with_provenance(record, data={"test": "b" * 16}) for record in records]
    records[0] = with_provenance(records[0], data={"test": "e" * 16})
    assert records[0].cell.method != records[1].cell.method
    with pytest.raises(ActshiftError, match="different test rows"):
        cells(manifest, records, selection)
