"""Attention of one new token a row over its cached keys: what every step of generation computes.

torch's fused kernel for a CPU is made for many queries. With one query a row its two products are faster as batched
products. The numbers are the same within rounding. Keys and values may lie in blocks of rows, each as long as its
longest.

Shapes: B rows, b rows of a block, H query heads, G key/value heads, R = H / G, T keys, t keys of a block, C = b G,
K head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    keys: torch.Tensor | Sequence[torch.Tensor],
    values: torch.Tensor | Sequence[torch.Tensor],
    attention_mask: torch.Tensor | None,
    *,
    hidden_BT: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """softmax((s q) k + hidden) v, as transformers' implementations are called: out_B1HK. s is 1 / sqrt(K) by default.

    Keys and values are [B, G, T, K], or a sequence of blocks [b, G, t, K]. All rows end at the last key. A sliding
    layer holds the last keys alone, of which the window lets the token see some.
    """
    rows, heads, _, size = query_BH1K.shape
    query_BHK = query_BH1K[:, :, 0] * (size**-0.5 if scaling is None else scaling)
    key_blocks, value_blocks = _blocks(keys), _blocks(values)
    out_BHK, end = query_BHK.new_empty(rows, heads, value_blocks[0].shape[-1]), 0
    for key_bGtK, value_bGtK in zip(key_blocks, value_blocks, strict=True):
        start, end = end, end + len(key_bGtK)
        seen = min(key_bGtK.shape[2], sliding_window or key_bGtK.shape[2])
        key_CtK, value_CtK = (each[:, :, -seen:].flatten(0, 1) for each in (key_bGtK, value_bGtK))
        weight_CRt = torch.bmm(query_BHK[start:end].view(len(key_CtK), -1, size), key_CtK.transpose(1, 2))
        weight_CRt.view(-1, heads, seen).add_(hidden_BT[start:end, None, -seen:])
        out_CRK = out_BHK[start:end].view(*weight_CRt.shape[:2], -1)
        torch.bmm(weight_CRt.softmax(dim=-1), value_CtK, out=out_CRK)
    return out_BHK[:, None], None


def _blocks(states: torch.Tensor | Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return [states] if isinstance(states, torch.Tensor) else states


AttentionInterface.register(NAME, _attention)
