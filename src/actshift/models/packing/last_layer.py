"""Forward passes over packed rows. Of the last layer only keys and values are computed for every token.

Whatever else the last layer computes is computed at the tokens whose last hidden state is needed: those from the one
that predicts a row's first answer token on.

Shapes: A replicas, B rows, T tokens, N packed tokens of a replica, M of them needed, D width, F numbers of a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import Cache

from actshift.libraries.private import attention_implementation, set_attention_implementation
from actshift.models.arguments import cache_argument
from actshift.models.loading import Base
from actshift.models.packing.attention import PACKED
from actshift.models.packing.layout import PackedLayout


def packed_hidden(
    base: Base, ids_BT: torch.Tensor, packing: PackedLayout, *, cache: Cache | None = None, **options: Any
) -> torch.Tensor:
    """The decoder's last hidden state at the packed tokens of rows, hidden_AND: valid where the layout needs it.

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
    before = attention_implementation(config)
    if before in PACKED.values():
        yield
        return
    set_attention_implementation(config, PACKED.get(before, before))
    last = _LastLayer(*base.sites.last)
    try:
        yield
    finally:
        last.detach()
        set_attention_implementation(config, before)


class _LastLayer:
    """The tokenwise modules of the last layer, called with the tokens that are read; 0 is their result at others.

    Changes that a method makes to what goes into a module or comes out of it see all tokens.
    """

    def __init__(self, layer: nn.Module, modules: Sequence[nn.Module]) -> None:
        self._packing: PackedLayout | None = None
        self._hooks = [layer.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for module in modules:
            self._hooks += [
                module.register_forward_pre_hook(self._choose),
                module.register_forward_hook(self._put_back, prepend=True),
            ]

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self, _: nn.Module, __: object, options: dict[str, Any]) -> None:
        self._packing = options.get("packing")

    def _choose(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if self._packing is None or self._packing.needed_AM is None:
            return None
        needed_AM = self._packing.needed_AM
        return (inputs[0].flatten(0, 1).index_select(0, needed_AM.flatten()).unflatten(0, needed_AM.shape), *inputs[1:])

    def _put_back(self, _: nn.Module, __: object, found_AMF: torch.Tensor) -> torch.Tensor | None:
        if self._packing is None or self._packing.needed_AM is None:
            return None
        shape_AN = self._packing.source_AN.shape
        all_NF = found_AMF.new_zeros(shape_AN.numel(), found_AMF.shape[-1])
        all_NF = all_NF.index_copy(0, self._packing.needed_AM.flatten(), found_AMF.flatten(0, 1))
        return all_NF.unflatten(0, shape_AN)
