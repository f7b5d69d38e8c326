"""What the planner expects beside what is measured: seconds of training and of scoring, by model, method and data set.

The planner is given the mean lengths of the very rows, so that the figure is of its arithmetic and its hardware profile
alone. On a CPU the clock counts what this process computes (see `bench.latency`).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from actshift.estimates.costs import Cost, estimate
from actshift.models.packing.layout import common_prefix
from actshift.schema.data import TokensConfig
from bench.case import Case
from bench.contestants import Actshift
from bench.measure import digits, synchronize
from bench.parts import Options

METHODS = ("post_block", "lora_r8", "sft")
DATASETS = ("winogrande", "boolq")
ROWS = {"tiny": (64, 32), "llama-100m": (8, 4), "smollm2-135m": (8, 4)}
"""Rows that are trained on, and scored."""
SHOWN = ("model", "dataset", "method", "measured_seconds", "estimated_seconds", "whole")


def planner(options: Options, models: Sequence[str]) -> dict[str, Any]:
    """Estimated over measured seconds of every case; rows are whole, so that none is trained without its answer."""
    options = dataclasses.replace(options, overrides=(*options.overrides, "protocol=paper"))
    cases = []
    for model in models:
        for dataset in DATASETS:
            for method in METHODS:
                rows, scored = ROWS.get(model, (160, 64))
                cases.append(
                    _case(options.case(model, dataset, method, rows=rows, scored=scored), repeats=options.repeats)
                )
                print(
                    "  ",
                    {name: cases[-1][name] for name in ("model", "dataset", "method", "training", "scoring")},
                    flush=True,
                )
    ratios = [case["whole"] for case in cases]
    return {"cases": cases, "lowest": min(ratios), "highest": max(ratios), "median": digits(statistics.median(ratios))}


def _case(case: Case, *, repeats: int) -> dict[str, Any]:
    laps = [_measured(case) for _ in range(repeats + 1)][1:]  # libraries begin slowly
    training, scoring = (statistics.median(lap[part] for lap in laps) for part in (0, 1))
    expected = _expected(case)
    return {
        **{name: case.facts()[name] for name in ("model", "method", "dataset", "tokens_a_row", "prompt_tokens_a_row")},
        "measured_seconds": [digits(training), digits(scoring)],
        "estimated_seconds": [digits(expected.train_seconds), digits(expected.evaluation_seconds)],
        "training": digits(expected.train_seconds / training),
        "scoring": digits(expected.evaluation_seconds / scoring),
        "whole": digits(expected.seconds / (training + scoring)),
    }


def _measured(case: Case) -> tuple[float, float]:
    clock = time.perf_counter if case.device.type == "cuda" else time.process_time
    contestant, times = Actshift(case), [0.0]
    try:
        for work in (contestant.train, contestant.evaluate):
            started = clock()
            work()
            synchronize(case.device)
            times.append(clock() - started)
    finally:
        contestant.close()
    return times[1], times[2]


def _expected(case: Case) -> Cost:
    """The estimate for as many rows, of their mean lengths."""
    config = case.config
    prompt, whole = (
        statistics.fmean(length(row) for row in case.rows)
        for length in (lambda row: min(row.prompt_length, len(row.ids)), lambda row: len(row.ids))
    )
    shared = common_prefix([row.ids for row in case.rows], replicas=1)
    lengths = TokensConfig(round(prompt), round(whole - prompt), 256, shared)
    rows = {"train": len(case.rows), "validation": len(case.scored)}
    sized = replace(
        config,
        dataset=replace(config.dataset, tokens=lengths),
        data=replace(config.data, limit=replace(config.data.limit, **rows)),
        training=replace(config.training, epochs=1, max_steps=None),
    )
    train = estimate(sized, split="validation").train_seconds
    if config.model.source == "random":  # its answers go on to the limit
        lengths.answer = config.evaluation.max_new_tokens
    return Cost(train, estimate(sized, split="validation").evaluation_seconds)
