"""Causal attention within the rows of a packed layout, registered beside transformers' own implementations.

Shapes: A replicas, N packed tokens of a replica, L slots of all frames, B rows of a frame, T its tokens, Q of them that
have a query, H heads, K head size, F numbers of a position.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface

from actshift.libraries.private import attention_functions
from actshift.models.packing.layout import Frame, PackedLayout

PACKED = {"sdpa": "packed-sdpa", "eager": "packed-eager"}
"""Transformers' implementations of attention, and ours over each that spreads and gathers."""


def _attention(
    module: torch.nn.Module,
    query_AHNK: torch.Tensor,
    key_AHNK: torch.Tensor,
    value_AHNK: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    implementation: str,
    packing: PackedLayout,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within rows, as transformers' implementations are called: out_ANHK."""
    # Each model has its eager attention beside its modules.
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attend = attention_functions().get_interface(implementation, eager)
    sizes = [frame.rows * frame.tokens for frame in packing.frames]
    last = module.layer_idx == module.config.num_hidden_layers - 1  # type: ignore[union-attr, operator]
    framed = [_ToSlots.apply(each.transpose(1, 2), packing).split(sizes) for each in (query_AHNK, key_AHNK, value_AHNK)]
    found = []
    for frame, *parts in zip(packing.frames, *framed, strict=True):
        query_BHTK, key_BHTK, value_BHTK = (
            each.unflatten(0, (frame.rows, frame.tokens)).transpose(1, 2) for each in parts
        )
        # A causal kernel does half of all pairs; a mask that leaves out more is worth it.
        first = frame.first if last and 2 * frame.first >= frame.tokens else 0
        if first:
            query_BHTK = query_BHTK[:, :, first:].contiguous()  # kept for the backward pass: a view would keep all
        mask_B1QT = _mask(key_BHTK, sliding_window, frame=frame, first=first, always=implementation == "eager")
        found_BQHK, _ = attend(module, query_BHTK, key_BHTK, value_BHTK, mask_B1QT, **options)
        found.append(pad(found_BQHK, (0, 0, 0, 0, first, 0)).flatten(0, 1))
    return _FromSlots.apply(torch.cat(found) if len(found) > 1 else found[0], packing), None


def _mask(key_BHTK: torch.Tensor, window: int | None, *, frame: Frame, first: int, always: bool) -> torch.Tensor | None:
    """0 where a position looks, back to at most `window` positions with itself, and the type's least number elsewhere.

    Those that look are from the `first` on. None where each looks at all positions up to its own, unless a mask is
    `always` wanted: sdpa is causal without one. In a frame with copies each looks where the frame says.
    """
    tokens = key_BHTK.shape[2]
    if frame.sees_BTT is not None and frame.place_BT is not None:
        back_BQT = frame.place_BT[:, first:, None] - frame.place_BT[:, None, :]
        seen_BQT = frame.sees_BTT[:, first:] & (back_BQT < window if window else True)
    elif not first and not always and (window is None or tokens <= window):
        return None
    else:
        place_T = torch.arange(tokens, device=key_BHTK.device)
        back_BQT = (place_T[first:, None] - place_T)[None]
        seen_BQT = (back_BQT >= 0) & (back_BQT < (window or tokens))
    mask_BQT = torch.zeros_like(seen_BQT, dtype=key_BHTK.dtype)
    return mask_BQT.masked_fill(~seen_BQT, torch.finfo(key_BHTK.dtype).min)[:, None]


class _ToSlots(torch.autograd.Function):
    """Packed tokens [A, N, H, K] at the positions of frames [L, H, K]; what padding gets of gradient is not read."""

    @staticmethod
    def forward(context: Any, packed_ANHK: torch.Tensor, packing: PackedLayout) -> torch.Tensor:
        context.packing, context.shape = packing, packed_ANHK.shape
        return (
            packed_ANHK.flatten(0, 1)
            .flatten(1)
            .index_select(0, packing.token_of_slot_L)
            .unflatten(1, packed_ANHK.shape[2:])
        )

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        packing, grad_LF = context.packing, gradients[0].flatten(1)
        grad_ANF = grad_LF.index_select(0, packing.slot_of_token_AN.flatten()).unflatten(
            0, packing.slot_of_token_AN.shape
        )
        shared = packing.slots_of_shared_ASP.shape[2]
        if shared:
            copies_LF = grad_LF.index_select(0, packing.slots_of_shared_ASP.flatten())
            grad_ANF[:, :shared] = copies_LF.unflatten(0, packing.slots_of_shared_ASP.shape).sum(1)
        if packing.is_token_AN is not None:
            grad_ANF *= packing.is_token_AN[..., None]
        return grad_ANF.view(context.shape), None


class _FromSlots(torch.autograd.Function):
    """What stands at the homes of packed tokens, [A, N, H, K], of frames [L, H, K]."""

    @staticmethod
    def forward(context: Any, found_LHK: torch.Tensor, packing: PackedLayout) -> torch.Tensor:
        context.packing, context.shape = packing, found_LHK.shape
        packed_MF = found_LHK.flatten(1).index_select(0, packing.slot_of_token_AN.flatten())
        return packed_MF.view(*packing.slot_of_token_AN.shape, *found_LHK.shape[1:])

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad_MF = gradients[0].flatten(0, 1).flatten(1)
        filled_MF = torch.cat([grad_MF, grad_MF.new_zeros(1, grad_MF.shape[1])])
        return filled_MF.index_select(0, context.packing.owner_of_slot_L).view(context.shape), None


for _implementation, _name in PACKED.items():
    AttentionInterface.register(_name, partial(_attention, implementation=_implementation))
