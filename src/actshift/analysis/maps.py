"""Maps from a hidden state to the shift that fine-tuning makes there: constant, linear, with one hidden layer.

Shapes: D width, N tokens (columns), R rank, B rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.nn.functional import silu

from actshift.analysis.activations import Places
from actshift.analysis.regression import Array, reduced_rank
from actshift.models.loading import Base
from actshift.models.sites import Change
from actshift.schema.analysis import ContinuationsConfig, OracleConfig
from actshift.training.batches import Batch

Map = Callable[[Array], Array]
"""From (D, N) to (D, N)."""
Fit = Callable[[Array, Array], Map]
"""From inputs and targets, (D, N) each, to the map that was fitted to them."""
BLOCK = "post_block"
RATE = 1e-2


def kinds(analysis: OracleConfig | ContinuationsConfig, *, width: int) -> dict[str, Fit]:
    """Every kind of map by name: constant, linear of each rank below the width and of full rank, SiLU of each rank."""
    ranks = [rank for rank in analysis.ranks if rank < width]
    fits: dict[str, Fit] = {"constant": constant}
    for rank in [*ranks, width]:
        name = "full" if rank == width else f"rank {rank}"
        fits[name] = _linear(rank, analysis.ridge)
    if analysis.steps:
        for rank in ranks:
            fits[f"SiLU, rank {rank}"] = _hidden_layer(rank, steps=analysis.steps, seed=analysis.seed)
    return fits


def constant(inputs_DN: Array, targets_DN: Array) -> Map:
    """The mean of the targets, whatever the input."""
    mean_D1 = targets_DN.mean(axis=1, keepdims=True)
    return lambda x_DN: np.broadcast_to(mean_D1, x_DN.shape)


def _linear(rank: int, ridge: float) -> Fit:
    def fit(inputs_DN: Array, targets_DN: Array) -> Map:
        size = ridge * float(np.mean(np.sum(inputs_DN**2, axis=0)))
        map_DD = reduced_rank(inputs_DN, targets_DN, rank=rank, ridge=size)
        return lambda x_DN: map_DD @ x_DN

    return fit


def _hidden_layer(rank: int, *, steps: int, seed: int) -> Fit:
    return lambda inputs_DN, targets_DN: hidden_layer(inputs_DN, targets_DN, rank=rank, steps=steps, seed=seed)


def hidden_layer(inputs_DN: Array, targets_DN: Array, *, rank: int, steps: int, seed: int = 0) -> Map:
    """``W2 SiLU(W1 x)``, W1 (R x D), W2 (D x R), fitted by so many steps of Adam on all columns at once.

    The rate falls to 0 along a cosine. W2 begins at 0; inputs and targets are divided by their root mean square
    before, so that one rate suits all layers. It is the best that these steps find, and no optimum.
    """
    sizes = [float(np.sqrt(np.mean(values**2))) or 1.0 for values in (inputs_DN, targets_DN)]
    x_ND, s_ND = (torch.tensor(v.T / size) for v, size in zip((inputs_DN, targets_DN), sizes, strict=True))
    generator = torch.Generator().manual_seed(seed)
    width = x_ND.shape[1]
    down_RD = torch.randn(rank, width, generator=generator, dtype=torch.float64) / width**0.5
    up_DR = torch.zeros(width, rank, dtype=torch.float64)
    weights = [down_RD.requires_grad_(True), up_DR.requires_grad_(True)]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = _squared_error(silu(x_ND @ down_RD.T), up_DR, s_ND)
            loss.backward()
            optimizer.step()
            schedule.step()
    down, up = (weight.detach().numpy() for weight in weights)

    def apply(x_DN: Array) -> Array:
        codes = torch.tensor(down @ (x_DN / sizes[0]))
        found: Array = sizes[1] * (up @ silu(codes).numpy())
        return found

    return apply


def _squared_error(codes_NR: torch.Tensor, up_DR: torch.Tensor, targets_ND: torch.Tensor) -> torch.Tensor:
    """The mean of ``(codes up' - targets)^2`` but for that of ``targets^2``, without anything of N x D numbers."""
    squares = ((codes_NR.T @ codes_NR) * (up_DR.T @ up_DR)).sum()
    return (squares - 2 * (codes_NR * (targets_ND @ up_DR)).sum()) / targets_ND.numel()


@contextmanager
def steered(base: Base, maps: Mapping[int, Map]) -> Iterator[None]:
    """The base model with ``h <- h + map(h)`` at the block outputs of some layers."""
    with ExitStack() as hooks:
        for layer, each in maps.items():
            hooks.callback(base.sites.hook(BLOCK, layer, _shifting(each)).remove)
        yield


def _shifting(each: Map) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(h_BTD: torch.Tensor) -> torch.Tensor:
        columns = h_BTD.double().cpu().flatten(0, 1).numpy().T
        return h_BTD + torch.tensor(each(columns).T.copy()).view(h_BTD.shape).to(h_BTD)

    return change


@torch.no_grad()
def fit_all_layers(base: Base, batch: Batch, wanted: Places, mask_BT: torch.Tensor, fit: Fit) -> dict[int, Map]:
    """One map a layer such that all steer together: each is fitted to what the model steered in the layers before it
    lacks of the tuned model's block output, on the tokens of a mask."""
    maps: dict[int, Map] = {}

    def fitting(layer: int) -> Change:
        def change(h_BTD: torch.Tensor) -> torch.Tensor:
            lacking_BTD = wanted[BLOCK, layer] - h_BTD
            maps[layer] = fit(columns(h_BTD, mask_BT), columns(lacking_BTD, mask_BT))
            return _shifting(maps[layer])(h_BTD)

        return change

    with ExitStack() as hooks:  # one pass: a layer's input is steered by the maps of the layers before it
        for layer in range(base.sites.layers):
            hooks.callback(base.sites.hook(BLOCK, layer, fitting(layer)).remove)
        base.model(input_ids=batch.ids_BT)
    return maps


def columns(h_BTD: torch.Tensor, mask_BT: torch.Tensor) -> Array:
    """(D, N) in float64: the hidden states of the tokens in a mask."""
    found: Array = h_BTD[mask_BT].double().cpu().numpy().T
    return found
