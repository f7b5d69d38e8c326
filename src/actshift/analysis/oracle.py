"""Oracle steering (Section 3.3): a tuned model's hidden states put into its base model.

Shapes: B rows, T tokens, D width, N tokens that are no padding, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import kl_div

from actshift.analysis.activations import Places, batch_of, overwritten, record, tokens_BT, tuned
from actshift.analysis.maps import columns, fit_all_layers, kinds, steered
from actshift.analysis.regression import explained
from actshift.models.loading import Base
from actshift.runtime.session import Session
from actshift.schema.analysis import OracleConfig
from actshift.schema.config import Config
from actshift.training.batches import Batch

Row = tuple[str, str, int | None, str, float]
BLOCK = "post_block"
COLUMNS = ("measure", "site", "layer", "map", "value")
"""`layer` is empty for all layers at once. `map` names a fitted map, or says that shifts are added."""
ADDED = "shifts added"


def sites_of(base: Base) -> tuple[str, ...]:
    """The sites that are as wide as the model: post_block, post_mlp, pre_mlp, attn_out."""
    return (BLOCK, "post_mlp", "pre_mlp", "attn_out")


def oracle(config: Config, *, session: Session | None = None) -> pd.DataFrame:
    """One row a number, with the columns of `COLUMNS`:

    logit_error: largest difference of a logit to the tuned model's, over the largest size of one.
    With `ADDED` the shift (tuned less base) of every layer is added to what the layer gives by then: they add up.
    kl_left: mean over tokens of KL(tuned || overwritten), as a share of KL(tuned || base).
    "MAP steers": every layer is steered by a map that was fitted on other rows to what is lacking there by then.
    explained: share of the shift's squared norm after a block that a map of the base's hidden state predicts, on rows
    that it was not fitted to.
    spectrum: share of the shifts' squared norm in their first directions; directions: their participation ratio.
    """
    session, analysis = session or Session(), config.analysis_as(OracleConfig)
    base = session.base(config)
    batch = batch_of(config, base, rows=analysis.rows, session=session)
    plain, before = record(base, batch, sites=sites_of(base))
    with tuned(base, batch, analysis):
        wanted, after = record(base, batch, sites=sites_of(base))
    shifts = {place: value - before[place] for place, value in after.items() if place[0] == BLOCK}
    everywhere, (_, scored) = Distance(wanted, plain, tokens_BT(batch)), _halves(batch)
    rows = [
        *_overwriting(base, batch, everywhere, after),
        *everywhere.rows(BLOCK, None, ADDED, overwritten(base, batch, shifts, added=True)),
        *_maps(batch, before, after, analysis),
        *_steering(base, batch, Distance(wanted, plain, scored), after, analysis),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


class Distance:
    """How far logits are from the tuned model's on the tokens of a mask, as a share of the base model's distance."""

    def __init__(self, wanted_BTV: torch.Tensor, plain_BTV: torch.Tensor, mask_BT: torch.Tensor) -> None:
        """Takes the logits of the tuned model and of the base model."""
        self.mask_BT, self.wanted_NV = mask_BT, wanted_BTV[mask_BT]
        self.largest = self.wanted_NV.abs().max()
        self.logprobs_NV = log_probabilities(self.wanted_NV)  # once: the same for every logits that are compared
        self.of_base = divergence(self.logprobs_NV, log_probabilities(plain_BTV[mask_BT]))

    def rows(self, site: str, layer: int | None, how: str, found_BTV: torch.Tensor) -> Iterator[Row]:
        """The rows `logit_error` and `kl_left` of logits."""
        found_NV = found_BTV[self.mask_BT]
        yield "logit_error", site, layer, how, float((found_NV - self.wanted_NV).abs().max() / self.largest)
        left = divergence(self.logprobs_NV, log_probabilities(found_NV)) / self.of_base
        yield "kl_left", site, layer, how, left


def _overwriting(base: Base, batch: Batch, distance: Distance, after: Places) -> Iterator[Row]:
    for site in sites_of(base):
        everywhere = {place: value for place, value in after.items() if place[0] == site}
        for layer, places in [(None, everywhere), *((at, {(site, at): everywhere[site, at]}) for _, at in everywhere)]:
            yield from distance.rows(site, layer, "", overwritten(base, batch, places))


def log_probabilities(logits_NV: torch.Tensor) -> torch.Tensor:
    """The natural logarithms of probabilities, in float64."""
    return logits_NV.double().log_softmax(dim=-1)


def divergence(wanted_NV: torch.Tensor, found_NV: torch.Tensor) -> float:
    """Mean over tokens of ``KL(wanted || found)`` in nats, from log probabilities."""
    return float(kl_div(found_NV, wanted_NV, reduction="batchmean", log_target=True))


def _halves(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that maps are fitted to, and those that they are scored on: of every other row each."""
    fitted, scored = tokens_BT(batch).clone(), tokens_BT(batch).clone()
    fitted[1::2], scored[::2] = False, False
    return fitted, scored


def _maps(batch: Batch, before: Places, after: Places, analysis: OracleConfig) -> Iterator[Row]:
    """Maps of each layer by itself, and the spectrum of its shifts."""
    fitted, scored = _halves(batch)
    for site, layer in (place for place in before if place[0] == BLOCK):
        h_BTD, shift_BTD = before[site, layer], after[site, layer] - before[site, layer]
        (x, s), (x_new, s_new) = ((columns(h_BTD, rows), columns(shift_BTD, rows)) for rows in (fitted, scored))
        yield from _spectrum(columns(shift_BTD, tokens_BT(batch)), layer, analysis)
        for name, fit in kinds(analysis, width=len(x)).items():
            yield "explained", site, layer, name, explained(fit(x, s)(x_new), s_new)


def _spectrum(shift_DN: np.ndarray, layer: int, analysis: OracleConfig) -> Iterator[Row]:
    squares = np.linalg.svd(shift_DN, compute_uv=False) ** 2
    for rank in (rank for rank in analysis.ranks if rank < len(squares)):
        yield "spectrum", BLOCK, layer, f"first {rank}", float(squares[:rank].sum() / squares.sum())
    yield "directions", BLOCK, layer, "", participation(squares)


def participation(squares: np.ndarray) -> float:
    """The participation ratio ``(sum s)^2 / sum s^2`` of squared singular values: k where k of them are equal."""
    return float(squares.sum() ** 2 / np.square(squares).sum())


def _steering(base: Base, batch: Batch, distance: Distance, after: Places, analysis: OracleConfig) -> Iterator[Row]:
    """What is left of the divergence on other rows where fitted maps steer all layers together."""
    fitted, _ = _halves(batch)
    for name, fit in kinds(analysis, width=base.sites.model_width).items():
        with torch.no_grad(), steered(base, fit_all_layers(base, batch, after, fitted, fit)):
            found = base.model(input_ids=batch.ids_BT).logits
        yield from distance.rows(BLOCK, None, f"{name} steers", found)
