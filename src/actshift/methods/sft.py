"""SFT: full fine-tuning, every weight of the base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.schema.method import SftConfig


class Sft(Adaptation):
    """W <- W + dW for every weight. The original weights are kept aside and put back by `detach`."""

    def __init__(self, base: Base, *, config: SftConfig, seeds: Sequence[int]) -> None:
        self._model = base.model
        aside = "meta" if base.device.type == "meta" else "cpu"
        self._original = {name: p.detach().to(aside, copy=True) for name, p in base.model.named_parameters()}
        self._model.requires_grad_(True)

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        return self._model.named_parameters()

    def fold(self) -> None:
        """Its weights are the model's already; the original ones are let go."""
        self._original.clear()
        self._model.requires_grad_(False)

    @torch.no_grad()
    def detach(self) -> None:
        for name, parameter in self._model.named_parameters():
            parameter.copy_(self._original[name])
            parameter.grad = None
        self._model.requires_grad_(False)
