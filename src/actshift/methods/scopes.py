"""Scopes: which token positions a steering method changes.

A scope counts from the first real token, so left padding does not move it. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Scope = Callable[[torch.Tensor], torch.Tensor]
"""From prompt_BT, which positions are prompt tokens, to scope_BT, which positions change."""


def prompt(prompt_BT: torch.Tensor) -> torch.Tensor:
    """Every prompt token."""
    return prompt_BT


def last_prompt(prompt_BT: torch.Tensor) -> torch.Tensor:
    """The last prompt token (pyreft's default)."""
    return first_last(prompt_BT, first=0, last=1)


def first_last(prompt_BT: torch.Tensor, *, first: int, last: int) -> torch.Tensor:
    """The first `first` and the last `last` prompt tokens; all of a prompt that is shorter than both together."""
    place_BT = prompt_BT.long().cumsum(-1)
    length_B1 = place_BT[:, -1:]
    return prompt_BT & ((place_BT <= first) | (place_BT > length_B1 - last))


def get_scope(kind: str, *, first: int, last: int) -> Scope | None:
    """The scope of a config; None for `all`, prompt and generated tokens alike, which needs no mask."""
    if kind == "first_last":
        return lambda prompt_BT: first_last(prompt_BT, first=first, last=last)
    return {"all": None, "prompt": prompt, "last_prompt": last_prompt}[kind]
