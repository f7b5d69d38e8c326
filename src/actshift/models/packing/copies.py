"""Layouts with changed copies: positions that are computed twice, as they are and changed for one prediction alone.

A method may change a token for the prediction of what follows it, while every later token sees it unchanged. Rather
than a pass for every such position, the rows are computed once without changes, and each such position once more as a
copy at the end of its row: it has the token and the position of the original, attends to the tokens before that one and
to itself, and nothing attends to it. So the copy's hidden states are those of the last token of a pass that ends with
it: they follow from the unchanged keys and values before it and from its own changed state, and from nothing else.

Shapes: A replicas, B rows of all replicas, T tokens of the longest row, V tokens and copies of the longest, N packed
tokens of a replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from actshift.models.packing.layout import Frame, PackedLayout, framed_rows, pack


def pack_with_copies(
    lengths: Sequence[int], *, copied: Sequence[range], replicas: int, shared: int, device: torch.device
) -> PackedLayout:
    """The layout of rows of these `lengths`, of each of which the positions `copied` stand a second time.

    The last hidden state is needed at the copies alone. Otherwise as `pack`.
    """
    sizes = [length + len(copies) for length, copies in zip(lengths, copied, strict=True)]
    found = pack(sizes, firsts=lengths, replicas=replicas, shared=shared, device=device)
    sizes_B1, lengths_B1 = (torch.tensor(each, device=device)[:, None] for each in (sizes, lengths))
    starts_B1 = torch.tensor([copies.start for copies in copied], device=device)[:, None]
    slot_BV = torch.minimum(torch.arange(max(sizes), device=device), sizes_B1 - 1)
    is_copy_BV = slot_BV >= lengths_B1
    place_BV = torch.where(is_copy_BV, slot_BV - lengths_B1 + starts_B1, slot_BV)

    place_BT = torch.minimum(torch.arange(max(lengths), device=device), lengths_B1 - 1)
    packed_index_BT = found.packed_index_BT.gather(1, place_BT)
    copy_BT = place_BT - starts_B1  # which copy of its row belongs to a position, negative before the first
    has_copy_BT = (copy_BT >= 0) & (copy_BT < sizes_B1 - lengths_B1)
    copy_index_BT = found.packed_index_BT.gather(1, (lengths_B1 + copy_BT).clamp(max=max(sizes) - 1))
    row_AN, slot_AN = found.source_AN // max(sizes), found.source_AN % max(sizes)
    place_AN = place_BV[row_AN, slot_AN]
    frames = [
        _with_sight(frame, place_BV[rows, : frame.tokens], is_copy_BV[rows, : frame.tokens])
        for frame, rows in zip(found.frames, framed_rows(sizes, device=device), strict=True)
    ]
    return replace(
        found,
        packed_index_BT=packed_index_BT,
        source_AN=row_AN * max(lengths) + place_AN,
        position_AN=place_AN,
        frames=frames,
        predictor_BT=torch.where(has_copy_BT, copy_index_BT, packed_index_BT),
        is_copy_AN=is_copy_BV[row_AN, slot_AN],
    )


def _with_sight(frame: Frame, place_BT: torch.Tensor, is_copy_BT: torch.Tensor) -> Frame:
    """A frame whose originals see originals up to themselves, and whose copies see those before them and themselves.

    Padding repeats a row's last slot, which is a copy: it sees what that one sees, and is seen by itself alone.
    """
    itself_TT = torch.eye(frame.tokens, dtype=torch.bool, device=place_BT.device)
    before_BTT = place_BT[:, None, :] < place_BT[:, :, None]
    return replace(frame, place_BT=place_BT, sees_BTT=(before_BTT & ~is_copy_BT[:, None, :]) | itself_TT)
