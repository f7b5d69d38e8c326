"""The key/value cache of rows that were read end to end, with room for the tokens to come.

Shapes: A replicas, N packed tokens, B rows, H key/value heads, T tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
            self._store = [pad(each, (0, 0, 0, missing + SPARE_TOKENS)) for each in self._store]
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


def rows_cache(parts: Sequence[Part], *, config: PreTrainedConfig, new_tokens: int) -> DynamicCache:
    """One cache of all rows from those of packed passes, which are emptied. All rows end at the last position.

    At most `new_tokens` will follow.
    """
    found = DynamicCache(config=config)
    for number, layer in enumerate(found.layers):
        assert isinstance(layer, DynamicLayer), f"no way to fill a cache of {type(layer).__name__}"
        # A sliding layer cuts what it holds by its length, so it gets no room.
        room = 0 if layer.is_sliding else min(SPARE_TOKENS, new_tokens)
        keys_BHTK, values_BHTK = (_rows(parts, number, name, room=room) for name in ("keys", "values"))
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


def _rows(parts: Sequence[Part], number: int, name: str, *, room: int) -> torch.Tensor:
    """Keys or values of a layer by rows, [B, H, T, K], followed by `room` free positions."""
    rows, width = sum(len(part.indices) for part in parts), max(part.packing.packed_index_BT.shape[1] for part in parts)
    store_BHTK = None
    for part in parts:
        packed_AHNK = getattr(part.cache.layers[number], name)
        setattr(part.cache.layers[number], name, None)
        if store_BHTK is None:
            store_BHTK = packed_AHNK.new_empty(rows, packed_AHNK.shape[1], width + room, packed_AHNK.shape[3])
        rows_BTHK = packed_AHNK.transpose(1, 2).flatten(0, 1)[part.left_BT]
        indices_B = torch.tensor(part.indices, device=packed_AHNK.device)
        start = width - rows_BTHK.shape[1]
        store_BHTK[indices_B, :, :start] = 0  # its weight is 0, which makes 0 of numbers alone
        store_BHTK[indices_B, :, start:width] = rows_BTHK.transpose(1, 2)
    assert store_BHTK is not None
    return store_BHTK
