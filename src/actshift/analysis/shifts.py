"""Figures 5 and 6: the two parts of joint training, by what they add and by the size of the adapter's matrix.

Shapes: B rows, T tokens, D width, R rank, N tokens of the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity

from actshift.analysis.activations import Places, batch_of, contribution_site, noting, record, token_sets
from actshift.analysis.adapters import Trained, attached, trained
from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.models.sites import Change
from actshift.runtime.session import Session
from actshift.schema.analysis import CosinesConfig
from actshift.schema.config import Config
from actshift.training.batches import Batch

BLOCK, INPUT = "post_block", "pre_mlp"
DOWN = "down_proj"
WHOLE = "mlp"
"""What the adapter's shift is compared with: LoRA's change of the whole MLP, or by its part on DOWN alone."""
COLUMNS = ("tokens", "method", "seed", "against", "layer", "count", "mean", "std", "mean_abs")
BINS = 40


def cosines(config: Config, *, session: Session | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two frames: one row a set of tokens, adapter and layer (`COLUMNS`), and histograms over all layers and seeds.

    For each token of the prompts, the cosine between what the adapter adds to the block's output and LoRA's change of
    what the MLP adds to the residual stream, both on the adapted model's own hidden states: the MLP has one input, with
    LoRA and without it. `mean_abs` is the mean of its absolute value. The histogram has `share` of the tokens between
    `low` and `high`. Errors: a method without both parts.
    """
    session, analysis = session or Session(), config.analysis_as(CosinesConfig)
    adapters = trained(config)
    base = session.base(config)
    batch = batch_of(config, base, rows=analysis.rows, session=session, split="validation")
    rows: list[tuple[Any, ...]] = []
    pooled: dict[tuple[str, str], list[np.ndarray]] = {}
    for each in adapters:
        found, sets = token_cosines(base, batch, each)
        for (against, layer), values_BT in found.items():
            for name, mask_BT in sets.items():
                values_N = values_BT[mask_BT].numpy()
                values_N = values_N[np.isfinite(values_N)]
                numbers = (values_N.mean(), values_N.std(), np.abs(values_N).mean())
                rows.append((name, each.method, each.seed, against, layer, len(values_N), *map(float, numbers)))
                if name == "all":
                    pooled.setdefault((each.method, against), []).append(values_N)
    return pd.DataFrame(rows, columns=list(COLUMNS)), _histograms(pooled)


def token_cosines(
    base: Base, batch: Batch, each: Trained
) -> tuple[dict[tuple[str, int], torch.Tensor], dict[str, torch.Tensor]]:
    """The cosines by what the shift is compared with and by layer, NaN where a shift is 0; and the sets of tokens."""
    contribution = contribution_site(base)
    steered, places = _with_adapter(base, batch, each)
    inputs = {place: value for place, value in places.items() if place[0] == INPUT}
    plain = _contributions(base, batch, inputs, site=contribution)
    down = replace(each, adapter=replace(each.adapter, state=_only_down(each)))
    parts = {
        WHOLE: {layer: places[contribution, layer] for layer in range(base.sites.layers)},
        DOWN: _contributions(base, batch, inputs, site=contribution, each=down),
    }
    found = {}
    for against, values in parts.items():
        for layer, value_BTD in values.items():
            change_BTD = (value_BTD - plain[layer]).double()
            shift_BTD = steered[layer].double()
            cosine_BT = cosine_similarity(shift_BTD, change_BTD, dim=-1, eps=1e-30)
            moved_BT = (shift_BTD.norm(dim=-1) > 0) & (change_BTD.norm(dim=-1) > 0)
            found[against, layer] = torch.where(moved_BT, cosine_BT, torch.nan).cpu()
    return found, {name: mask.cpu() for name, mask in token_sets(places, batch.prompt_BT).items()}


def _with_adapter(base: Base, batch: Batch, each: Trained) -> tuple[dict[int, torch.Tensor], Places]:
    """What the steering adds after each block, and the hidden states of the adapted model."""
    before: Places = {}
    with ExitStack() as stack:
        for layer in range(base.sites.layers):  # a hook before the steering's sees what the block gives
            stack.callback(base.sites.hook(BLOCK, layer, noting(before, (BLOCK, layer))).remove)
        stack.enter_context(attached(base, each, batch.prompt_BT))
        _, places = record(base, batch, sites=(BLOCK, INPUT, contribution_site(base)))
    return {layer: places[BLOCK, layer] - before[BLOCK, layer] for layer in range(base.sites.layers)}, places


def _contributions(
    base: Base, batch: Batch, inputs: Places, *, site: str, each: Trained | None = None
) -> dict[int, torch.Tensor]:
    """What every MLP adds for given inputs, with the LoRA of an adapter or without one."""
    with ExitStack() as stack:
        if each is not None:
            stack.enter_context(attached(base, each, batch.prompt_BT))
        for (where, layer), value_BTD in inputs.items():
            stack.callback(base.sites.hook(where, layer, _giving(value_BTD)).remove)
        _, seen = record(base, batch, sites=(site,))
    return {layer: value for (_, layer), value in seen.items()}


def _giving(value_BTD: torch.Tensor) -> Change:
    return lambda _: value_BTD


def _only_down(each: Trained) -> dict[str, torch.Tensor]:
    """The adapter's tensors with LoRA's B (Section 5.2) set to 0 but for the down projections'."""
    state = each.adapter.state
    if not any("lora_B" in name for name in state) or not any(f"{BLOCK}." in name for name in state):
        raise ActshiftError(f"{each.method} has no LoRA beside a post-block adapter: name joint methods.")
    return {
        name: tensor if "lora_B" not in name or DOWN in name else torch.zeros_like(tensor)
        for name, tensor in state.items()
    }


def _histograms(pooled: Mapping[tuple[str, str], list[np.ndarray]]) -> pd.DataFrame:
    rows = []
    for (method, against), parts in pooled.items():
        counts, edges = np.histogram(np.concatenate(parts), bins=BINS, range=(-1, 1))
        for count, low, high in zip(counts, edges, edges[1:], strict=False):
            rows.append((method, against, round(float(low), 6), round(float(high), 6), count / counts.sum()))
    return pd.DataFrame(rows, columns=["method", "against", "low", "high", "share"])


def norms(config: Config, *, session: Session | None = None) -> pd.DataFrame:
    """Figure 6, one row an adapter and layer: `norm` is the spectral norm of W2 (D x R), `product` that of W2 W1.

    The second is what the shift depends on: W2 can grow while W1 shrinks. Errors: a method without W2.
    """
    rows = []
    for each in trained(config):
        state = each.adapter.state
        layers = {_layer(name): name for name in state if name.endswith(f"{BLOCK}.up")}
        if not layers:
            raise ActshiftError(f"{each.method} has no post-block adapter of two matrices: name joint methods.")
        for layer, name in sorted(layers.items()):
            up_DR, down_RD = state[name].double(), state[name.removesuffix("up") + "down"].double()
            sizes = (float(torch.linalg.matrix_norm(matrix, ord=2)) for matrix in (up_DR, up_DR @ down_RD))
            rows.append((each.method, each.seed, layer, *sizes))
    return pd.DataFrame(rows, columns=["method", "seed", "layer", "norm", "product"])


def _layer(name: str) -> int:
    """The layer in a tensor's name: "steering.3.post_block.up" is of layer 3."""
    return next(int(part) for part in name.split(".") if part.isdigit())
