"""Steering: a change of the hidden state at a site x scope x parameterization, in every chosen layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from actshift.errors import ActshiftError
from actshift.methods import folding
from actshift.methods.base import Adaptation
from actshift.methods.parameterizations import Parameterization
from actshift.methods.registry import PARAMETERIZATIONS, load, ranks_of, sites_of
from actshift.methods.scopes import Chosen, get_scopes
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.sites import Change
from actshift.schema.method import SteeringOptions


class Steering(Adaptation):
    """h <- h + shift(h) at the scope's positions. The sum is taken in float32 and rounded once to the base's type.

    Every chosen layer has one part a site, or with ``scope.separate`` one for the first positions and one for the last.
    Parameters are named ``<layer>.<site>[.first|.last].<tensor>``.
    Shapes: A replicas, B rows of one replica, T tokens, D width.
    """

    def __init__(self, base: Base, *, config: SteeringOptions, seeds: Sequence[int]) -> None:
        self.replicas = len(seeds)
        self._model, self._base_sites = base.model, base.sites
        self._sites = sites_of(config)
        self._kind: type[Parameterization] = load(PARAMETERIZATIONS[config.parameterization].path)
        self._scopes = get_scopes(config.scope)
        self.changes_copies = any(scope.copies for scope in self._scopes.values())
        self._chosen: dict[str, Chosen | None] = {
            end: None for end, scope in self._scopes.items() if scope.positions is None
        }
        self._steps = 0
        self.layers = list(range(base.sites.layers)) if config.layers == "all" else list(config.layers)
        self._parts = self._build(base, config=config, seeds=seeds)
        self._hooks = [
            base.sites.hook(site, layer, self._change(layer, site)) for layer in self.layers for site in self._sites
        ]

    def _build(self, base: Base, *, config: SteeringOptions, seeds: Sequence[int]) -> dict[str, Parameterization]:
        """The parts by name, their initial values drawn in the order of the layers, and of the sites within a layer."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        options = dict(zip(self._sites, self._options(base, config), strict=True))
        with torch.device("meta") if base.device.type == "meta" else nullcontext():
            return {
                self._name(layer, site, end): self._kind(
                    base.sites.width(site), generators=generators, **options[site]
                ).to(base.device)
                for layer in self.layers
                for site in self._sites
                for end in self._scopes
            }

    def _options(self, base: Base, config: SteeringOptions) -> Iterator[dict[str, Any]]:
        """What the parameterization takes at each site."""
        taken = PARAMETERIZATIONS[config.parameterization].options
        for site, rank in zip(self._sites, ranks_of(config), strict=True):
            chosen = {name: rank if name == "rank" else getattr(config, name) for name in taken}
            heads = {"heads": base.sites.heads if site == "heads" else 1} if self._kind.per_head else {}
            yield chosen | heads

    def _name(self, layer: int, site: str, end: str) -> str:
        return ".".join(filter(None, (str(layer), site, end)))

    def part(self, layer: int, site: str | None = None) -> Parameterization:
        """The part of a layer whose scope is whole, at one of several sites where there are several."""
        return self._parts[self._name(layer, site or self._sites[0], "")]

    def parts(self, layer: int) -> list[Parameterization]:
        """The parts of a layer whose scope is whole, one a site."""
        return [self.part(layer, site) for site in self._sites]

    def _change(self, layer: int, site: str) -> Change:
        parts = {end: self._parts[self._name(layer, site, end)] for end in self._scopes}

        def change(h_BTD: torch.Tensor) -> torch.Tensor:
            exact_BTD = h_BTD.float()
            h_ABTD = exact_BTD.unflatten(0, (self.replicas, -1))
            changed_BTD = exact_BTD
            for end in parts:
                if end not in self._chosen:
                    continue
                part, chosen = parts[end], self._chosen[end]
                part.training = self._model.training
                if chosen is None:
                    changed_BTD = changed_BTD + part(h_ABTD).flatten(0, 1)
                else:
                    changed_BTD = chosen.add(changed_BTD, exact_BTD, part)
            return changed_BTD.to(h_BTD.dtype)

        return change

    def check_fold(self) -> None:
        """Refuse to fold what weights cannot do: a change of some tokens and not of others, or see `folding.check`."""
        if any(scope.positions is not None for scope in self._scopes.values()) or self.replicas > 1:
            raise ActshiftError(
                "steering of some positions of the prompt cannot be folded into weights, which all tokens go through; "
                "nor can several adapters at once. Keep it as an adapter, or train with method.scope.kind=all."
            )
        for layer in self.layers:
            for site in self._sites:
                folding.check(self._base_sites, site=site, part=self.part(layer, site))

    def fold(self) -> None:
        self.check_fold()
        self.detach()
        for layer in self.layers:
            for site in sorted(self._sites, key="post_block".__eq__):  # what is added to the stream comes last
                folding.fold_part(self._base_sites, site=site, layer=layer, part=self.part(layer, site))

    def begin_pass(self, forward_pass: ForwardPass) -> None:
        self._chosen = {
            end: scope.chosen(forward_pass, replicas=self.replicas)
            for end, scope in self._scopes.items()
            if scope.acts(forward_pass)
        }

    def shared_prefix_length(self, prompt_BT: torch.Tensor) -> int:
        differs_BT = torch.zeros_like(prompt_BT)
        for scope in self._scopes.values():
            if scope.positions is not None and not scope.copies:
                scope_BT = scope.positions(prompt_BT)
                differs_BT |= scope_BT != scope_BT[:1]
        return int((~differs_BT.any(0)).cumprod(0).sum())

    def begin(self, *, steps: int, steps_per_epoch: int) -> None:
        self._steps = steps

    def before_step(self, step: int) -> None:
        self._kind.before_step(self._parts, step=step, steps=self._steps)

    def penalty(self, step: int) -> torch.Tensor | None:
        penalty_A = self._kind.penalty(self._parts, step=step, steps=self._steps)
        return None if penalty_A is None else penalty_A.sum()

    def after_step(self, step: int, losses: Sequence[float] = ()) -> None:
        self._kind.after_step(self._parts, losses=losses)

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        for part_name, part in self._parts.items():
            for name, parameter in part.replica_parameters(replica):
                yield f"{part_name}.{name}", parameter

    def named_buffers(self, replica: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
        for part_name, part in self._parts.items():
            for name, buffer in part.replica_buffers(replica):
                yield f"{part_name}.{name}", buffer

    def load_state_dict(self, state: Mapping[str, torch.Tensor], replica: int = 0) -> None:
        super().load_state_dict(state, replica)
        self.loaded(replica)

    def loaded(self, replica: int = 0) -> None:
        """Called after parameters and buffers of one replica have been overwritten by saved ones."""
        for part in self._parts.values():
            part.loaded(replica)

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
