"""Rows end to end in one sequence: every token is computed once, and nothing is padded but in attention.

What a decoder does outside attention it does token by token: rows need not be padded for it, and the first tokens that
all rows have in common (an instruction) need only be there once. Attention alone sees rows. There the packed tokens
are spread into frames of rows of about one length, padded on the right, and what it gives is gathered again.

Of the last layer only the keys and values are wanted of every token: what else it computes is computed at the tokens
whose last hidden state is read, from the one that predicts a row's first answer token on.

Shapes: A replicas, B rows of all replicas, T tokens of the longest row, N packed tokens of a replica, M of them read,
L positions of all frames, Q of them that look back, S rows of a replica, P tokens in common, H heads, K head size, F
numbers of a position.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import AttentionInterface, Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from actshift.models.arguments import cache_argument
from actshift.models.loading import Base

PACKED = {"sdpa": "packed-sdpa", "eager": "packed-eager"}
"""Transformers' implementations of attention, and ours over each that spreads and gathers."""
FRAME = {"cpu": 4096, "cuda": 65536}
"""What one more frame costs, in pairs of positions: measured with the smallest model on a CPU, an estimate for CUDA."""


MOST = 0.75
"""Where more than this share of tokens is read, the last layer computes all: choosing some costs copies of them."""


@dataclass(frozen=True)
class Frame:
    """So many rows of so many tokens; nothing is read before the position `first` of any."""

    rows: int
    tokens: int
    first: int


@dataclass(frozen=True)
class Packing:
    """Where the tokens of rows lie in packed sequences, one a replica, and in attention's frames.

    A sequence is the tokens that its rows have in common, then the rest of each row, then as much padding as makes the
    sequences of all replicas equally long. Places count through all sequences, positions through all frames.
    """

    place_BT: torch.Tensor
    """The place of each token of a row; padding has its last token's."""
    source_AN: torch.Tensor
    """Which of the B T tokens a packed one is; padding is the replica's first again."""
    position_AN: torch.Tensor
    """Where a packed token stands in its row."""
    spread_L: torch.Tensor
    """The place of the token at each position."""
    home_AN: torch.Tensor
    """The position that a packed token's result is taken from."""
    owner_L: torch.Tensor
    """As `spread_L` at the home of a packed token, and A N everywhere else."""
    shared_ASP: torch.Tensor
    """The positions of the tokens that the rows of a replica have in common."""
    real_AN: torch.Tensor | None
    """False at the padding of sequences; None where there is none."""
    read_AM: torch.Tensor | None
    """The places of the tokens that are read; where a replica has fewer than another, of some more. None: of all."""
    frames: list[Frame]

    def gather(self, values_BT: torch.Tensor) -> torch.Tensor:
        """The values of the packed tokens, values_AN."""
        return values_BT.flatten()[self.source_AN]


def pack(
    lengths: Sequence[int], *, firsts: Sequence[int] | None = None, replicas: int, shared: int, device: torch.device
) -> Packing:
    """The packing of rows of some `lengths`, in blocks of equal size, one a replica; each has `shared` first tokens.

    Of the last hidden state of a row, what stands from its place in `firsts` on is read: all where none are given.
    """
    firsts = [0] * len(lengths) if firsts is None else firsts
    lengths_B1 = torch.tensor(lengths)[:, None]
    rests_AS = (lengths_B1 - shared).view(replicas, -1)
    used_A1 = shared + rests_AS.sum(1, keepdim=True)
    width = int(used_A1.max())
    # Padding is a row's last token again, and never another replica's: what diverges there must not come here.
    place_BT = torch.minimum(torch.arange(max(lengths)), lengths_B1 - 1)
    token_BT = torch.arange(max(lengths)) < lengths_B1
    begin_AS = torch.arange(replicas)[:, None] * width + torch.zeros_like(rests_AS)
    rest_AS = begin_AS + rests_AS.cumsum(1) - rests_AS
    place_BT = place_BT + torch.where(place_BT < shared, begin_AS.view(-1, 1), rest_AS.view(-1, 1))
    # The first row of a replica has the common tokens as its own.
    own_BT = token_BT.clone()
    own_BT.unflatten(0, rests_AS.shape)[:, 1:, :shared] = False

    order, cuts = _frames(lengths, starting=FRAME[device.type])
    framed = [order[start:end] for start, end in pairwise(cuts)]
    frames = [Frame(len(rows), lengths[rows[-1]], min(firsts[row] for row in rows)) for rows in framed]
    token_L = torch.cat(  # which of the B T it is
        [_numbers(token_BT)[rows, : frame.tokens].flatten() for rows, frame in zip(framed, frames, strict=True)]
    )
    position_BT = torch.zeros_like(place_BT)
    position_BT.view(-1)[token_L] = torch.arange(len(token_L))

    def packed(values_BT: torch.Tensor) -> torch.Tensor:
        values_AN = values_BT.unflatten(0, (replicas, -1))[:, 0, :1].repeat(1, width)
        values_AN.view(-1)[place_BT[own_BT]] = values_BT[own_BT]
        return values_AN

    spread_L, own_L = place_BT.flatten()[token_L], own_BT.flatten()[token_L]
    real_AN = torch.arange(width) < used_A1
    packing = Packing(
        place_BT=place_BT,
        source_AN=packed(_numbers(place_BT)),
        position_AN=packed(torch.arange(max(lengths)).expand_as(place_BT)),
        spread_L=spread_L,
        home_AN=packed(position_BT),
        owner_L=torch.where(own_L, spread_L, replicas * width),
        shared_ASP=position_BT[:, :shared].unflatten(0, (replicas, -1)),
        real_AN=None if bool(real_AN.all()) else real_AN,
        read_AM=_read(place_BT[token_BT & (torch.arange(max(lengths)) >= torch.tensor(firsts)[:, None])], real_AN),
        frames=frames,
    )
    found = {field.name: getattr(packing, field.name) for field in fields(packing)}
    return Packing(**{name: _to(value, device) for name, value in found.items()})


def _read(places: torch.Tensor, real_AN: torch.Tensor) -> torch.Tensor | None:
    """The packed places that are among `places` in front, as many a replica; None where they are most of all."""
    read_AN = torch.zeros_like(real_AN)
    read_AN.view(-1)[places] = True
    if int(read_AN.sum(1).max()) > MOST * read_AN.shape[1]:
        return None
    return in_front(read_AN)[0]


def in_front(chosen_AN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places that are chosen, by replica and in their order, counting through all replicas, and whether they are.

    Where a replica has fewer than another, places that are not chosen follow.
    """
    most = int(chosen_AN.sum(1).max())
    found_AM, order_AM = chosen_AN.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    first_A1 = torch.arange(len(chosen_AN), device=chosen_AN.device)[:, None] * chosen_AN.shape[1]
    return (order_AM + first_A1)[:, :most], found_AM[:, :most].bool()


def _numbers(values: torch.Tensor) -> torch.Tensor:
    return torch.arange(values.numel()).view_as(values)


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


def _frames(lengths: Sequence[int], *, starting: int) -> tuple[list[int], list[int]]:
    """Row numbers from short to long, and where to cut them: a frame costs its pairs of positions and `starting`."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cheapest = [(0, 0)]  # the cost of what lies before a place, and the last cut before it
    for end, row in enumerate(order, start=1):
        pairs = lengths[row] ** 2
        cheapest.append(min((cheapest[start][0] + (end - start) * pairs + starting, start) for start in range(end)))
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


def packed_hidden(
    base: Base, ids_BT: torch.Tensor, packing: Packing, *, cache: Cache | None = None, **options: Any
) -> torch.Tensor:
    """The decoder's last hidden state at the packed tokens of rows, hidden_AND: right where the packing has it read.

    Keys and values are added to a `cache` where one is given.
    """
    decoder = base.model.get_decoder()
    if cache is not None:
        options |= {cache_argument(decoder): cache, "use_cache": True}
    with packed_passes(base):
        hidden_AND: torch.Tensor = decoder(
            input_ids=packing.gather(ids_BT), position_ids=packing.position_AN, packing=packing, **options
        ).last_hidden_state
    return hidden_AND


@contextmanager
def packed_passes(base: Base) -> Iterator[None]:
    """The model's attention by rows of a packing, its last layer where it is read, for passes that have a packing.

    A backward pass that recomputes is one of them.
    """
    config = base.model.config
    before = config._attn_implementation
    if before in PACKED.values():
        yield
        return
    config._attn_implementation = PACKED.get(before, before)
    last = _LastLayer(*base.sites.last)
    try:
        yield
    finally:
        last.detach()
        config._attn_implementation = before


class _LastLayer:
    """The tokenwise modules of the last layer, called with the tokens that are read; 0 is their result at others.

    Changes that a method makes to what goes into a module or comes out of it see all tokens.
    """

    def __init__(self, layer: nn.Module, modules: Sequence[nn.Module]) -> None:
        self._packing: Packing | None = None
        self._hooks = [layer.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for module in modules:
            self._hooks += [
                module.register_forward_pre_hook(self._choose),
                module.register_forward_hook(self._place, prepend=True),
            ]

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, _: nn.Module, __: object, options: dict[str, Any]) -> None:
        self._packing = options.get("packing")

    def _choose(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._packing is None or self._packing.read_AM is None:
            return None
        read_AM = self._packing.read_AM
        return (inputs[0].flatten(0, 1).index_select(0, read_AM.flatten()).unflatten(0, read_AM.shape), *inputs[1:])

    def _place(self, _: nn.Module, __: object, found_AMF: torch.Tensor) -> torch.Tensor | None:
        if self._packing is None or self._packing.read_AM is None:
            return None
        shape_AN = self._packing.source_AN.shape
        all_NF = found_AMF.new_zeros(shape_AN.numel(), found_AMF.shape[-1])
        all_NF = all_NF.index_copy(0, self._packing.read_AM.flatten(), found_AMF.flatten(0, 1))
        return all_NF.unflatten(0, shape_AN)


def _attention(
    module: torch.nn.Module,
    query_AHNK: torch.Tensor,
    key_AHNK: torch.Tensor,
    value_AHNK: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    implementation: str,
    packing: Packing,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within rows, as transformers' implementations are called: out_ANHK."""
    # Each model has its eager attention beside its modules.
    eager = sys.modules[type(module).__module__].eager_attention_forward
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
    sizes = [frame.rows * frame.tokens for frame in packing.frames]
    last = module.layer_idx == module.config.num_hidden_layers - 1  # type: ignore[union-attr, operator]
    framed = [_Spread.apply(each.transpose(1, 2), packing).split(sizes) for each in (query_AHNK, key_AHNK, value_AHNK)]
    found = []
    for frame, *parts in zip(packing.frames, *framed, strict=True):
        query_BHTK, key_BHTK, value_BHTK = (
            each.unflatten(0, (frame.rows, frame.tokens)).transpose(1, 2) for each in parts
        )
        # A causal kernel does half of all pairs; a mask that leaves out more is worth it.
        first = frame.first if last and 2 * frame.first >= frame.tokens else 0
        if first:
            query_BHTK = query_BHTK[:, :, first:].contiguous()  # kept for the backward pass: a view would keep all
        mask_11QT = _mask(key_BHTK, sliding_window, first=first, always=implementation == "eager")
        found_BQHK, _ = attend(module, query_BHTK, key_BHTK, value_BHTK, mask_11QT, **options)
        found.append(pad(found_BQHK, (0, 0, 0, 0, first, 0)).flatten(0, 1))
    return _Gather.apply(torch.cat(found) if len(found) > 1 else found[0], packing), None


def _mask(key_BHTK: torch.Tensor, window: int | None, *, first: int, always: bool) -> torch.Tensor | None:
    """0 where a position looks, back to at most `window` positions with itself, and the type's least number elsewhere.

    Those that look are from the `first` on. None where each looks at all positions up to its own, unless a mask is
    `always` wanted: sdpa is causal without one.
    """
    tokens = key_BHTK.shape[2]
    if not first and not always and (window is None or tokens <= window):
        return None
    place_T = torch.arange(tokens, device=key_BHTK.device)
    back_QT = place_T[first:, None] - place_T
    seen_QT = (back_QT >= 0) & (back_QT < (window or tokens))
    mask_QT = torch.zeros_like(seen_QT, dtype=key_BHTK.dtype)
    return mask_QT.masked_fill(~seen_QT, torch.finfo(key_BHTK.dtype).min)[None, None]


class _Spread(torch.autograd.Function):
    """Packed tokens [A, N, H, K] at the positions of frames [L, H, K]; what padding gets of gradient is not read."""

    @staticmethod
    def forward(context: Any, packed_ANHK: torch.Tensor, packing: Packing) -> torch.Tensor:
        context.packing, context.shape = packing, packed_ANHK.shape
        return (
            packed_ANHK.flatten(0, 1).flatten(1).index_select(0, packing.spread_L).unflatten(1, packed_ANHK.shape[2:])
        )

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        packing, grad_LF = context.packing, gradients[0].flatten(1)
        grad_ANF = grad_LF.index_select(0, packing.home_AN.flatten()).unflatten(0, packing.home_AN.shape)
        shared = packing.shared_ASP.shape[2]
        if shared:
            copies_LF = grad_LF.index_select(0, packing.shared_ASP.flatten())
            grad_ANF[:, :shared] = copies_LF.unflatten(0, packing.shared_ASP.shape).sum(1)
        if packing.real_AN is not None:
            grad_ANF *= packing.real_AN[..., None]
        return grad_ANF.view(context.shape), None


class _Gather(torch.autograd.Function):
    """What stands at the homes of packed tokens, [A, N, H, K], of frames [L, H, K]."""

    @staticmethod
    def forward(context: Any, found_LHK: torch.Tensor, packing: Packing) -> torch.Tensor:
        context.packing, context.shape = packing, found_LHK.shape
        packed_MF = found_LHK.flatten(1).index_select(0, packing.home_AN.flatten())
        return packed_MF.view(*packing.home_AN.shape, *found_LHK.shape[1:])

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad_MF = gradients[0].flatten(0, 1).flatten(1)
        filled_MF = torch.cat([grad_MF, grad_MF.new_zeros(1, grad_MF.shape[1])])
        return filled_MF.index_select(0, context.packing.owner_L).view(context.shape), None


for _implementation, _name in PACKED.items():
    AttentionInterface.register(_name, partial(_attention, implementation=_implementation))
