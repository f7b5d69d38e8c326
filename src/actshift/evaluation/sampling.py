"""Which token follows: the likeliest one, or one drawn by temperature and top-p from a random stream of its row.

Shapes: B rows of a batch, V vocabulary. A row's draws depend on its own stream and its own logits alone, so that the
composition of batches, a restart after a kill and the device change no draw beyond rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from actshift.errors import impossible

Choose = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""Gives the next tokens ids_B of logits_BV; the second argument has the number of each of the B rows."""


def greedy(logits_BV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """The likeliest token of each row, ids_B."""
    del rows
    return logits_BV.argmax(-1)


class Sampled:
    """Draws tokens from softmax(logits / temperature), cut to the nucleus of top-p (arXiv 1904.09751).

    The nucleus holds the likeliest tokens, as few as have a probability of at least `top_p` together; `top_p` = 1
    cuts nothing. `streams` has a seed for each row that will be asked for: a whole number, or several. Row i draws one
    uniform number a token from its stream and takes the token at that quantile, likeliest tokens first.
    Errors: a temperature that is not above 0 (`greedy` is its limit), a top-p outside (0, 1].
    """

    def __init__(self, temperature: float, top_p: float = 1.0, *, streams: Sequence[int | Sequence[int]]) -> None:
        check(temperature, top_p)
        self._temperature, self._top_p = temperature, top_p
        self._seeds = streams
        self._streams: dict[int, np.random.Generator] = {}

    def __call__(self, logits_BV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        uniform_B = torch.tensor([self._stream(row).random() for row in rows], device=logits_BV.device)
        p_BV, ids_BV = likeliest(torch.softmax(logits_BV.float() / self._temperature, dim=-1), self._top_p)
        reached_BV = p_BV.cumsum(-1)
        target_B1 = uniform_B.float()[:, None] * reached_BV[:, -1:]
        place_B1 = torch.searchsorted(reached_BV, target_B1, right=True)
        last_B1 = (p_BV > 0).sum(-1, keepdim=True) - 1  # rounding may put the target beyond the nucleus
        return ids_BV.gather(-1, torch.minimum(place_B1, last_B1))[:, 0]

    def _stream(self, row: int) -> np.random.Generator:
        if row not in self._streams:
            self._streams[row] = np.random.default_rng(self._seeds[row])
        return self._streams[row]


def likeliest(p_BV: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The probabilities of each row and their tokens, likeliest first; 0 beyond the fewest with `top_p` in all.

    The likeliest token always stays; of equal ones the lower number comes first. Nothing is normalized.
    """
    sorted_BV, ids_BV = p_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    return sorted_BV.where(before_BV < top_p, 0), ids_BV


def check(temperature: float, top_p: float) -> None:
    """Refuse values that define no distribution to draw from."""
    if not 0 < temperature < math.inf:
        raise impossible("temperature", temperature, "a number above 0; greedy decoding is the limit towards 0")
    if not 0 < top_p <= 1:
        raise impossible("top_p", top_p, "a share above 0 and at most 1")
