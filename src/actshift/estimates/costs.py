"""What a run will cost: seconds and bytes from sizes, rows and lengths alone, corrected by records of finished runs.

The model is of floating-point operations and of bytes moved; its constants are the hardware config's. It counts a
multiplication and an addition as two operations. Memory is `actshift.estimates.memory`'s.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from actshift.estimates.memory import BYTES, all_weights, changed_config, estimate_peak, layer_weights, row_lengths
from actshift.methods import KINDS
from actshift.tasks import tested_by_ifeval
from actshift.tasks.verifiable.task import packaged_rows

if TYPE_CHECKING:
    from actshift.store.records import Record

Config = Mapping[str, Any]

START_SECONDS = {"cpu": 5.0, "cuda": 60.0}
"""What a process needs before its first run: imports, and loading the model from a shared file system."""


@dataclass(frozen=True)
class Cost:
    """Estimated seconds of training and of scoring one split."""

    train_seconds: float
    evaluation_seconds: float

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.evaluation_seconds


def rows_of(config: Config, split: str) -> int:
    """How many rows a split has, by its rule and limit; 0 where there is none or the source does not say in advance."""
    rule, dataset = config["data"]["splits"][split], config["dataset"]
    if rule is None:
        rows = len(packaged_rows()) if split == "test" and tested_by_ifeval(dataset) else 0
        return min(rows, config["data"]["limit"][split] or rows)
    source = "procedural" if config["data"]["source"] == "procedural" else "hub"
    rows = (dataset[source]["rows"] or {}).get(rule["source"], 0)
    held_out = math.ceil(rows * rule["hold_out"])
    rows = {"whole": rows, "rest": rows - held_out, "held_out": held_out}[rule["keep"]]
    limit = config["data"]["limit"][split]
    return rows if limit is None else min(rows, limit)


def estimate(config: Config, *, split: str, trained: bool = False) -> Cost:
    """The cost of a run up to the record of `split`; of its evaluation alone where the adapter is there (`trained`).

    Training is bound by operations: 2 N a token and pass, passes being forward, backward to the activations, and to
    the weights where they train. Decoding is bound by moving the weights once a token of a batch.
    """
    speed, shape, precision = config["hardware"]["speed"], config["model"]["shape"], config["training"]["precision"]
    tokens = row_lengths(config)
    limit = config["training"]["max_tokens"] or math.inf
    prompt, answer = min(tokens["prompt"], limit), tokens["answer"]
    weights, everything = layer_weights(shape), all_weights(shape)
    head = 2 * shape["width"] * shape["vocabulary"]
    rate = _operations(speed, precision) * speed["efficiency"]
    full = KINDS[config["method"]["kind"]].trains_base

    _, rows = _steps(config)
    row = (prompt + answer) * (2 * weights + _attention(shape, prompt + answer)) + answer * head
    training = rows * row * (3 if full else 2) / rate + _starting(config)

    scored = rows_of(config, split)
    batches = max(1.0, scored * prompt / config["hardware"]["evaluation_tokens"])
    prefill = scored * (prompt * (2 * weights + _attention(shape, prompt)) + head) / rate
    moved = everything * BYTES[precision] / speed["bytes_per_second"] + shape["layers"] * speed["layer_seconds"] / 3
    decoding = batches * answer * moved + scored * answer * (2 * weights + head) / rate
    return Cost(0.0 if trained else training, prefill + decoding)


def _operations(speed: Config, precision: str) -> float:
    """Operations a second at best. A profile without `tf32` is of a device that computes such a run in float32."""
    flops = speed["flops"]
    best: float = flops[precision if precision in flops or precision != "tf32" else "float32"]
    return best


MIN_REPLICA_SPEEDUP = 1.2
"""How many times as fast runs must be at once as one after the other, by the estimate, to be trained so."""


def replica_rows(config: Config, replicas: int) -> int:
    """Rows of a micro-batch that each of some runs takes when they are trained at once; 0 where that does not pay.

    What a step costs apart from its tokens is paid once for all of them, which is most of it on a small model and
    little on a large one. Micro-batches are halved until all fit the device together.
    """
    if not KINDS[config["method"]["kind"]].replicated:
        return 0
    alone = estimate(config, split="validation").train_seconds
    together = replicas * alone - (replicas - 1) * _starting(config)
    if replicas * alone < MIN_REPLICA_SPEEDUP * together:
        return 0
    rows: int = config["hardware"]["micro_batch"]
    room = config["hardware"]["speed"]["memory_bytes"]
    while rows and estimate_peak(changed_config(config, {"hardware.micro_batch": replicas * rows})).bytes > room:
        rows //= 2
    return rows


def _steps(config: Config) -> tuple[int, int]:
    """Steps of a training, and the rows that they see."""
    rows, size = rows_of(config, "train") * config["training"]["epochs"], config["training"]["batch_size"]
    steps, most = math.ceil(rows / size), config["training"]["max_steps"]
    return (steps, rows) if not most or most >= steps else (most, most * size)


def _starting(config: Config) -> float:
    """Seconds that a training's steps cost apart from their tokens."""
    seconds: float = (
        _steps(config)[0] * config["model"]["shape"]["layers"] * config["hardware"]["speed"]["layer_seconds"]
    )
    return seconds


def _attention(shape: Config, tokens: float) -> float:
    """Operations a token of scores and weighted sums over a causal context, whose mean length is half the row's."""
    return float(2 * shape["layers"] * shape["heads"] * shape["head_size"] * tokens)


@dataclass(frozen=True)
class Calibration:
    """Measured over estimated seconds by (model, hardware), from the records of finished runs; 1 where none is."""

    factors: Mapping[tuple[str, str], float]
    runs: int = 0

    def apply(self, cost: Cost, *, model: str, hardware: str) -> Cost:
        factor = self.factors.get((model, hardware), 1.0)
        return replace(
            cost, train_seconds=cost.train_seconds * factor, evaluation_seconds=cost.evaluation_seconds * factor
        )


def calibrate(records: Iterable[Record], configs: Mapping[str, Config]) -> Calibration:
    """The median ratio of measured to estimated seconds of each (model, hardware profile).

    `configs` gives a run's whole config by its identity: records keep only what counts, and hardware does not.
    """
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        config = configs.get(record.identity)
        hardware = record.provenance.get("hardware")
        if config is None or hardware != config["hardware"]["name"] or record.metrics["diverged"]:
            continue
        expected = estimate(config, split=record.split).seconds
        spent = record.provenance["train_seconds"] + record.provenance["evaluation_seconds"]
        if expected > 0:
            ratios[record.cell.model, hardware].append(spent / expected)
    return Calibration(
        {key: statistics.median(values) for key, values in ratios.items()}, sum(map(len, ratios.values()))
    )
