"""How rows lie end to end in one sequence, as indices alone: no module is called here.

Every token is computed once: rows are not padded, and the first tokens that all rows have in common (an instruction)
stand in the sequence once. Attention alone must see rows: for it, packed tokens are copied into frames, each of which
holds rows of about one length, padded on the right. A position in a frame is a slot.

An example: two rows "a b c" and "a d" of one replica have P = 1 token in common. Their packed sequence is "a b c d"
(N = 4), and in one frame, the shorter row first, the slots are "a d (padding) / a b c" (L = 6). Then

    packed_index_BT       [[0, 1, 2], [0, 3, 3]]
    token_of_slot_L       [0, 3, 3, 0, 1, 2]
    slot_of_token_AN      [[3, 4, 5, 1]]
    slots_of_shared_ASP   [[[3], [0]]]

Shapes: A replicas, B rows of all replicas, T tokens of the longest row, N packed tokens of a replica, M of them needed,
L slots of all frames, S rows of a replica, P tokens in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch

FRAME_OVERHEAD_PAIRS = {"cpu": 4096, "cuda": 65536}
"""What one more frame costs, in pairs of positions: measured with the smallest model on a CPU, an estimate for CUDA."""


COMPUTE_ALL_ABOVE_SHARE = 0.75
"""Where more than this share of tokens is read, the last layer computes all: choosing some costs copies of them."""


@dataclass(frozen=True)
class Frame:
    """Rows of a common padded length, in tokens. No result is needed before the position `first` of any of them."""

    rows: int
    tokens: int
    first: int
    place_BT: torch.Tensor | None = None
    """The position in its row of the token in each slot, where some are copies; None: slots are in order."""
    sees_BTT: torch.Tensor | None = None
    """Which slots each slot attends to, where some are copies; None: those before it and itself."""


@dataclass(frozen=True)
class PackedLayout:
    """Where the tokens of rows lie in packed sequences, one a replica, and in attention's frames.

    A sequence is the tokens that its rows have in common, then the rest of each row, then as much padding as makes the
    sequences of all replicas equally long. Packed indices count through all sequences, slots through all
    frames.
    """

    packed_index_BT: torch.Tensor
    """The packed index of each token of a row; padding has that of the row's last token."""
    source_AN: torch.Tensor
    """Which of the B T tokens of the rows each packed token is; padding repeats the first token of its replica."""
    position_AN: torch.Tensor
    """The position of each packed token in its row, which rotary embeddings need."""
    token_of_slot_L: torch.Tensor
    """The packed index of the token in each slot."""
    slot_of_token_AN: torch.Tensor
    """The slot from which the result of each packed token is taken; a shared token has one in every row."""
    owner_of_slot_L: torch.Tensor
    """As `token_of_slot_L` in the slots from which results are taken, and A N in all others: their gradient is zero."""
    slots_of_shared_ASP: torch.Tensor
    """The slots of the tokens that the rows of a replica have in common, in each of its rows."""
    is_token_AN: torch.Tensor | None
    """False at the padding of sequences; None where there is no padding."""
    needed_AM: torch.Tensor | None
    """Packed indices of the tokens whose last hidden state is needed; a replica that has fewer than another is filled
    up with others. None: all are needed."""
    frames: list[Frame]
    predictor_BT: torch.Tensor
    """The packed index of the hidden state that predicts what follows a token: the token's, or its copy's."""
    is_copy_AN: torch.Tensor | None = None
    """True at changed copies; None where there are none."""

    def gather(self, values_BT: torch.Tensor) -> torch.Tensor:
        """Values of the tokens of rows, at the packed tokens: values_AN."""
        return values_BT.flatten()[self.source_AN]


def pack(
    lengths: Sequence[int], *, firsts: Sequence[int] | None = None, replicas: int, shared: int, device: torch.device
) -> PackedLayout:
    """The layout of rows of these `lengths`, in blocks of equal size, one for each replica.

    All rows of a replica have `shared` first tokens in common. The last hidden state of a row is needed from its
    position in `firsts` on, everywhere where none are given.
    """
    firsts = [0] * len(lengths) if firsts is None else firsts
    lengths_B1 = torch.tensor(lengths)[:, None]
    rests_AS = (lengths_B1 - shared).view(replicas, -1)
    used_A1 = shared + rests_AS.sum(1, keepdim=True)
    width = int(used_A1.max())
    # Padding repeats the row's last token and never one of another replica: a diverged replica must not reach others.
    packed_index_BT = torch.minimum(torch.arange(max(lengths)), lengths_B1 - 1)
    token_BT = torch.arange(max(lengths)) < lengths_B1
    begin_AS = torch.arange(replicas)[:, None] * width + torch.zeros_like(rests_AS)
    rest_AS = begin_AS + rests_AS.cumsum(1) - rests_AS
    packed_index_BT = packed_index_BT + torch.where(packed_index_BT < shared, begin_AS.view(-1, 1), rest_AS.view(-1, 1))
    # Only the first row of a replica brings the common tokens into the sequence.
    placed_BT = token_BT.clone()
    placed_BT.unflatten(0, rests_AS.shape)[:, 1:, :shared] = False

    framed = framed_rows(lengths, device=device)
    frames = [Frame(len(rows), lengths[rows[-1]], min(firsts[row] for row in rows)) for rows in framed]
    token_L = torch.cat(  # which of the B T it is
        [_index_like(token_BT)[rows, : frame.tokens].flatten() for rows, frame in zip(framed, frames, strict=True)]
    )
    position_BT = torch.zeros_like(packed_index_BT)
    position_BT.view(-1)[token_L] = torch.arange(len(token_L))

    def packed(values_BT: torch.Tensor) -> torch.Tensor:
        values_AN = values_BT.unflatten(0, (replicas, -1))[:, 0, :1].repeat(1, width)
        values_AN.view(-1)[packed_index_BT[placed_BT]] = values_BT[placed_BT]
        return values_AN

    token_of_slot_L, placed_L = packed_index_BT.flatten()[token_L], placed_BT.flatten()[token_L]
    is_token_AN = torch.arange(width) < used_A1
    packing = PackedLayout(
        packed_index_BT=packed_index_BT,
        source_AN=packed(_index_like(packed_index_BT)),
        position_AN=packed(torch.arange(max(lengths)).expand_as(packed_index_BT)),
        token_of_slot_L=token_of_slot_L,
        slot_of_token_AN=packed(position_BT),
        owner_of_slot_L=torch.where(placed_L, token_of_slot_L, replicas * width),
        slots_of_shared_ASP=position_BT[:, :shared].unflatten(0, (replicas, -1)),
        is_token_AN=None if bool(is_token_AN.all()) else is_token_AN,
        needed_AM=_needed(
            packed_index_BT[token_BT & (torch.arange(max(lengths)) >= torch.tensor(firsts)[:, None])], is_token_AN
        ),
        frames=frames,
        predictor_BT=packed_index_BT,
    )
    found = {field.name: getattr(packing, field.name) for field in fields(packing)}
    return PackedLayout(**{name: _to(value, device) for name, value in found.items()})


def _needed(positions: torch.Tensor, is_token_AN: torch.Tensor) -> torch.Tensor | None:
    """The packed positions that are among `positions` in front, as many a replica; None where they are most of all."""
    read_AN = torch.zeros_like(is_token_AN)
    read_AN.view(-1)[positions] = True
    if int(read_AN.sum(1).max()) > COMPUTE_ALL_ABOVE_SHARE * read_AN.shape[1]:
        return None
    return compact_true_indices(read_AN)[0]


def compact_true_indices(chosen_AN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The positions that are chosen, by replica, in order, counting through all replicas, and whether they are.

    Where a replica has fewer than another, positions that are not chosen follow.
    """
    most = int(chosen_AN.sum(1).max())
    found_AM, order_AM = chosen_AN.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    first_A1 = torch.arange(len(chosen_AN), device=chosen_AN.device)[:, None] * chosen_AN.shape[1]
    return (order_AM + first_A1)[:, :most], found_AM[:, :most].bool()


def _index_like(values: torch.Tensor) -> torch.Tensor:
    return torch.arange(values.numel()).view_as(values)


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def framed_rows(lengths: Sequence[int], *, device: torch.device) -> list[list[int]]:
    """The numbers of the rows in each frame of attention."""
    order, cuts = _frames(lengths, overhead=FRAME_OVERHEAD_PAIRS[device.type])
    return [order[start:end] for start, end in pairwise(cuts)]


def _frames(lengths: Sequence[int], *, overhead: int) -> tuple[list[int], list[int]]:
    """Row numbers from short to long, and where to cut them: a frame costs its pairs of positions and `starting`."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cheapest = [(0, 0)]  # the cost of what lies before a position, and the last cut before it
    for end, row in enumerate(order, start=1):
        pairs = lengths[row] ** 2
        cheapest.append(min((cheapest[start][0] + (end - start) * pairs + overhead, start) for start in range(end)))
    cuts = [len(order)]
    while cuts[-1] > 0:
        cuts.append(cheapest[cuts[-1]][1])
    return order, cuts[::-1]


def common_prefix(rows: Sequence[Sequence[int]], *, replicas: int) -> int:
    """How many first tokens the rows of each replica have in common."""
    size = len(rows) // replicas
    blocks = [[list(row) for row in rows[start : start + size]] for start in range(0, len(rows), size)]
    # What the first and the last of sorted rows share, all share.
    ends = [(min(block), max(block)) for block in blocks]
    return min(
        next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
        for first, last in ends
    )
