"""Sampling of tokens: which one follows depends on the policy and on a row's own random numbers alone.

Shapes: B rows, R of them still in the batch, T tokens at most, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from actshift.evaluation.sampling import likeliest


def uniforms(seed: int, step: int, row: int, completion: int, *, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) that follow from these four alone, whatever was drawn before or beside them."""
    numbers: np.ndarray = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, step, row, completion]))
    ).random(count)
    return numbers


class Sampler:
    """The next token of each row by its own random number: the inverse of the cumulative distribution.

    The policy is softmax(logits / temperature). With ``top_p < 1`` a token is drawn from the fewest likeliest ones that
    have at least this share of it; the log-probability that is kept is the policy's all the same.
    """

    def __init__(self, uniforms_BT: torch.Tensor, *, temperature: float, top_p: float) -> None:
        self._uniforms_BT, self._temperature, self._top_p = uniforms_BT, temperature, top_p
        self._step = 0
        self.logprobs_BT = torch.zeros_like(uniforms_BT, dtype=torch.float32)
        """log p of each token drawn (nats); 0 after a row has left its batch."""
        self.entropies_BT = torch.zeros_like(self.logprobs_BT)
        """Entropy of the policy (nats) where each token was drawn."""

    def __call__(self, logits_RV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        rows_R = torch.tensor(rows, device=logits_RV.device)
        logprobs_RV = torch.log_softmax(logits_RV.float() / self._temperature, dim=-1)
        probs_RV = logprobs_RV.exp()
        ids_R = draw(probs_RV, self._uniforms_BT[rows_R, self._step], top_p=self._top_p)
        self.logprobs_BT[rows_R, self._step] = logprobs_RV.gather(1, ids_R[:, None])[:, 0]
        self.entropies_BT[rows_R, self._step] = torch.special.entr(probs_RV).sum(-1)
        self._step += 1
        return ids_R


def draw(probs_RV: torch.Tensor, uniforms_R: torch.Tensor, *, top_p: float) -> torch.Tensor:
    """ids_R: the first token at which the cumulative probability exceeds a row's number; never one of probability 0."""
    if top_p < 1:
        probs_RV = nucleus(probs_RV, top_p)
    cumulative_RV = probs_RV.double().cumsum(-1)
    wanted_R1 = uniforms_R[:, None].double() * cumulative_RV[:, -1:]
    # Past the end only where a diverged policy has no probabilities: the loss will say so.
    return torch.searchsorted(cumulative_RV, wanted_R1, right=True)[:, 0].clamp(max=probs_RV.shape[1] - 1)


def nucleus(probs_RV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The fewest likeliest tokens with at least `top_p` in all, the others at 0; not normalized."""
    kept_RV, ids_RV = likeliest(probs_RV, top_p)
    return torch.zeros_like(probs_RV).scatter(1, ids_RV, kept_RV)
