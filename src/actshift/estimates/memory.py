"""How much memory a run needs at its peak, from sizes alone, and by which options it would fit a smaller card.

Bytes are of tensors: a device's context and what its allocator cannot use come on top, a gigabyte or two, which is
about what a card of 24 (40, 80) GB has beyond 24e9 bytes. Held against measurement by the bench `memory`.

Sizes of a decoder: D width, M of the MLP, Q all query heads together, G all key/value heads together, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actshift.evaluation.limits import PROMPT_TOKENS, SPARE_TOKENS, batch_tokens, cached_bytes
from actshift.methods import KINDS
from actshift.methods.registry import Kind
from actshift.models.architectures import ARCHITECTURES
from actshift.schema.config import BYTES, Config, ModelConfig, ShapeConfig
from actshift.schema.method import MethodConfig

STATES = {
    "adamw": lambda size: 2 * size,
    "adamw_8bit": lambda size: 2 * (1 + 4 / 256),
    "adamw_bf16_stochastic": lambda size: 2 * size,
}
"""Bytes that an optimizer keeps for one number that trains, of so many bytes: its two moments."""
EAGER_STEP = 53
"""Bytes a number of the largest weight that torchao's step holds where it is not compiled, on a CPU: measured."""


@dataclass(frozen=True)
class Peak:
    """Bytes by what they are for. `step`: a micro-batch's activations, or the optimizer's own while it steps."""

    weights: float
    trained: float
    """What a method adds to the weights."""
    gradients: float
    states: float
    step: float
    batch: float
    """An evaluation batch: keys and values of all its tokens, and what reading its prompts holds."""

    @property
    def training(self) -> float:
        return self.weights + self.trained + self.gradients + self.states + self.step

    @property
    def evaluation(self) -> float:
        return self.weights + self.trained + self.batch

    @property
    def bytes(self) -> float:
        return max(self.training, self.evaluation)


def layer_weights(shape: ShapeConfig) -> int:
    """Numbers in the matrices of all decoder layers: attention's four and the MLP's three (2DQ + 2DG + 3DM each)."""
    attention = 2 * shape.width * (shape.heads + shape.kv_heads) * shape.head_size
    weights: int = shape.layers * (attention + 3 * shape.width * shape.mlp_width)
    return weights


def all_weights(shape: ShapeConfig) -> int:
    """The numbers of the layers' matrices and of the embeddings; norms are left out."""
    numbers: int = layer_weights(shape) + shape.width * shape.vocabulary * (1 if shape.tied else 2)
    return numbers


def estimate_peak(config: Config) -> Peak:
    """The peak of a run by a resolved config, its longest rows in one micro-batch and in one evaluation batch."""
    shape, training = config.model.shape, config.training
    size, full = BYTES[training.precision], _kind(config).trains_base
    weights = all_weights(shape)
    trained, number_bytes = (weights, size) if full else (_adapter(config.method, config.model), 4)
    step = _activations(config)
    if full:
        # A gradient of the embeddings is whole before it is added to the micro-batch's before. Where they are the head
        # too, the head's waits for theirs, and the two for their sum.
        table = shape.width * shape.vocabulary
        step = max(step + table * size, (3 if shape.tied else 1) * table * size)
        if training.optimizer != "adamw" and config.hardware.device == "cpu":
            step = max(step, EAGER_STEP * table)
    return Peak(
        weights=weights * size,
        trained=0 if full else trained * 4,
        gradients=trained * number_bytes,
        states=trained * STATES[training.optimizer](number_bytes),
        step=step,
        batch=_batch(config),
    )


def _adapter(method: MethodConfig, model: ModelConfig) -> float:
    """How many numbers a method trains beside the weights; 0 where it cannot be told without attaching it."""
    numbers = KINDS[method.kind].numbers
    return 0.0 if numbers is None else float(numbers(method, model))


def _kind(config: Config) -> Kind:
    return KINDS[config.method.kind]


def _activations(config: Config) -> float:
    """What a micro-batch of longest rows keeps for the backward pass, and what that holds at a time."""
    shape, hardware = config.model.shape, config.hardware
    size, layers = BYTES[config.training.precision], shape.layers
    row = min(config.dataset.tokens.longest, config.training.max_tokens or math.inf)
    inside, site_values = kept_inside(config, row), _site_values(config)
    passing = size * (3 * shape.mlp_width + 2 * shape.width)  # gradients of one layer's inside
    # Of an answer token: logits as they come and in float32, their softmax, and the gradients of these, all of which
    # are gone when the backward pass comes to the layers.
    answer = config.dataset.tokens.answer * shape.vocabulary * (2 * size + 2 * 4)
    if hardware.gradient_checkpointing:  # every layer's input, and one layer's inside
        inputs = layers * (shape.width * size + site_values)
        most = max(row * inputs + answer, row * (inputs + inside + passing))
    else:
        # Below the first steering part nothing trains, and nothing is kept.
        deep = layers - 1 if _kind(config).frozen_below else layers
        # Nor in the last layer, but keys and values, of tokens behind which no answer token is predicted.
        unread = max(0, row - config.dataset.tokens.answer - 1) * _tokenwise(config)
        most = row * (deep * inside + layers * site_values) - unread + max(row * passing, answer)
    return float(hardware.micro_batch * most)


def _tokenwise(config: Config) -> float:
    """Bytes of `kept_inside` that the MLP, the queries and attention's output have in it.

    Less those of keys and values that are copied for every query head, as they are where attention has a mask.
    """
    shape, kind = config.model.shape, _kind(config)
    size, mlp = BYTES[config.training.precision], shape.mlp_width
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    kept = size * (2 * queries + 3 * mlp - 2 * (queries - keys))
    if kind.trains_base:
        kept += size * (queries + mlp)
    if kind.changes_projections:
        kept += 4 * (queries + mlp)
    return float(kept)


def kept_inside(config: Config, row: float) -> float:
    """Bytes that one decoder layer keeps of one token of a row of so many tokens for the backward pass."""
    model, kind = config.model, _kind(config)
    architecture = ARCHITECTURES[str(model.architecture)]
    shape, size = model.shape, BYTES[config.training.precision]
    width, mlp = shape.width, shape.mlp_width
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    norms = architecture.norms * width + (queries + keys if architecture.norms_queries else 0)
    # Norms compute in float32, whatever the precision.
    kept: float = 4 * norms + size * (2 * queries + 2 * keys + 3 * mlp)
    if model.attention == "eager":
        kept += shape.heads * row * (4 + size)
    if kind.trains_base:  # the inputs of what trains: norms' scales, projections
        scales = 4 if architecture.norm_scales_float32 else size
        kept += scales * norms + size * (2 * width + queries + mlp)
    if kind.changes_projections:  # the inputs of LoRA's first factors, in float32: as copies where they are not
        inputs = 2 * width + queries + mlp if size == 4 else 5 * width + queries + mlp
        kept += 4 * inputs
    return float(kept)


def _site_values(config: Config) -> float:
    """Bytes a token that a steering part keeps of its site: the float32 values, outside of what is recomputed."""
    return 4.0 * config.model.shape.width if _kind(config).changes_sites else 0.0


def _batch(config: Config) -> float:
    """Keys and values of an evaluation batch: beside one layer's inside of the prompts that are read at once, or put
    together a layer at a time with room for what is written."""
    shape, size = config.model.shape, BYTES[config.training.precision]
    tokens, prompt = batch_tokens(config), config.dataset.tokens.prompt
    layer = tokens * cached_bytes(shape, size)
    read = min(tokens, PROMPT_TOKENS["cpu" if config.hardware.device == "cpu" else "cuda"])
    inside = read * size * (3 * shape.mlp_width + 4 * shape.width)
    return float(max(shape.layers * layer + inside, (shape.layers * (1 + SPARE_TOKENS / prompt) + 1) * layer))


CARDS = (24e9, 40e9, 80e9)
"""Bytes that tensors may take on cards of 24, 40 and 80 GB."""
SMALLEST_BATCH = 8192
"""Tokens below which an evaluation batch is not made smaller: its weights are then moved for few rows."""


@dataclass(frozen=True)
class Fit:
    """The changes of a config, by dotted key, with which its peak stays below some bytes, or comes nearest to it."""

    changes: Mapping[str, Any]
    peak: Peak
    fits: bool

    @property
    def overrides(self) -> list[str]:
        """The changes as they are given to a command."""
        shown = {key: str(value).lower() if value is True else value for key, value in self.changes.items()}
        return [f"{key}={value}" for key, value in shown.items()]


def fit(config: Config, room: float) -> Fit:
    """What makes a run fit: nothing, then what changes no result, then its arithmetic too, as little as is enough."""
    found = [_executed(config, arithmetic, room) for arithmetic in _arithmetics(config)]
    return next((each for each in found if each.fits), min(found, key=lambda each: each.peak.bytes))


def _arithmetics(config: Config) -> list[dict[str, Any]]:
    """Other ways to compute a run, by what they change: bfloat16 weights that train need stochastic rounding."""
    training, full = config.training, _kind(config).trains_base
    lower = {"training.precision": "bfloat16"} if BYTES[training.precision] == 4 else {}
    if not full:
        return [{}, lower] if lower else [{}]
    names = ("adamw_8bit",) if not lower else ("adamw_bf16_stochastic", "adamw_8bit")
    return [{}, *({**lower, "training.optimizer": name} for name in names if name != training.optimizer)]


def _executed(config: Config, changes: dict[str, Any], room: float) -> Fit:
    """A run with a smaller evaluation batch, gradient checkpointing and smaller micro-batches, as far as needed."""
    changes = dict(changes)
    while True:
        changed = changed_config(config, changes)
        peak, hardware, tokens = estimate_peak(changed), changed.hardware, batch_tokens(changed)
        if peak.bytes <= room:
            return Fit(changes, peak, True)
        if peak.evaluation > room and tokens >= 2 * SMALLEST_BATCH:
            changes["hardware.evaluation_tokens"] = tokens // 2
        elif peak.training > room and not hardware.gradient_checkpointing:
            changes["hardware.gradient_checkpointing"] = True
        elif peak.training > room and hardware.micro_batch > 1:
            changes["hardware.micro_batch"] = hardware.micro_batch // 2
        else:
            return Fit(changes, peak, False)


def changed_config(config: Config, changes: Mapping[str, Any]) -> Config:
    """A resolved config with other values for some keys of its groups."""
    for key, value in changes.items():
        group, _, name = key.partition(".")
        config = replace(config, **{group: replace(getattr(config, group), **{name: value})})
    return config
