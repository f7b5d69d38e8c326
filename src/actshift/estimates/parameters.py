"""How many parameters each method trains on each model, counted on the modules that it really attaches.

The base models are built on PyTorch's meta device: every shape, no weights, no network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from actshift.config.cached import CachedComposer
from actshift.errors import ActshiftError
from actshift.methods import attach
from actshift.models.loading import Base, meta_model
from actshift.schema.config import ModelConfig
from actshift.schema.method import MethodConfig
from actshift.store.adapters import bare_base


@dataclass(frozen=True)
class Count:
    """What one method trains on one model; where the two do not fit, `trainable` is None and `refused` the reason."""

    model: str
    method: str
    trainable: int | None
    total: int
    """Parameters of the base model, tied weights once."""
    refused: str = ""


def counts(models: Sequence[str], methods: Sequence[str], compose: CachedComposer) -> Iterator[Count]:
    """A count for every model and method, one base model after the other."""
    for model in models:
        base = meta_base(compose([f"model={model}"]).model)
        for method in methods:
            try:
                config = compose([f"model={model}", f"method={method}"]).method
            except ActshiftError as error:
                yield Count(model, method, None, base.parameters, refused=str(error).split(". ")[0])
            else:
                yield Count(model, method, trainable_parameters(base, config), base.parameters)


def meta_base(model: ModelConfig) -> Base:
    """The base model of a resolved model config on the meta device, frozen."""
    return bare_base(meta_model(model).requires_grad_(False), architecture=str(model.architecture))


def trainable_parameters(base: Base, method: MethodConfig) -> int:
    """How many numbers a resolved method config trains on a base model on the meta device."""
    with torch.device("meta"):
        adaptation = attach(base, config=method, seeds=(0,))
    try:
        return adaptation.trainable_parameters()
    finally:
        adaptation.detach()
