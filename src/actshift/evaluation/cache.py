"""The key/value cache of rows that were read end to end, with room for the tokens to come.

Shapes: A replicas, N packed tokens of a replica, S of all, B rows, H key/value heads, T tokens, K head size.
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


class PreallocatedLayer(DynamicLayer):
    """A layer of a cache into which a token is written; transformers' own copies the whole layer for every token."""

    def __init__(self, keys_BHTK: torch.Tensor, values_BHTK: torch.Tensor, *, held: int) -> None:
        super().__init__()
        self.lazy_initialization(keys_BHTK, values_BHTK)
        self._held = held
        self._store = [keys_BHTK, values_BHTK]
        self._show()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self._held
        self._held += key_states.shape[-2]
        missing = self._held - self._store[0].shape[-2]
        if missing > 0:
            self._store = [_longer(each, missing + SPARE_TOKENS, held=start) for each in self._store]
        for store, states in zip(self._store, (key_states, value_states), strict=True):
            store[:, :, start : self._held] = states
        return self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._store = [each[indices] for each in self._store]
        self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys_BHTK, values_BHTK = (each[:, :, : self._held] for each in self._store)
        self.keys, self.values = keys_BHTK, values_BHTK
        return keys_BHTK, values_BHTK


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


def rows_cache(parts: Sequence[Part], *, config: PreTrainedConfig, new_tokens: int) -> DynamicCache:
    """One cache of all rows from those of packed passes, which are emptied. All rows end at the last position.

    At most `new_tokens` will follow.
    """
    found = DynamicCache(config=config)
    places: dict[tuple[int, int], torch.Tensor] = {}  # by heads and room: most models have one of each
    for number, layer in enumerate(found.layers):
        assert isinstance(layer, DynamicLayer), f"no way to fill a cache of {type(layer).__name__}"
        # A sliding layer cuts what it holds by its length, so it gets no room.
        room = 0 if layer.is_sliding else min(SPARE_TOKENS, new_tokens)
        heads = _heads(parts[0].cache.layers[number])
        if (heads, room) not in places:
            places[heads, room] = _Places.of(parts, room=room).of_heads(heads)
        keys_BHTK, values_BHTK = (_rows(parts, number, name, places[heads, room]) for name in ("keys", "values"))
        if layer.is_sliding:
            layer.update(keys_BHTK, values_BHTK)
        else:
            found.layers[number] = PreallocatedLayer(keys_BHTK, values_BHTK, held=keys_BHTK.shape[-2] - room)
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


def _rows(parts: Sequence[Part], number: int, name: str, places_BHT: torch.Tensor) -> torch.Tensor:
    """Keys or values of a layer by rows, [B, H, T, K]."""
    layers = [part.cache.layers[number] for part in parts]
    packed_SK = torch.cat([getattr(layer, name).flatten(0, 2) for layer in layers])
    for layer in layers:
        setattr(layer, name, None)
    return packed_SK.index_select(0, places_BHT.flatten()).unflatten(0, places_BHT.shape)


def _longer(store_BHTK: torch.Tensor, more: int, *, held: int) -> torch.Tensor:
    """The first `held` positions of a store, and room for `more` beyond its end."""
    rows, heads, tokens, size = store_BHTK.shape
    longer_BHTK = store_BHTK.new_empty(rows, heads, tokens + more, size)
    longer_BHTK[:, :, :held] = store_BHTK[:, :, :held]
    return longer_BHTK
