"""Methods: how a base model is adapted. `attach` is the way in, `Adaptation` the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, unknown

if TYPE_CHECKING:
    from actshift.methods.base import Adaptation
    from actshift.models.loading import Base

# Imported when first attached: some families bring slow libraries along.
KINDS = {"sft": "actshift.methods.sft:Sft", "lora": "actshift.methods.lora:Lora"}
KINDS["steering"] = "actshift.methods.steering:Steering"
REPLICATED = ("steering",)
"""The kinds that can hold several adapters over one base at once."""


def attach(base: Base, *, config: Mapping[str, Any], seeds: Sequence[int]) -> Adaptation:
    """Attach the method of a resolved method config to a base model, one replica a seed.

    The seed fixes the initial values. Errors: an unknown kind, replicas of a kind that has none.
    """
    kind = config["kind"]
    if kind not in KINDS:
        raise unknown("method kind", kind, KINDS, where="conf/method/*.yaml")
    if len(seeds) > 1 and kind not in REPLICATED:
        raise ActshiftError(f"method kind '{kind}' cannot train {len(seeds)} replicas at once; only {REPLICATED} can")
    module, name = KINDS[kind].split(":")
    adaptation: Adaptation = getattr(import_module(module), name)(base, config=config, seeds=seeds)
    return adaptation
