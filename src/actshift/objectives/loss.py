"""The loss of GRPO as pure functions: advantages, ratios and the divergence, and how tokens are averaged.

Source: DeepSeekMath (arXiv 2402.03300), section 4; Dr. GRPO (2503.20783); DAPO (2503.14476).
Shapes: S completions, G of a group, N completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from actshift.errors import unknown
from actshift.schema.objective import NORMALIZATIONS

EPSILON = 1e-4
"""Added to a group's standard deviation, as TRL does."""


def advantages(rewards_S: torch.Tensor, *, group: int, scale_by_std: bool) -> torch.Tensor:
    """A_i = (r_i - mean r) / (sd r + 1e-4) within each group of `group` neighbours; sd with G - 1 in the denominator.

    Without `scale_by_std` the deviation alone (Dr. GRPO). Of a group of equal rewards all are exactly 0.
    """
    rewards_PG = rewards_S.view(-1, group)
    centred_PG = torch.where(
        silent(rewards_S, group=group)[:, None], 0.0, rewards_PG - rewards_PG.mean(1, keepdim=True)
    )
    if scale_by_std:
        centred_PG = centred_PG / (rewards_PG.std(1, keepdim=True) + EPSILON)
    return centred_PG.flatten()


def silent(rewards_S: torch.Tensor, *, group: int) -> torch.Tensor:
    """Whether all completions of each group have the same reward, so that the group has no signal."""
    rewards_PG = rewards_S.view(-1, group)
    return (rewards_PG == rewards_PG[:, :1]).all(1)


def token_weights(lengths: Sequence[int], *, normalization: str, limit: int) -> list[float]:
    """What a token of each completion counts in the loss of a step, whose completions have these lengths.

    `token`: 1 / all tokens; `sequence`: 1 / (S x its length); `constant`: 1 / (S x limit), `limit` being the longest
    length that a completion may have. The loss of a step is a sum over tokens, so micro-batches do not change it.
    """
    if normalization == "token":
        return [1 / sum(lengths)] * len(lengths)
    if normalization == "sequence":
        return [1 / (len(lengths) * length) for length in lengths]
    if normalization == "constant":
        return [1 / (len(lengths) * limit)] * len(lengths)
    raise unknown("normalization", normalization, NORMALIZATIONS, where="objective.normalization")


def divergence(logprobs_N: torch.Tensor, reference_N: torch.Tensor) -> torch.Tensor:
    """exp(d) - d - 1 with d = log p_reference - log p: at least 0, 0 where both agree; its mean estimates the KL."""
    difference_N = reference_N - logprobs_N
    return difference_N.exp() - difference_N - 1


@dataclass(frozen=True)
class TokenLosses:
    """The loss of each token, whether the clip took its gradient, and its divergence where one is computed."""

    loss_N: torch.Tensor
    clipped_N: torch.Tensor
    divergence_N: torch.Tensor | None


def token_losses(
    logprobs_N: torch.Tensor,
    old_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl: float,
    reference_N: torch.Tensor | None = None,
) -> TokenLosses:
    """- min(ratio A, clip(ratio, 1 - low, 1 + high) A) + kl x `divergence`, ratio = exp(log p - log p_old)."""
    ratio_N = (logprobs_N - old_N).exp()
    low, high = 1 - clip_low, 1 + clip_high
    loss_N = -torch.minimum(ratio_N * advantages_N, ratio_N.clamp(low, high) * advantages_N)
    clipped_N = ((ratio_N < low) & (advantages_N < 0)) | ((ratio_N > high) & (advantages_N > 0))
    divergence_N = None if reference_N is None else divergence(logprobs_N, reference_N)
    if divergence_N is not None:
        loss_N = loss_N + kl * divergence_N
    return TokenLosses(loss_N, clipped_N, divergence_N)
