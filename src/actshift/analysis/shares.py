"""Figure 2: how much of a block's output, and of what training changes in it, the MLP adds.

Shapes: B rows, T tokens, D width, N tokens of the prompts.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from actshift.analysis.activations import Places, batch_of, contribution_site, record, token_sets
from actshift.analysis.adapters import Trained, attached, trained
from actshift.models.loading import Base
from actshift.runtime.session import Session
from actshift.schema.analysis import SharesConfig
from actshift.schema.config import Config
from actshift.training.batches import Batch

BLOCK = "post_block"
COLUMNS = (
    *("tokens", "count", "layer", "mlp_share", "share_of_means"),
    *("method", "seed", "change_share", "change_share_of_means"),
)


def shares(config: Config, *, session: Session | None = None) -> pd.DataFrame:
    """One row a set of tokens, layer and adapter; over the tokens of the prompts, with m the MLP's contribution to the
    residual stream and b the block's output:

    mlp_share: mean of ``|m| / |b|``; share_of_means: ``mean |m| / mean |b|``.
    change_share, change_share_of_means: the same of the changes ``m_tuned - m`` and ``b_tuned - b``; empty where no
    adapter is looked at (`analysis.methods` is empty).
    """
    session, analysis = session or Session(), config.analysis_as(SharesConfig)
    adapters: list[Trained | None] = [*trained(config)] if analysis.methods else [None]
    base = session.base(config)
    batch = batch_of(config, base, rows=analysis.rows, session=session, split="validation")
    sites = (contribution_site(base), BLOCK)
    _, before = record(base, batch, sites=sites)
    sets = token_sets(before, batch.prompt_BT)
    rows: list[tuple[Any, ...]] = []
    for each in adapters:
        after = before if each is None else adapted_places(base, batch, each, sites=sites)
        for name, mask_BT in sets.items():
            for layer in range(base.sites.layers):
                m, b = (before[site, layer][mask_BT].double() for site in sites)
                changes = [after[site, layer][mask_BT].double() - x for site, x in zip(sites, (m, b), strict=True)]
                row = (name, len(b), layer, *ratios(m, b))
                method = ("", None, None, None) if each is None else (each.method, each.seed, *ratios(*changes))
                rows.append((*row, *method))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def ratios(part_ND: torch.Tensor, whole_ND: torch.Tensor) -> tuple[float, float]:
    """The mean of ``|part| / |whole|`` over tokens, and the ratio of the mean norms."""
    part_N, whole_N = part_ND.norm(dim=1), whole_ND.norm(dim=1)
    # A token that nothing changes (whole 0) has no share.
    there = whole_N > 0
    return float((part_N[there] / whole_N[there]).mean()), float(part_N.mean() / whole_N.mean())


def adapted_places(base: Base, batch: Batch, each: Trained, *, sites: tuple[str, ...]) -> Places:
    """The hidden states at some sites with an adapter on the base model; at a steered site, after the steering."""
    with attached(base, each, batch.prompt_BT):
        return record(base, batch, sites=sites)[1]
