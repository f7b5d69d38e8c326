"""Methods: how a base model is adapted. `attach` is the way in, `Adaptation` the contract.

A new kind of method is one file in this folder, its options in `actshift.schema.method`, one entry of `KINDS` and its
YAML. A class of the user's own needs none
of these: see `actshift.methods.custom`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError, unknown
from actshift.methods import checks
from actshift.methods.registry import Kind, joint_numbers, load, lora_numbers, steering_numbers
from actshift.schema.method import MethodConfig

if TYPE_CHECKING:
    from actshift.methods.base import Adaptation
    from actshift.models.loading import Base

KINDS = {
    "sft": Kind("actshift.methods.sft:Sft", trains_base=True),
    "lora": Kind(
        "actshift.methods.lora:Lora",
        lora_numbers,
        checks.check_lora,
        changes_projections=True,
        peft_files=True,
    ),
    "peft": Kind(
        "actshift.methods.peft_methods:PeftMethod",
        check=checks.check_peft,
        changes_projections=True,
        peft_files=True,
    ),
    "steering": Kind(
        "actshift.methods.steering:Steering",
        steering_numbers,
        checks.check_steering,
        replicated=True,
        changes_sites=True,
        frozen_below=True,
    ),
    "joint": Kind(
        "actshift.methods.joint:Joint",
        joint_numbers,
        checks.check_joint,
        changes_projections=True,
        changes_sites=True,
    ),
    "custom": Kind("actshift.methods.custom:attach_custom", check=checks.check_custom),
}
REPLICATED = tuple(name for name, kind in KINDS.items() if kind.replicated)
"""The kinds that can hold several adapters over one base at once."""


def attach(base: Base, *, config: MethodConfig, seeds: Sequence[int]) -> Adaptation:
    """Attach the method of a resolved method config to a base model, one replica a seed.

    The seed fixes the initial values. Errors: an unknown kind, replicas of a kind that has none.
    """
    kind = config.kind
    if kind not in KINDS:
        raise unknown("method kind", kind, KINDS, where="conf/method/*.yaml")
    if len(seeds) > 1 and kind not in REPLICATED:
        raise ActshiftError(f"method kind '{kind}' cannot train {len(seeds)} replicas at once; only {REPLICATED} can")
    adaptation: Adaptation = load(KINDS[kind].path)(base, config=config, seeds=seeds)
    return adaptation
