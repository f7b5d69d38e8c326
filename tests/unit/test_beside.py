"""Sweeps side by side: means, paired differences to the first, and what cannot be compared."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from synthetic_sweep import finished, planned

from actshift.errors import ActshiftError
from actshift.planning.manifests import Manifest
from actshift.report.beside import beside, markdown
from actshift.store.records import Record

KEY = ("tiny", "lora_r8", "boolq")
LISTOPS = ("tiny", "lora_r8", "listops")
OBJECTIVE = {
    "name": "grpo", "kind": "grpo", "completions": 8, "shuffle_rewards": False,
    "rewards": {"accuracy": 2.0, "format": 1.0, "think": 0.0, "length": 0.0},
}  # fmt: skip


def other(manifest: Manifest, counts: dict[tuple[str, ...], list[int]]) -> tuple[Manifest, list[Record]]:
    """The same cells as another sweep, whose runs are others and were trained on rewards."""
    runs = tuple(replace(run, identity=f"{int(run.identity, 16) + 1000:016x}") for run in manifest.runs)
    second = replace(manifest, sweep="second", title="Second", runs=runs)
    kept = {"outcome": "collapsed"}
    records = [
        replace(each, config=each.config | {"objective": OBJECTIVE}, metrics=each.metrics | {"reinforcement": kept})
        for each in finished(second, counts)
    ]
    return second, records


def test_means_and_differences_to_the_first_sweep() -> None:
    first, _ = planned()
    second, rewarded = other(first, {KEY: [700, 720, 710], LISTOPS: [300]})
    records = [*finished(first, {KEY: [500, 510, 520], LISTOPS: [300, 310]}), *rewarded]
    frame = beside([first, second], records)
    row = frame[(frame["method"] == "lora_r8") & (frame["dataset"] == "boolq") & (frame["model"] == "tiny")].iloc[0]
    name = first.sweep
    assert (row[f"{name}.mean"], row["second.mean"]) == (pytest.approx(51), pytest.approx(71))
    assert row["second.difference"] == pytest.approx(20)
    assert row["second.low"] < 20 < row["second.high"] and row["second.low"] > 10
    assert math.isnan(row[f"{name}.difference"])
    short = frame[(frame["method"] == "lora_r8") & (frame["dataset"] == "listops") & (frame["model"] == "tiny")].iloc[0]
    assert short["second.runs"] == 1 and math.isnan(short["second.difference"]), "one run has no interval"
    text = markdown(frame, [first, second])
    assert "51.0 ±1.0 (3)" in text and "71.0 ±1.0 (3)" in text and "+20.0 [" in text
    assert "second: Objective: grpo (8 completions a prompt, reward 2 x accuracy + 1 x format)." in text
    assert "second: 4 of 4 policies collapsed" in text
    assert f"{name}: Objective" not in text


def test_sweeps_without_a_common_cell_are_refused() -> None:
    first, _ = planned()
    second = replace(first, cells=(), runs=(), sweep="second")
    with pytest.raises(ActshiftError, match=r"second have no model, method and data set in common"):
        beside([first, second], [])


def test_sweeps_over_other_test_rows_are_refused() -> None:
    first, _ = planned()
    second, rewarded = other(first, {KEY: [700, 720]})
    changed = [replace(each, provenance=each.provenance | {"data": {"test": "another"}}) for each in rewarded]
    with pytest.raises(ActshiftError, match="different test rows"):
        beside([first, second], [*finished(first, {KEY: [500, 510]}), *changed])
