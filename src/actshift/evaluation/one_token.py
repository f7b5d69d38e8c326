"""Attention of one new token a row over its cached keys: what every step of generation computes.

torch's fused kernel for a CPU is made for many queries. With one query a row its two products are faster as batched
products. The numbers are the same within rounding.

Shapes: B rows, H query heads, G key/value heads, R = H / G, T keys, K head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface

from actshift.libraries.private import attention_implementation, set_attention_implementation
from actshift.models.loading import Base

NAME = "one-token"
REPLACED = "sdpa"


def suits(base: Base) -> bool:
    """Whether the model computes in float32 on a CPU, with torch's fused kernel."""
    here = base.device.type == "cpu" and base.model.dtype == torch.float32
    return here and attention_implementation(base.model.config) == REPLACED


@contextmanager
def one_token_passes(base: Base) -> Iterator[None]:
    """Passes of one token a row, which get `hidden_BT` (`hidden`) as an option."""
    set_attention_implementation(base.model.config, NAME)
    try:
        yield
    finally:
        set_attention_implementation(base.model.config, REPLACED)


def hidden(attention_BT: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
    """0 at tokens, and the type's least number at padding."""
    return torch.zeros_like(attention_BT, dtype=dtype).masked_fill_(attention_BT == 0, torch.finfo(dtype).min)


def _attention(
    module: torch.nn.Module,
    query_BH1K: torch.Tensor,
    key_BGTK: torch.Tensor,
    value_BGTK: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    hidden_BT: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(s q k + hidden) v, as transformers' implementations are called: out_B1HK. s is 1 / sqrt(K) by default.

    A sliding layer holds the last keys alone, of which the window lets the token see some.
    """
    rows, heads, _, size = query_BH1K.shape
    seen = min(key_BGTK.shape[2], sliding_window or key_BGTK.shape[2])
    key_CTK, value_CTK = (each[:, :, -seen:].flatten(0, 1) for each in (key_BGTK, value_BGTK))  # C = B G
    query_CRK = query_BH1K.reshape(len(key_CTK), -1, size)
    weight_CRT = torch.bmm(query_CRK, key_CTK.transpose(1, 2)).mul_(size**-0.5 if scaling is None else scaling)
    weight_CRT.view(rows, heads, seen).add_(hidden_BT[:, None, -seen:])
    out_CRK = torch.bmm(weight_CRT.softmax(dim=-1), value_CTK)
    return out_CRK.view(rows, 1, heads, -1), None


AttentionInterface.register(NAME, _attention)
