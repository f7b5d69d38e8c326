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
from typing import TYPE_CHECKING

from actshift.estimates.memory import all_weights, changed_config, estimate_peak, layer_weights
from actshift.evaluation.limits import batch_tokens, cached_bytes
from actshift.methods import KINDS
from actshift.schema.config import BYTES, Config, SpeedConfig
from actshift.schema.data import LengthsConfig
from actshift.schema.objective import GrpoConfig
from actshift.tasks import tested_by_ifeval
from actshift.tasks.verifiable.task import packaged_rows

if TYPE_CHECKING:
    from actshift.store.records import Record

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
    rule, limit, dataset = config.data.splits.by_name()[split], config.data.limit.of(split), config.dataset
    if rule is None:
        rows = len(packaged_rows()) if split == "test" and tested_by_ifeval(dataset) else 0
        return min(rows, limit or rows)
    known = dataset.procedural.rows if config.data.source == "procedural" else dataset.hub.rows
    rows = known.get(rule.source, 0)
    held_out = math.ceil(rows * rule.hold_out)
    rows = {"whole": rows, "rest": rows - held_out, "held_out": held_out}[rule.keep]
    return rows if limit is None else min(rows, limit)


def row_lengths(config: Config) -> LengthsConfig:
    """Tokens of the rows that a run reads: generated rows are shorter than a data set's own."""
    tokens = config.dataset.tokens
    generated = tokens.procedural if config.data.source == "procedural" else None
    return tokens if generated is None else generated


def estimate(config: Config, *, split: str, trained: bool = False) -> Cost:
    """The cost of a run up to the record of `split`; of its evaluation alone where the adapter is there (`trained`).

    Training is bound by operations, 2 N a token and pass, and by what goes through memory beside them; passes are
    forward, backward to the activations, and to the weights where they train. What the rows of a micro-batch begin
    with is computed once. Decoding is bound by moving the weights once a token of a batch, and each row's keys and
    values. GRPO does both; its completions are taken to be as long as the answers of the data set.
    """
    scored = rows_of(config, split)
    evaluation = _generation(config, scored, batches=_batches(config, scored))
    return Cost(0.0 if trained else _training(config), evaluation)


def _training(config: Config) -> float:
    """Seconds of all steps."""
    speed, shape, objective = config.hardware.speed, config.model.shape, config.objective
    (steps, rows), kind = _steps(config), KINDS[config.method.kind]
    work, precision = _work(config), config.training.precision
    passes = 3 if kind.trains_base else 2
    layers = passes * 2 * layer_weights(shape) + ATTENTION_PASSES * _attention(config, work.prompt + work.answer)
    if not kind.trains_base:
        # In the last layer only answers are computed, and below the lowest adapter nothing goes back.
        layers *= 1 - 1 / shape.layers
    moved = UPDATE_PASSES * all_weights(shape) * BYTES[precision] / speed.bytes_per_second
    updating = steps * moved if kind.trains_base else 0.0
    # A prompt's tokens are computed once for all of its completions.
    copies, updates = (objective.completions, objective.updates) if isinstance(objective, GrpoConfig) else (1, 1)
    tokens = work.prompt - work.shared(config, rows) + copies * work.answer
    row = tokens * (layers / work.rate + passes * work.aside) + copies * work.answer * passes * work.head / work.rate
    if not isinstance(objective, GrpoConfig):
        return rows * row + _starting(config) + updating
    a_step = rows / max(steps, 1)
    rollouts = _generation(config, rows, copies=copies, batches=steps * _batches(config, a_step * copies))
    return updates * (rows * row + a_step * _starting(config) + updating) + rollouts


def _generation(config: Config, rows: float, *, copies: int = 1, batches: float) -> float:
    """Seconds of reading the prompts of some rows once and continuing each `copies` times."""
    speed, shape, work = config.hardware.speed, config.model.shape, _work(config)
    weights, everything = layer_weights(shape), all_weights(shape)
    size = BYTES[config.training.precision]
    a_token = (2 * weights + _attention(config, work.prompt)) / work.rate + work.aside
    read = (work.prompt - work.shared(config, rows)) * a_token + work.head / work.rate
    moved = everything * size / speed.bytes_per_second + shape.layers * speed.layer_seconds / 3
    cached = (work.prompt + work.answer / 2) * shape.layers * cached_bytes(shape, size)
    written = (2 * weights + work.head) / work.rate + work.aside + cached / speed.bytes_per_second
    return rows * read + batches * work.answer * moved + rows * copies * work.answer * written


def passes_seconds(config: Config, *, tokens: float) -> float:
    """Seconds of one plain pass over some tokens, logits at each of them: bound by operations, or by moving weights."""
    speed, shape, work = config.hardware.speed, config.model.shape, _work(config)
    a_token = (2 * layer_weights(shape) + _attention(config, work.prompt) + work.head) / work.rate + work.aside
    moved = all_weights(shape) * BYTES[config.training.precision] / speed.bytes_per_second
    seconds: float = max(tokens * a_token, moved) + shape.layers * speed.layer_seconds / 3
    return seconds


def _batches(config: Config, rows: float) -> float:
    """Evaluation batches that some rows make."""
    return max(1.0, rows * _work(config).prompt / batch_tokens(config))


@dataclass(frozen=True)
class _Work:
    """What a row is to a device: tokens of its prompt and answer, and what a token costs.

    `rate` is operations a second, `head` the operations of the output head a token, `aside` the seconds a token and
    pass for what goes through memory beside the products, `common` the tokens that all prompts begin with.
    """

    prompt: float
    answer: float
    rate: float
    head: float
    aside: float
    common: float

    def shared(self, config: Config, rows: float) -> float:
        """Tokens of a row that are computed with another row's, on average over a micro-batch."""
        together = min(config.hardware.micro_batch, max(1, rows))
        return min(self.common, self.prompt) * (1 - 1 / together)


def _work(config: Config) -> _Work:
    speed, shape, tokens = config.hardware.speed, config.model.shape, row_lengths(config)
    limit = config.training.max_tokens or math.inf
    return _Work(
        prompt=min(tokens.prompt, limit),
        answer=tokens.answer,
        rate=_operations(speed, config.training.precision) * speed.efficiency,
        head=2 * shape.width * shape.vocabulary,
        aside=_beside_products(config),
        common=tokens.shared,
    )


ATTENTION_PASSES = 3
"""Of a training step, in times of the forward one: the gradients to queries, keys and values are two more."""
UPDATE_PASSES = 7
"""How often AdamW's step moves a number that trains: weight, gradient and two moments read, three of them written."""
LORA_PASSES, LORA_CALLS = 2.8, 2.3
"""In times of `memory_passes` and of `layer_seconds`: what goes through memory, and what a layer costs in a step, where
factors beside all projections add to their outputs."""


def _beside_products(config: Config) -> float:
    """Seconds a token and pass for what a model's layers move through memory beside their products."""
    speed, shape = config.hardware.speed, config.model.shape
    passes = speed.memory_passes
    if KINDS[config.method.kind].changes_projections:
        passes *= LORA_PASSES
    numbers = shape.layers * (shape.width + shape.mlp_width)
    seconds: float = passes * numbers * BYTES[config.training.precision] / speed.bytes_per_second
    return seconds


def _operations(speed: SpeedConfig, precision: str) -> float:
    """Operations a second at best. A profile without `tf32` is of a device that computes such a run in float32."""
    flops = speed.flops
    best: float = flops[precision if precision in flops or precision != "tf32" else "float32"]
    return best


MIN_REPLICA_SPEEDUP = 1.2
"""How many times as fast runs must be at once as one after the other, by the estimate, to be trained so."""


def replica_rows(config: Config, replicas: int) -> int:
    """Rows of a micro-batch that each of some runs takes when they are trained at once; 0 where that does not pay.

    What a step costs apart from its tokens is paid once for all of them, which is most of it on a small model and
    little on a large one. Micro-batches are halved until all fit the device together.
    """
    if not KINDS[config.method.kind].replicated:
        return 0
    alone = estimate(config, split="validation").train_seconds
    together = replicas * alone - (replicas - 1) * _starting(config)
    if replicas * alone < MIN_REPLICA_SPEEDUP * together:
        return 0
    rows: int = config.hardware.micro_batch
    room = config.hardware.speed.memory_bytes
    while rows and estimate_peak(changed_config(config, {"hardware.micro_batch": replicas * rows})).bytes > room:
        rows //= 2
    return rows


def _steps(config: Config) -> tuple[int, int]:
    """Steps of a training, and the rows that they see."""
    rows, size = rows_of(config, "train") * config.training.epochs, config.training.batch_size
    steps, most = math.ceil(rows / size), config.training.max_steps
    return (steps, rows) if not most or most >= steps else (most, most * size)


def _starting(config: Config) -> float:
    """Seconds that a training's steps cost apart from their tokens."""
    seconds: float = _steps(config)[0] * config.model.shape.layers * config.hardware.speed.layer_seconds
    return seconds * (LORA_CALLS if KINDS[config.method.kind].changes_projections else 1)


def _attention(config: Config, tokens: float) -> float:
    """What a token's scores and weighted sums cost, in operations of matrix products.

    The context is causal: its mean length is half the row's.
    """
    shape = config.model.shape
    return float(2 * shape.layers * shape.heads * shape.head_size * tokens / config.hardware.speed.attention_efficiency)


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
        if config is None or hardware != config.hardware.name or record.metrics["diverged"]:
            continue
        expected = estimate(config, split=record.split).seconds
        spent = record.provenance["train_seconds"] + record.provenance["evaluation_seconds"]
        if expected > 0:
            ratios[record.cell.model, hardware].append(spent / expected)
    return Calibration(
        {key: statistics.median(values) for key, values in ratios.items()}, sum(map(len, ratios.values()))
    )
