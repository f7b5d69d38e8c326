"""Figure 3: the directions that a full adapter after the block and the down projection learn in their first step.

Shapes: B rows, T tokens, D width, M inner width of the MLP, N tokens, K directions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from actshift.analysis.activations import batch_of, tokens_BT
from actshift.models.loading import Base
from actshift.models.sites import Change
from actshift.runtime.session import Session
from actshift.schema.analysis import OverlapConfig
from actshift.schema.config import Config
from actshift.training.batches import Batch

Array = NDArray[np.float64]
Seen = dict[tuple[str, int], torch.Tensor]
COLUMNS = ("layer", "width", "directions", "tokens", "overlap", "random", "diagonal")


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


def leading(matrix: Array, k: int) -> Array:
    """(D, K): the first left singular vectors, no more than there are."""
    return np.linalg.svd(matrix, full_matrices=False)[0][:, :k]


def inner_products(first: Array, second: Array, k: int) -> Array:
    """(K, K): ``U' V`` of the leading left singular vectors of two matrices of D rows."""
    return leading(first, k).T @ leading(second, k)


def overlap(first: Array, second: Array, k: int) -> float:
    """``|U' V|_F^2 / K``: 1 where both span one subspace, K / D on average where they are random."""
    products = inner_products(first, second, k)
    return float(np.sum(products**2) / len(products))


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
    """Two frames: one row a layer (`COLUMNS`), and the inner products of three layers, one row a direction.

    `random` is K / D, `diagonal` the mean absolute value of the inner products of equal rank. The three layers are the
    first, the middle one and the one at three quarters.
    """
    session, analysis = session or Session(), config.analysis_as(OverlapConfig)
    base = session.base(config)
    found = layers(base, batch_of(config, base, rows=analysis.rows, session=session))
    width = base.sites.model_width
    k = min(analysis.directions, width)
    rows = []
    for number, layer in enumerate(found):
        products = inner_products(*layer.products(), k)
        diagonal = float(np.mean(np.abs(np.diag(products))))
        tokens = layer.block_DN.shape[1]
        rows.append((number, width, k, tokens, float(np.sum(products**2) / k), k / width, diagonal))
    shown = sorted({0, len(found) // 2, 3 * len(found) // 4})
    maps = [
        pd.DataFrame(np.abs(inner_products(*found[number].products(), k))).round(3).assign(layer=number)
        for number in shown
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)), pd.concat(maps).rename(columns=str)
