"""Methods: how a base model is adapted. `attach` is the way in, `Adaptation` the contract.

A new kind of method is one file in this folder, one entry of `KINDS` and its YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, unknown
from actshift.methods import checks, options

if TYPE_CHECKING:
    from actshift.methods.base import Adaptation
    from actshift.models.loading import Base


@dataclass(frozen=True)
class Kind:
    """One kind of method: its implementation, the structured config of its YAML, what it refuses of one."""

    path: str
    """``module:class``, imported when it is first attached: some kinds bring slow libraries along."""
    config: type[options.MethodConfig]
    check: Callable[..., None] | None = None
    """Called with the method's config and ``model=``, the model's."""
    replicated: bool = False
    """Whether it can hold several adapters over one base at once."""


KINDS = {
    "sft": Kind("actshift.methods.sft:Sft", options.SftConfig),
    "lora": Kind("actshift.methods.lora:Lora", options.LoraConfig, checks.check_lora),
    "steering": Kind(
        "actshift.methods.steering:Steering", options.SteeringConfig, checks.check_steering, replicated=True
    ),
    "joint": Kind("actshift.methods.joint:Joint", options.JointConfig, checks.check_joint),
}
REPLICATED = tuple(name for name, kind in KINDS.items() if kind.replicated)
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
    module, name = KINDS[kind].path.split(":")
    adaptation: Adaptation = getattr(import_module(module), name)(base, config=config, seeds=seeds)
    return adaptation
