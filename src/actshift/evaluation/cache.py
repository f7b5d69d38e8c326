"""The key/value cache of rows that were read end to end, with room for the tokens to come.

Shapes: A replicas, N packed tokens of a replica, S of all, B rows, b rows of a block, H key/value heads, T tokens, t
tokens of a block's longest row, K head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from actshift.evaluation.limits import SPARE_TOKENS
from actshift.models.packing.layout import PackedLayout


@dataclass(frozen=True)
class Block:
    """Keys and values of some rows, which end at one position: the first `held` of [b, H, t, K], and room behind."""

    keys_bHtK: torch.Tensor
    values_bHtK: torch.Tensor
    held: int

    @property
    def rows(self) -> int:
        return len(self.keys_bHtK)

    @property
    def filled(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys_bHtK[:, :, : self.held], self.values_bHtK[:, :, : self.held]

    def with_tokens(self, keys_bHtK: torch.Tensor, values_bHtK: torch.Tensor) -> Block:
        """The block with further tokens, which are written into its room where there is some."""
        held = self.held + keys_bHtK.shape[-2]
        missing = held - self.keys_bHtK.shape[-2]
        keys, values = self.keys_bHtK, self.values_bHtK
        if missing > 0:
            keys, values = (
                _longer(each, missing + max(SPARE_TOKENS, self.held // 4), held=self.held) for each in (keys, values)
            )
        keys[:, :, self.held : held], values[:, :, self.held : held] = keys_bHtK, values_bHtK
        return Block(keys, values, held)

    def of_rows(self, indices_b: torch.Tensor) -> Block:
        return Block(self.keys_bHtK[indices_b], self.values_bHtK[indices_b], self.held)


class PreallocatedLayer(DynamicLayer):
    """A layer of a cache into which a token is written; transformers' own copies the whole layer for every token.

    Its rows lie in blocks, one after the other. Attention gets the keys of all as one tensor where there is one block,
    and otherwise as a sequence of the blocks', as `one_token` takes it; values alike.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.lazy_initialization(blocks[0].keys_bHtK, blocks[0].values_bHtK)
        self._blocks = tuple(blocks)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> Any:
        sizes = [block.rows for block in self._blocks]
        states = zip(self._blocks, key_states.split(sizes), value_states.split(sizes), strict=True)
        self._blocks = tuple(block.with_tokens(keys, values) for block, keys, values in states)
        filled = [block.filled for block in self._blocks]
        return filled[0] if len(filled) == 1 else tuple(zip(*filled, strict=True))

    def get_seq_length(self) -> int:
        return max(block.held for block in self._blocks)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in their order, some of them several times."""
        assert bool((indices[1:] >= indices[:-1]).all()), "rows of a block stay together"
        kept, first = [], 0
        for block in self._blocks:
            indices_b = indices[(indices >= first) & (indices < first + block.rows)] - first
            first += block.rows
            if len(indices_b):
                kept.append(block.of_rows(indices_b))
        self._blocks = tuple(kept)


@dataclass(frozen=True)
class Part:
    """Rows that were read end to end: their indices, how they lie, their lengths, and what the pass cached."""

    indices: Sequence[int]
    packing: PackedLayout
    lengths_B: torch.Tensor
    cache: DynamicCache

    @property
    def left_BT(self) -> torch.Tensor:
        """The packed position of each token of rows that all end at the last position; padding has the first's."""
        tokens = self.packing.packed_index_BT.shape[1]
        back_BT = torch.arange(tokens, device=self.lengths_B.device) - (tokens - self.lengths_B)[:, None]
        return self.packing.packed_index_BT.gather(1, back_BT.clamp(min=0))


@dataclass(frozen=True)
class _Places:
    """Where the tokens of all rows stand among the packed tokens of all parts, laid end to end: [replica, head, token].

    A token that is number n of its replica's N tokens stands at ``H first + h N + n`` for head h, where `first` counts
    the tokens of the replicas before. Padding before a row and room after it have places of tokens of the same part:
    padding has the weight 0, and room is written to before it is looked at.
    """

    first_BT: torch.Tensor
    number_BT: torch.Tensor
    tokens_B: torch.Tensor

    @classmethod
    def of(cls, parts: Sequence[Part], *, room: int) -> _Places:
        rows = sum(len(part.indices) for part in parts)
        width = max(part.packing.packed_index_BT.shape[1] for part in parts)
        device = parts[0].lengths_B.device
        first_BT, number_BT = (torch.empty(rows, width + room, dtype=torch.long, device=device) for _ in range(2))
        tokens_B = torch.empty(rows, dtype=torch.long, device=device)
        before = 0
        for part in parts:
            replicas, tokens = part.packing.position_AN.shape
            left_BT, indices_B = part.left_BT, torch.tensor(part.indices, device=device)
            padded_BT = pad(left_BT[None], (width - left_BT.shape[1], room), mode="replicate")[0]
            first_BT[indices_B] = before + padded_BT // tokens * tokens
            number_BT[indices_B], tokens_B[indices_B] = padded_BT % tokens, tokens
            before += replicas * tokens
        return cls(first_BT, number_BT, tokens_B)

    def of_heads(self, heads: int) -> torch.Tensor:
        """(B, H, T): the places of every head's keys."""
        head_H1 = torch.arange(heads, device=self.tokens_B.device)[:, None]
        return heads * self.first_BT[:, None] + head_H1 * self.tokens_B[:, None, None] + self.number_BT[:, None]


def rows_cache(
    parts: Sequence[Part],
    *,
    config: PreTrainedConfig,
    lengths_B: torch.Tensor,
    new_tokens: int,
    blocks: Sequence[slice],
) -> DynamicCache:
    """One cache of all rows from those of packed passes, which are emptied. All rows end at the last position.

    `lengths_B` are the tokens of each row, `blocks` the rows of each block, in order. At most `new_tokens` will follow.
    """
    found = DynamicCache(config=config)
    places: dict[tuple[int, int], list[torch.Tensor]] = {}  # by heads and room: most models have one of each
    for number, layer in enumerate(found.layers):
        assert isinstance(layer, DynamicLayer), f"no way to fill a cache of {type(layer).__name__}"
        # A sliding layer cuts what it holds by its length, so it gets no room and is whole.
        room = 0 if layer.is_sliding else min(SPARE_TOKENS, new_tokens)
        heads = _heads(parts[0].cache.layers[number])
        if (heads, room) not in places:
            places_BHT = _Places.of(parts, room=room).of_heads(heads)
            cut = [slice(None)] if layer.is_sliding else blocks
            places[heads, room] = [places_BHT[rows, :, -int(lengths_B[rows].max()) - room :] for rows in cut]
        keys, values = (_rows(parts, number, name, places[heads, room]) for name in ("keys", "values"))
        if layer.is_sliding:
            layer.update(keys[0], values[0])
        else:
            filled = zip(keys, values, strict=True)
            found.layers[number] = PreallocatedLayer([Block(*each, each[0].shape[2] - room) for each in filled])
    return found


@contextmanager
def forgetting(cache: DynamicCache) -> Iterator[None]:
    """Passes whose keys and values leave the cache again: afterwards it holds what it held before."""
    before = [dict(vars(layer)) for layer in cache.layers]
    try:
        yield
    finally:
        for layer, held in zip(cache.layers, before, strict=True):
            vars(layer).update(held)


def _heads(filled: Any) -> int:
    """The key/value heads of a layer of a cache that holds tokens."""
    return int(filled.keys.shape[1])


def _rows(parts: Sequence[Part], number: int, name: str, places: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Keys or values of a layer by rows, [b, H, t, K] for each block's places [b, H, t]."""
    layers = [part.cache.layers[number] for part in parts]
    packed_SK = torch.cat([getattr(layer, name).flatten(0, 2) for layer in layers])
    for layer in layers:
        setattr(layer, name, None)
    return [packed_SK.index_select(0, each.flatten()).unflatten(0, each.shape) for each in places]


def _longer(store_BHTK: torch.Tensor, more: int, *, held: int) -> torch.Tensor:
    """The first `held` positions of a store, and room for `more` beyond its end."""
    rows, heads, tokens, size = store_BHTK.shape
    longer_BHTK = store_BHTK.new_empty(rows, heads, tokens + more, size)
    longer_BHTK[:, :, :held] = store_BHTK[:, :, :held]
    return longer_BHTK
