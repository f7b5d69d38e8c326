"""What a kind of method refuses of its config beside what its schema does, before any model or data is loaded.

Each check is called with the method's config (or a part of one, at the key `where`) and the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actshift.errors import ActshiftError, impossible, shown, unknown
from actshift.methods.registry import PARAMETERIZATIONS, ranks_of, site_width, sites_of
from actshift.models.architectures import site_names
from actshift.schema.building import plain
from actshift.schema.config import ModelConfig
from actshift.schema.method import (
    MOMENTS,
    PROJECTIONS,
    CustomConfig,
    JointConfig,
    LoraOptions,
    PeftMethodConfig,
    ScopeConfig,
    SteeringOptions,
)


def check_lora(options: LoraOptions, *, model: ModelConfig, where: str = "method") -> None:
    """Refuse LoRA options that no model can have."""
    _check_projections(options.targets, PROJECTIONS, where=f"{where}.targets")


def check_steering(options: SteeringOptions, *, model: ModelConfig, where: str = "method") -> None:
    """Refuse steering options that do not go together, or not with the model."""
    name = options.parameterization
    _check_sites(options, model=model, where=where)
    _check_scope(options.scope, where=f"{where}.scope")
    if name not in PARAMETERIZATIONS:
        raise unknown("parameterization", name, PARAMETERIZATIONS, where=f"{where}.parameterization")
    takes = PARAMETERIZATIONS[name].options
    for option, value in {"rank": options.rank, "activation": options.activation}.items():
        if (value is not None) != (option in takes):
            needs = "needs" if option in takes else "takes no"
            raise ActshiftError(
                f"parameterization '{name}' {needs} {where}.{option}; "
                f"got {shown(value)}. It takes: {', '.join(takes) or 'no options'}."
            )
    if options.rank is not None:
        _check_ranks(options, model=model, where=f"{where}.rank")
    _check_layers(options.layers, count=model.shape.layers, model=model.name, where=f"{where}.layers")


def check_joint(options: JointConfig, *, model: ModelConfig, where: str = "method") -> None:
    """Refuse a joint method either part of which, or whose constraint, is impossible."""
    lora, steering, constraint = options.lora, options.steering, options.orthogonality
    check_lora(lora, model=model, where=f"{where}.lora")
    check_steering(steering, model=model, where=f"{where}.steering")
    if constraint.project is None:
        return
    where = f"{where}.orthogonality"
    every = constraint.every
    if every not in MOMENTS and not (type(every) is int and every >= 1):
        raise impossible(f"{where}.every", every, f"{', '.join(MOMENTS)} or a number of steps, at least 1")
    writers = [target for target in ("down_proj", "o_proj") if target in lora.targets]
    _check_projections(constraint.against, writers, where=f"{where}.against")
    able = [name for name, entry in PARAMETERIZATIONS.items() if entry.has_factors]
    if steering.parameterization not in able or "heads" in sites_of(steering):
        raise ActshiftError(
            f"{where} needs a steering part with W1 and W2 of the model's width ({', '.join(able)}) at any site but "
            f"heads; got {steering.parameterization} at {', '.join(sites_of(steering))}. Set {where}.project=null."
        )


def check_peft(options: PeftMethodConfig, *, model: ModelConfig, where: str = "method") -> None:
    """Refuse a config class that peft does not have, or arguments that it does not take."""
    from actshift.methods.peft_methods import settings_of

    settings_of(options)


def check_custom(options: CustomConfig, *, model: ModelConfig, where: str = "method") -> None:
    """Refuse a class that is not there or is no method, or what the class itself refuses by its `check`."""
    from actshift.libraries.user_code import load_user_class, refuse_other_arguments
    from actshift.methods.base import Adaptation

    method = load_user_class(options.target, Adaptation, key=f"{where}.target")
    refuse_other_arguments(method, options.target, "base", key=f"{where}.target", config="", seeds="")
    check = getattr(method, "check", None)
    if check is not None:
        check(options, model=model)


def _check_projections(given: Sequence[str], allowed: Sequence[str], *, where: str) -> None:
    if not given:
        raise impossible(where, given, "a list of at least one projection")
    for projection in given:
        if projection not in allowed:
            raise unknown("projection", projection, allowed, where=where)


def _check_sites(options: SteeringOptions, *, model: ModelConfig, where: str) -> None:
    sites, allowed = sites_of(options), site_names(str(model.architecture))
    if not sites or len(set(map(str, sites))) < len(sites):
        raise impossible(f"{where}.site", sites, "one site, or a list of at least one, none of them twice")
    for site in sites:
        if site not in allowed:
            raise unknown("site", site, allowed, where=f"{where}.site")


def _check_ranks(options: SteeringOptions, *, model: ModelConfig, where: str) -> None:
    sites, ranks = sites_of(options), ranks_of(options)
    if len(ranks) != len(sites):
        raise impossible(where, ranks, f"one rank for all sites, or a list of {len(sites)}, one for each of them")
    for site, rank in zip(sites, ranks, strict=True):
        width = site_width(site, model)
        if type(rank) is not int or not 1 <= rank <= width:
            raise impossible(where, rank, f"1 to {width}, the width of {site}")


def _check_scope(scope: ScopeConfig, *, where: str) -> None:
    if scope.kind == "first_last" and scope.first + scope.last < 1:
        raise impossible(where, plain(scope), "at least one position, first + last >= 1")
    if scope.separate and (scope.kind != "first_last" or not (scope.first and scope.last)):
        raise impossible(f"{where}.separate", True, "false unless kind is first_last with both ends at least 1")


def _check_layers(layers: Any, *, count: int, model: str, where: str) -> None:
    if layers == "all":
        return
    allowed = f"'all' or a list of different layers from 0 to {count - 1}, which '{model}' has"
    if not isinstance(layers, list) or not layers or len(set(map(str, layers))) < len(layers):
        raise impossible(where, layers, allowed)
    for layer in layers:
        if type(layer) is not int or not 0 <= layer < count:
            raise impossible(where, layers, allowed)
