"""Scopes: which token positions a steering method changes.

A scope counts from the first real token, so left padding does not move it.
Shapes: A replicas, B rows, T tokens, S chosen positions of a replica, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from actshift.models.packing.forward_pass import ForwardPass
from actshift.schema.method import ScopeConfig

Shift = Callable[[torch.Tensor], torch.Tensor]
Positions = Callable[[torch.Tensor], torch.Tensor]
"""From prompt_BT, which positions are prompt tokens, to scope_BT, which positions change."""


@dataclass(frozen=True)
class Scope:
    """Which positions of a pass change, in a pass that holds the prompt and in one that decodes with a cache."""

    positions: Positions | None
    """None: every position of every pass."""
    generated: bool = False
    """Whether the tokens that are decoded with a key/value cache change."""
    copies: bool = False
    """Whether a token changes for its own prediction alone: later tokens see it as it is without the method.

    Each position that predicts an answer token is then computed twice, as it is and as a changed copy that no other
    token sees. In a pass without copies the last token alone changes.
    """

    def acts(self, forward_pass: ForwardPass) -> bool:
        """Whether any position of a pass may change."""
        if self.positions is None or forward_pass.prompt_BT is not None:
            return True
        return self.generated and not forward_pass.unchanged

    def chosen(self, forward_pass: ForwardPass, *, replicas: int) -> Chosen | None:
        """The positions of a pass that change; None for all of them."""
        if self.positions is None or forward_pass.prompt_BT is None:
            return None
        if self.copies:
            index_AS, is_chosen_AS = forward_pass.copies(replicas=replicas)
        else:
            index_AS, is_chosen_AS = forward_pass.positions(self.positions(forward_pass.prompt_BT), replicas=replicas)
        return Chosen(index_AS, is_chosen_AS[..., None].float())


def prompt(prompt_BT: torch.Tensor) -> torch.Tensor:
    """Every prompt token."""
    return prompt_BT


def last_prompt(prompt_BT: torch.Tensor) -> torch.Tensor:
    """The last prompt token (pyreft's default)."""
    number_BT, length_B1 = _numbered(prompt_BT)
    return prompt_BT & (number_BT == length_B1)


def first_last(prompt_BT: torch.Tensor, *, first: int, last: int) -> torch.Tensor:
    """The first `first` and the last `last` prompt tokens.

    Neither end goes beyond half of a prompt of n tokens: it has min(first, n // 2) and min(last, n // 2) of them, so
    that no position is in both (pyreft's ``get_intervention_locations``). The middle token of a short prompt of odd
    length is in none.
    """
    number_BT, length_B1 = _numbered(prompt_BT)
    half_B1 = length_B1 // 2
    in_first_BT = number_BT <= half_B1.clamp(max=first)
    return prompt_BT & (in_first_BT | (number_BT > length_B1 - half_B1.clamp(max=last)))


def answer(prompt_BT: torch.Tensor) -> torch.Tensor:
    """The last prompt token and everything after it: the positions that predict the answer's tokens.

    The released code's ``--intervene-last`` when it generates with a cache: the last token of each pass changes, and
    keeps the changed keys and values. Padding on the right is among the positions, where nothing sees it.
    """
    number_BT, length_B1 = _numbered(prompt_BT)
    return (number_BT == length_B1) & (length_B1 > 0)


def get_scopes(scope: ScopeConfig) -> dict[str, Scope]:
    """The scopes of a config by the name of their weights: one, or the two ends where they have separate weights."""
    first, last = scope.first, scope.last
    if scope.separate:
        ends = {"first": partial(first_last, first=first, last=0), "last": partial(first_last, first=0, last=last)}
        return {end: Scope(positions) for end, positions in ends.items()}
    scopes = {
        "all": Scope(None, generated=True),
        "prompt": Scope(prompt),
        "last_prompt": Scope(last_prompt),
        "first_last": Scope(partial(first_last, first=first, last=last)),
        "answer": Scope(answer, generated=True),
        "every_last": Scope(answer, generated=True, copies=True),
    }
    return {"": scopes[scope.kind]}


@dataclass(frozen=True)
class Chosen:
    """The positions of a pass that change; `is_chosen_AS1` is 0 where a replica is only filled up."""

    index_AS: torch.Tensor
    is_chosen_AS1: torch.Tensor

    def add(self, to_BTD: torch.Tensor, h_BTD: torch.Tensor, shift: Shift) -> torch.Tensor:
        """``to + shift(h)`` at these positions and `to` everywhere else; `shift` takes h_ABTD and sees no other."""
        at = self.index_AS.flatten()
        h_ASD = h_BTD.flatten(0, 1).index_select(0, at).unflatten(0, self.index_AS.shape)
        shift_ASD = shift(h_ASD[:, None])[:, 0] * self.is_chosen_AS1
        return to_BTD.flatten(0, 1).index_add(0, at, shift_ASD.flatten(0, 1)).view_as(to_BTD)


def _numbered(prompt_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The number of each prompt token in its row, counted from 1, and how many there are."""
    number_BT = prompt_BT.long().cumsum(-1)
    return number_BT, number_BT[:, -1:]
