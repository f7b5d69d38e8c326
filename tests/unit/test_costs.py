"""Estimates: they grow as work grows, they know what trains, and finished records correct them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from actshift.commands.terminal import plan_table
from actshift.config.composition import compose
from actshift.estimates.costs import Cost, calibrate, estimate, rows_of
from actshift.estimates.memory import estimate_peak, layer_weights
from actshift.estimates.sweep import Estimates
from actshift.models.loading import meta_model
from actshift.planning.expand import expand_grid
from actshift.schema.data import TokensConfig
from actshift.store.records import Cell, Record
from actshift.store.store import Store


def config(*overrides: str) -> dict[str, Any]:
    return compose(["model=llama3.2-1b", "dataset=boolq", "hardware=a100-40gb", "data.source=hub", *overrides])


@pytest.mark.parametrize("model", ["llama3.2-1b", "gemma3-1b", "qwen3-4b"])
def test_the_weights_of_the_layers_are_those_of_the_model(model: str) -> None:
    shape = compose([f"model={model}"]).model
    matrices = sum(
        parameter.numel()
        for name, parameter in meta_model(shape).named_parameters()
        if parameter.dim() == 2 and "embed" not in name and "lm_head" not in name
    )
    assert layer_weights(shape.shape) == matrices


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


def test_seconds_are_those_computed_by_hand() -> None:
    """A decoder of 3 layers of width 64 with 4 heads of 16, 2 key/value heads, MLPs of 128 and 1,101 tokens.

    Matrices: 3 (2 x 64 x 6 x 16 + 3 x 64 x 128) = 110,592 numbers, with the embeddings 181,056. The head takes
    2 x 64 x 1,101 = 140,928 operations a token, attention 2 x 3 x 4 x 16 = 384 a token and token of its context.
    A device of 1e9 operations a second reaches half of them, and an eighth where it computes attention. Keys and values
    of a token are 2 x 3 x 2 x 16 = 192 numbers.
    """
    speed = "flops:{float32:1e9,bfloat16:1e9},efficiency:0.5,bytes_per_second:1e8,layer_seconds:0.01"
    speed += ",memory_passes:2,attention_efficiency:0.25"
    request = ["model=random-llama", "dataset=boolq", "data.source=hub", "hardware=cpu", "training.precision=float32"]
    request += [
        "training.batch_size=10",
        "training.epochs=1",
        "training.max_tokens=null",
        f"hardware.speed={{{speed}}}",
    ]
    request += ["data.limit.train=100", "data.limit.validation=10", "hardware.evaluation_tokens=16384"]
    # Twice 3 (64 + 128) numbers of 4 bytes a token and pass go through memory beside the products.
    aside = 2 * 3 * (64 + 128) * 4 / 1e8
    # 171 tokens a row, 6 of them answers; of 18 that all rows begin with, one of 8 rows computes its own.
    tokens, products, attention, head = 171 - 18 * 7 / 8, 2 * 110_592, 384 * 171 / 0.25, 6 * 140_928 / 5e8
    assert (tokens, products, attention) == (155.25, 221_184, 262_656)
    # Attention costs three forward passes in a step. Steering leaves a third of the layers out; SFT moves each of its
    # numbers seven times at each of its 10 steps.
    steering = 100 * (tokens * ((2 * products + 3 * attention) * 2 / 3 / 5e8 + 2 * aside) + 2 * head) + 10 * 3 * 0.01
    sft = 100 * (tokens * (3 * (products + attention) / 5e8 + 3 * aside) + 3 * head) + 10 * 3 * 0.01
    sft += 10 * 7 * 181_056 * 4 / 1e8
    for method, expected in (("post_block", steering), ("sft", sft)):
        cost = estimate(compose([*request, f"method={method}"]), split="validation")
        assert cost.train_seconds == pytest.approx(expected)
        # 10 prompts of 165 tokens are read; then 6 times the weights move (4 bytes each) and a third of a layer's time,
        # and for each row what its 165 to 171 tokens have cached.
        read = 10 * ((165 - 18 * 7 / 8) * ((products + 384 * 165 / 0.25) / 5e8 + aside) + 140_928 / 5e8)
        written = 6 * (181_056 * 4 / 1e8 + 3 * 0.01 / 3)
        written += 10 * 6 * ((products + 140_928) / 5e8 + aside + (165 + 3) * 192 * 4 / 1e8)
        assert cost.evaluation_seconds == pytest.approx(read + written)


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


def test_grpo_costs_what_it_generates_and_trains() -> None:
    base = ("dataset=gsm8k", "objective=grpo")
    cost = estimate(config(*base), split="validation").train_seconds
    assert cost > estimate(config("dataset=gsm8k"), split="validation").train_seconds
    for more in ("objective.completions=16", "objective.updates=2", "model=qwen3-4b"):
        assert estimate(config(*base, more), split="validation").train_seconds > cost
    assert estimate(config(*base, "training.max_steps=10"), split="validation").train_seconds < cost / 50
    assert estimate(config(*base, "objective.completions=2"), split="validation").train_seconds < cost


def test_tf32_is_priced_by_the_data_sheet_and_kept_as_float32() -> None:
    cases = {name: config(f"training.precision={name}") for name in ("float32", "tf32", "bfloat16")}
    seconds = {name: estimate(case, split="validation") for name, case in cases.items()}
    steps = 943 * 16 * 1e-3  # ceil(7541 / 8) steps, a millisecond a layer, whatever the precision
    work = {name: cost.train_seconds - steps for name, cost in seconds.items()}
    assert work["float32"] / work["tf32"] == pytest.approx(156 / 19.5)
    assert work["tf32"] / work["bfloat16"] == pytest.approx(312 / 156)
    assert estimate_peak(cases["tf32"]) == estimate_peak(cases["float32"])


def test_a_device_without_tf32_computes_such_a_run_as_float32() -> None:
    whole = config("training.precision=tf32")
    speed = whole.hardware.speed
    without = {name: rate for name, rate in speed.flops.items() if name != "tf32"}
    plain = replace(whole, hardware=replace(whole.hardware, speed=replace(speed, flops=without)))
    assert estimate(plain, split="test") == estimate(config(), split="test")


def test_a_plan_prices_every_precision(tmp_path: Path) -> None:
    axes = {"models": ["llama3.2-1b"], "methods": ["sft", "lora_r8"], "variants": {}}
    sweep = replace(compose(["sweep=table1"]).sweep, **axes)
    grid = expand_grid(sweep, compose)
    estimates = Estimates(Store(tmp_path), grid, compose=compose, hardware={})
    sft, lora = estimates.rows()
    assert sft.precision == lora.precision == "float32"
    assert sft.hours["float32"] > sft.hours["tf32"] > sft.hours["bfloat16"] > 0
    (planned,) = [each for each in grid.cells if each.cell.method == "lora_r8" and each.cell.dataset == "boolq"]
    once = estimates.cost(planned, split="validation", precision="tf32")
    assert once == estimate(config("training.precision=tf32", "method=lora_r8"), split="validation")
    console = Console(width=200, file=io.StringIO())
    console.print(plan_table(estimates))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{sft.hours['float32'] + lora.hours['float32']:,.1f}*" in text
    assert f"{sft.hours['tf32'] + lora.hours['tf32']:,.1f} " in text


def test_what_rows_have_in_common_is_computed_once_a_micro_batch() -> None:
    def seconds(shared: int, *overrides: str) -> float:
        whole = config("hardware.speed.layer_seconds=0", *overrides)
        lengths = TokensConfig(100, 0, 100, shared)
        return estimate(replace(whole, dataset=replace(whole.dataset, tokens=lengths)), split="test").train_seconds

    assert seconds(50) / seconds(0) == pytest.approx((8 * 50 + 50) / 800)  # 8 rows of 50 tokens, and 50 once
    assert seconds(50, "hardware.micro_batch=1") == pytest.approx(seconds(0))
    shape = config().model.shape
    frozen_last = 1 - 1 / shape.layers
    assert seconds(0) / seconds(0, "method=sft") == pytest.approx(2 / 3 * frozen_last, rel=0.05)


def test_generated_rows_have_lengths_of_their_own() -> None:
    own, made = (config(f"data.source={source}", "data.limit.train=80") for source in ("hub", "procedural"))
    assert estimate(own, split="test").train_seconds > 2 * estimate(made, split="test").train_seconds
    assert estimate_peak(own) == estimate_peak(made), "memory is that of the longest rows there are"


@pytest.mark.parametrize(
    ("overrides", "lengths", "measured"),
    [
        (("model=tiny", "dataset=winogrande"), (85.1, 9.0, 17, 64, 32), (0.488, 0.107)),
        (("model=tiny", "dataset=winogrande", "method=lora_r8"), (85.1, 9.0, 17, 64, 32), (0.783, 0.197)),
        (("model=smollm2-135m", "dataset=winogrande"), (50.75, 6.0, 16, 8, 4), (1.949, 1.613)),
        (("model=smollm2-135m", "dataset=winogrande", "method=sft"), (50.75, 6.0, 16, 8, 4), (3.644, 1.466)),
    ],
)
def test_a_cpu_needs_what_was_measured_within_a_quarter(
    overrides: tuple[str, ...], lengths: tuple[float, ...], measured: tuple[float, float]
) -> None:
    """Seconds of one thread of the profile's processor for rows of these lengths (results/bench/planner.json)."""
    prompt, answer, shared, rows, scored = lengths
    limits = (f"data.limit.train={rows}", f"data.limit.validation={scored}")
    whole = compose(["hardware=cpu", "protocol=paper", "data.source=hub", *limits, *overrides])
    tokens = TokensConfig(prompt, answer, 256, shared)
    expected = estimate(replace(whole, dataset=replace(whole.dataset, tokens=tokens)), split="validation")
    assert expected.seconds == pytest.approx(sum(measured), rel=0.25)
