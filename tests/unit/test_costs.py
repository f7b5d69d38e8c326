"""Estimates: they grow as work grows, they know what trains, and finished records correct them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actshift.config.composition import compose
from actshift.estimates.costs import Cost, calibrate, estimate, rows_of
from actshift.estimates.memory import estimate_peak, layer_weights
from actshift.models.loading import meta_model
from actshift.store.records import Cell, Record


def config(*overrides: str) -> dict[str, Any]:
    return compose(["model=llama3.2-1b", "dataset=boolq", "hardware=a100-40gb", "data.source=hub", *overrides])


@pytest.mark.parametrize("model", ["llama3.2-1b", "gemma3-1b", "qwen3-4b"])
def test_the_weights_of_the_layers_are_those_of_the_model(model: str) -> None:
    shape = compose([f"model={model}"])["model"]
    matrices = sum(
        parameter.numel()
        for name, parameter in meta_model(shape).named_parameters()
        if parameter.dim() == 2 and "embed" not in name and "lm_head" not in name
    )
    assert layer_weights(shape["shape"]) == matrices


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_rows_are_those_of_the_split_rules(protocol: str) -> None:
    rows = {split: rows_of(config(f"protocol={protocol}"), split) for split in ("train", "validation", "test")}
    expected = {"paper": (7541, 1886, 3270), "released": (9427, 2616, 654)}
    assert tuple(rows.values()) == expected[protocol]
    assert rows_of(config("data.limit.train=10"), "train") == 10


def test_more_work_costs_more() -> None:
    base = estimate(config(), split="validation")
    for more in (["method=sft"], ["training.epochs=3"], ["training.max_steps=null", "model=qwen3-4b"]):
        assert estimate(config(*more), split="validation").train_seconds > base.train_seconds
    assert estimate_peak(config("method=sft")).bytes > estimate_peak(config()).bytes
    assert estimate(config("training.precision=bfloat16"), split="test").train_seconds < base.train_seconds
    assert estimate_peak(config("hardware.micro_batch=4")).bytes < estimate_peak(config()).bytes
    assert estimate(config(), split="test", trained=True).train_seconds == 0
    assert estimate(config("training.max_steps=10"), split="test").train_seconds < base.train_seconds / 50


def test_finished_records_correct_the_estimate() -> None:
    whole = config()
    expected = estimate(whole, split="validation")
    provenance = {"hardware": "a100-40gb", "train_seconds": 2 * expected.train_seconds}
    provenance["evaluation_seconds"] = 2 * expected.evaluation_seconds
    metrics = {"accuracy": 0.0, "rows": 1, "correct": 0, "diverged": False}
    cell = Cell("llama3.2-1b", "post_block", "boolq", "paper")
    record = Record("0" * 16, "validation", cell, 1.0, 42, {}, metrics, provenance)
    calibration = calibrate([record], {record.identity: whole})
    assert calibration.runs == 1
    cost = Cost(10.0, 1.0)
    corrected = calibration.apply(cost, model="llama3.2-1b", hardware="a100-40gb")
    assert (corrected.train_seconds, corrected.evaluation_seconds) == pytest.approx((20.0, 2.0))
    assert calibration.apply(cost, model="llama3.2-1b", hardware="cpu") == cost, "another machine says nothing"
    assert not calibrate([replace(record, provenance=provenance | {"hardware": "cpu"})], {record.identity: whole}).runs
