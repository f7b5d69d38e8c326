"""Figure 3: the directions that an adapter after the block and the down projection learn first.

Of a full adapter and a full down projection in their first step, for the loss and for what fine-tuning changes; and of
the matrices of joint training after some steps.

Shapes: B rows, T tokens, D width, M inner width of the MLP, N tokens, K directions, R rank of the adapter, L of LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from actshift.analysis.activations import batch_of, record, tokens_BT
from actshift.analysis.adapters import Trained, attached, trained
from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.models.sites import Change
from actshift.runtime.session import Session
from actshift.schema.analysis import OverlapConfig
from actshift.schema.config import Config
from actshift.training.batches import Batch

Array = NDArray[np.float64]
Seen = dict[tuple[str, int], torch.Tensor]
Pair = tuple[Array, Array]
"""Orthonormal directions, the columns: (D, K) each."""
COLUMNS = (
    *("compared", "method", "seed", "steps"),
    *("layer", "width", "directions", "tokens", "overlap", "random", "diagonal"),
)
GRADIENT, ORACLE, TRAINED = "gradient", "oracle", "trained"
"""What a row compares: the products with minus the gradient, with the tuned model's shift, or trained matrices."""
BLOCK = "post_block"


@dataclass(frozen=True)
class Layer:
    """What one layer learns from: residuals (minus gradients) and inputs, one column a token."""

    block_residual_DN: Array
    block_DN: Array
    down_residual_DN: Array
    """At the output of the down projection: the block's, unless a norm follows it (Gemma 3)."""
    features_MN: Array

    def products(self) -> tuple[Array, Array]:
        """``R Y'`` (D, D) and ``R F'`` (D, M): minus the gradients of a full adapter and of the down projection."""
        return self.block_residual_DN @ self.block_DN.T, self.down_residual_DN @ self.features_MN.T

    def with_residual(self, residual_DN: Array) -> tuple[Array, Array]:
        """The same products with another residual at the block's output, which both parts are to add."""
        return residual_DN @ self.block_DN.T, residual_DN @ self.features_MN.T


def leading(matrix: Array, k: int) -> Array:
    """(D, K): the first left singular vectors, no more than there are."""
    return np.linalg.svd(matrix, full_matrices=False)[0][:, :k]


def leading_pair(products: tuple[Array, Array], k: int) -> Pair:
    """The leading left singular vectors of two matrices of D rows."""
    return leading(products[0], k), leading(products[1], k)


def inner_products(pair: Pair) -> Array:
    """(K, K): ``U' V`` of the directions on both sides."""
    return pair[0].T @ pair[1]


def overlap(first: Array, second: Array, k: int) -> float:
    """``|U' V|_F^2 / K``: 1 where both span one subspace, K / D on average where they are random."""
    return _numbers(leading_pair((first, second), k))[0]


def layers(base: Base, batch: Batch) -> list[Layer]:
    """What every layer learns from at the first step of joint training, at which both parts add nothing yet."""
    probes: Seen = {}
    seen: Seen = {}
    with ExitStack() as hooks:
        for layer in range(base.sites.layers):
            down = base.sites.module("post_mlp", layer).get_submodule("down_proj")
            hooks.callback(base.sites.hook("post_block", layer, _probe(probes, seen, ("block", layer))).remove)
            probe = _probe(probes, seen, ("down", layer))
            hooks.callback(down.register_forward_hook(lambda _, __, output, change=probe: change(output)).remove)
            note = _note(seen, ("features", layer))
            hooks.callback(down.register_forward_pre_hook(lambda _, inputs, keep=note: keep(inputs[0])).remove)
        loss = _loss(base, batch)
        gradients = dict(zip(probes, torch.autograd.grad(loss, list(probes.values())), strict=True))
    mask_BT = tokens_BT(batch)

    def columns(values: torch.Tensor) -> Array:
        return values.detach()[mask_BT].double().cpu().numpy().T

    return [
        Layer(
            columns(-gradients["block", layer]),
            columns(seen["block", layer]),
            columns(-gradients["down", layer]),
            columns(seen["features", layer]),
        )
        for layer in range(base.sites.layers)
    ]


def _probe(probes: Seen, seen: Seen, at: tuple[str, int]) -> Change:
    """A change that adds zeros, whose gradient is the gradient at that place."""

    def change(h_BTD: torch.Tensor) -> torch.Tensor:
        seen[at], probes[at] = h_BTD, torch.zeros_like(h_BTD, requires_grad=True)
        return h_BTD + probes[at]

    return change


def _note(seen: Seen, at: tuple[str, int]) -> Callable[[torch.Tensor], None]:
    return lambda values: seen.update({at: values})


def _loss(base: Base, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood (nats) of the answer tokens."""
    logits = base.model(input_ids=batch.ids_BT).logits[:, :-1]
    answer_BT = batch.answer_BT[:, 1:]
    return cross_entropy(logits[answer_BT].float(), batch.ids_BT[:, 1:][answer_BT])


def overlaps(config: Config, *, session: Session | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two frames: one row a residual, adapter and layer (`COLUMNS`), and the inner products of three layers, one row a
    direction.

    gradient: R is minus the gradient of the loss at the block output, in ``R Y'`` and ``R F'``.
    oracle: R is what a fine-tuned model (`analysis.methods`) has there more than the base model, ``h_FT - h_base``.
    trained: the adapter's W2 and LoRA's B of the down projection, as the runs of `analysis.early` left them.
    `random` is the overlap of random subspaces of that size on average, `diagonal` the mean absolute value of the inner
    products of equal rank. The three layers are the first, the middle one and the one at three quarters.
    """
    session, analysis = session or Session(), config.analysis_as(OverlapConfig)
    tuned = trained(config, methods=analysis.methods) if analysis.methods else []
    early = [each for sweep in analysis.early for each in trained(config, sweep=sweep, methods=[analysis.joint])]
    base = session.base(config)
    batch = batch_of(config, base, rows=analysis.rows, session=session)
    found = layers(base, batch)
    k = min(analysis.directions, base.sites.model_width)
    of: dict[tuple[Any, ...], list[Pair]] = {
        (GRADIENT, "", None, None): [leading_pair(each.products(), k) for each in found]
    }
    for each in tuned:
        residuals = _oracle(base, batch, each)
        products = [layer.with_residual(residual) for layer, residual in zip(found, residuals, strict=True)]
        of[ORACLE, each.method, each.seed, None] = [leading_pair(pair, k) for pair in products]
    for each in early:
        of[TRAINED, each.method, each.seed, each.steps] = [matrices(each, layer) for layer in range(len(found))]
    tokens = found[0].block_DN.shape[1]
    rows = [
        (*key, number, pair[0].shape[0], pair[0].shape[1], None if key[0] == TRAINED else tokens, *_numbers(pair))
        for key, pairs in of.items()
        for number, pair in enumerate(pairs)
    ]
    shown = sorted({0, len(found) // 2, 3 * len(found) // 4})
    maps = [
        pd.DataFrame(np.abs(inner_products(pairs[number]))).round(3).assign(compared=key[0], layer=number)
        for key, pairs in _first_of_each(of).items()
        for number in shown
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)), pd.concat(maps).rename(columns=str)


def matrices(each: Trained, layer: int) -> Pair:
    """The leading left singular vectors of the adapter's W2 (D, R) and of LoRA's B (D, L) of the down projection in a
    layer, as many as the smaller of both ranks.

    Errors: a method without both; a matrix of zeros, which no step has changed yet.
    """
    state = each.adapter.state
    ends = f"steering.{layer}.{BLOCK}.up", f".{layer}.mlp.down_proj.lora_B"
    up, down = ([value for name, value in state.items() if end in name] for end in ends)
    if not up or not down:
        raise ActshiftError(
            f"{each.method} has no LoRA of down_proj beside a post-block adapter of two matrices in layer {layer}: "
            "name a joint method with analysis.joint=..."
        )
    found = [matrix[0].double().numpy() for matrix in (up, down)]
    for matrix in found:
        if not matrix.any():
            raise ActshiftError(
                f"{each.adapter.folder}: a matrix of layer {layer} is still 0, for no step has changed it: train with "
                "a rate that is positive from the first step on (training.schedule.kind=constant)"
            )
    return leading_pair((found[0], found[1]), min(matrix.shape[1] for matrix in found))


@torch.no_grad()
def _oracle(base: Base, batch: Batch, each: Trained) -> list[Array]:
    """(D, N) by layer: what the block outputs of a model with an adapter have more than the base model's."""
    _, before = record(base, batch, sites=(BLOCK,))
    with attached(base, each, batch.prompt_BT):
        _, after = record(base, batch, sites=(BLOCK,))
    mask_BT = tokens_BT(batch)
    return [
        (after[BLOCK, layer] - before[BLOCK, layer])[mask_BT].double().cpu().numpy().T
        for layer in range(base.sites.layers)
    ]


def _numbers(pair: Pair) -> tuple[float, float, float]:
    """Overlap, that of random subspaces, and the mean absolute inner product of directions of equal rank."""
    products = inner_products(pair)
    d, k = pair[0].shape
    return float(np.sum(products**2)) / k, k / d, float(np.mean(np.abs(np.diag(products))))


def _first_of_each(of: Mapping[tuple[Any, ...], list[Pair]]) -> dict[tuple[Any, ...], list[Pair]]:
    """The gradient and the first fine-tuned model: what heat maps are drawn of."""
    kinds: dict[str, tuple[Any, ...]] = {}
    for key in of:
        kinds.setdefault(key[0], key)
    return {key: of[key] for kind, key in kinds.items() if kind != TRAINED}
