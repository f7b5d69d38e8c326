"""What the planner expects beside what is measured: seconds of training and of scoring, by model, method and data set.

The planner is given the mean lengths of the very rows and of the answers that were generated, since a model of random
weights, or one after a few steps, does not end its answers where a trained one does. The figure is then of arithmetic
and of the hardware profile alone. On a CPU the clock counts what this process computes (see `bench.latency`), and each
measurement stands between two of the rate of matrix products: a processor that others share is slower than the
profile's, up to twice, so that its seconds are converted to those of the profile's rate.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from actshift.estimates.costs import Cost, estimate
from actshift.models.loading import PRECISIONS
from actshift.models.packing.layout import common_prefix
from actshift.schema.data import TokensConfig
from bench.case import Case
from bench.contestants import Actshift, lap
from bench.measure import digits, mean_matmul_rate
from bench.parts import Options

METHODS = ("post_block", "lora_r8", "sft")
DATASETS = ("winogrande", "boolq", "gsm8k", "listops", "arc_challenge")
"""The constants of the CPU profile were fitted to cases of the first four."""
ROWS = {"tiny": (64, 32), "llama-100m": (8, 4), "smollm2-135m": (8, 4)}
"""Rows that are trained on, and scored."""
SHOWN = ("model", "dataset", "method", "machine_speed", "training", "scoring")
"""The columns that are printed while the bench runs."""


def planner(options: Options, models: Sequence[str]) -> dict[str, Any]:
    """Estimated over measured seconds of every case; rows are whole, so that none is trained without its answer."""
    options = dataclasses.replace(options, overrides=(*options.overrides, "protocol=paper"))
    cases = []
    for model in models:
        for dataset in DATASETS:
            # ListOps has no real rows where the others have: its grammar makes them.
            read = dataclasses.replace(options, data=None) if dataset == "listops" else options
            for method in METHODS:
                rows, scored = ROWS.get(model, (160, 64))
                case = read.case(model, dataset, method, rows=rows, scored=scored)
                cases.append(_case(case, repeats=options.repeats))
                print("  ", {name: cases[-1][name] for name in SHOWN}, flush=True)
    ratios = [case["whole"] for case in cases]
    return {"cases": cases, "lowest": min(ratios), "highest": max(ratios), "median": digits(statistics.median(ratios))}


def _case(case: Case, *, repeats: int) -> dict[str, Any]:
    clock = time.perf_counter if case.device.type == "cuda" else time.process_time
    answer_tokens = _answer_tokens(case, lambda: lap(case, Actshift))  # untimed: libraries begin slowly
    laps, speeds = [], [_speed(case)]
    for _ in range(repeats):
        laps.append(lap(case, Actshift, clock=clock))
        speeds.append(_speed(case))
    at_profile = [statistics.fmean(pair) for pair in pairwise(speeds)]
    training = statistics.median(each.train_seconds * speed for each, speed in zip(laps, at_profile, strict=True))
    scoring = statistics.median(each.evaluation_seconds * speed for each, speed in zip(laps, at_profile, strict=True))
    expected = _expected(case, answer_tokens=answer_tokens)
    return {
        **{name: case.facts()[name] for name in ("model", "method", "dataset", "tokens_a_row", "prompt_tokens_a_row")},
        "answer_tokens": digits(answer_tokens),
        "machine_speed": digits(statistics.fmean(speeds)),
        "measured_seconds": [digits(training), digits(scoring)],
        "estimated_seconds": [digits(expected.train_seconds), digits(expected.evaluation_seconds)],
        "training": digits(expected.train_seconds / training),
        "scoring": digits(expected.evaluation_seconds / scoring),
        "whole": digits(expected.seconds / (training + scoring)),
    }


def _answer_tokens(case: Case, work: Callable[[], object]) -> float:
    """How many tokens some work generates for each scored row, on average.

    They are counted as they are computed: what random weights generate is in part no token of the tokenizer, so that
    the texts do not tell. The first token of a row comes from its prompt's pass.
    """
    counted = len(case.scored)

    def count(module: torch.nn.Module, args: object, options: Mapping[str, Any]) -> None:
        nonlocal counted
        rows, tokens = options["input_ids"].shape
        counted += rows if tokens == 1 else 0

    hook = case.base.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        work()
    finally:
        hook.remove()
    return counted / len(case.scored)


def _speed(case: Case) -> float:
    """The rate of matrix products during a second, of the profile's; 1 on a GPU, which nobody shares."""
    if case.device.type == "cuda":
        return 1.0
    precision = case.config.training.precision
    rate = mean_matmul_rate(device=case.device, dtype=PRECISIONS[precision])
    return rate / (case.config.hardware.speed.flops[precision] * case.config.hardware.speed.efficiency)


def _expected(case: Case, *, answer_tokens: float) -> Cost:
    """The estimate for as many rows, of their mean lengths, and for answers of `answer_tokens`."""
    config = case.config
    prompt, whole = (
        statistics.fmean(length(row) for row in case.rows)
        for length in (lambda row: min(row.prompt_length, len(row.ids)), lambda row: len(row.ids))
    )
    shared = common_prefix([row.ids for row in case.rows], replicas=1)
    rows = {"train": len(case.rows), "validation": len(case.scored)}

    def cost(answer: float) -> Cost:
        tokens = TokensConfig(round(prompt), round(answer), 256, shared)
        sized = replace(
            config,
            dataset=replace(config.dataset, tokens=tokens),
            data=replace(config.data, limit=replace(config.data.limit, **rows)),
            training=replace(config.training, epochs=1, max_steps=None),
        )
        return estimate(sized, split="validation")

    return Cost(cost(whole - prompt).train_seconds, cost(answer_tokens).evaluation_seconds)
