"""Key/value caches of groups of prompts put together, with room for the tokens to come.

Shapes: B rows, H key/value heads, T tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 32
"""Tokens that a layer has room for beyond those it holds: it is copied once in so many tokens."""


class Roomy(DynamicLayer):
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
            self._store = [pad(each, (0, 0, 0, missing + ROOM)) for each in self._store]
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


def merged(parts: Sequence[tuple[Sequence[int], DynamicCache]], *, rows: int) -> DynamicCache:
    """One cache of all `rows` from those of groups of rows (their places, their cache), which are emptied.

    All rows end at the last position, as behind padding on the left: what a shorter group lacks before is zeros.
    """
    places = [own for own, _ in parts]
    longest = max((cache for _, cache in parts), key=lambda cache: int(cache.get_seq_length()))
    for number in range(len(longest.layers)):
        layers = [_layer(cache, number) for _, cache in parts]
        layer = _layer(longest, number)
        # A sliding layer cuts what it holds by its length, so it gets no room.
        room = 0 if layer.is_sliding else ROOM
        stores = []
        for name in ("keys", "values"):
            stores.append(_aligned([getattr(each, name) for each in layers], places, rows=rows, room=room))
            for each in layers:
                setattr(each, name, None)
        if layer.is_sliding:
            layer.keys, layer.values = stores
        else:
            longest.layers[number] = Roomy(stores[0], stores[1], held=stores[0].shape[-2] - room)
    return longest


def _layer(cache: DynamicCache, number: int) -> DynamicLayer:
    layer = cache.layers[number]
    assert isinstance(layer, DynamicLayer), f"no way to put caches of {type(layer).__name__} together"
    return layer


def _aligned(tensors: Sequence[torch.Tensor], places: Sequence[Sequence[int]], *, rows: int, room: int) -> torch.Tensor:
    """Tensors [B, H, T, K] at their places among `rows` rows, ending at the same position, `room` positions behind."""
    width = max(tensor.shape[-2] for tensor in tensors)
    first = tensors[0]
    store_BHTK = first.new_zeros(rows, first.shape[1], width + room, first.shape[3])
    for tensor, own in zip(tensors, places, strict=True):
        own_B = torch.tensor(own, device=first.device)
        store_BHTK[own_B, :, width - tensor.shape[-2] : width] = tensor
    return store_BHTK
