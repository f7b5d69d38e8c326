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
from actshift.methods.registry import PARAMETERIZATIONS, load
from actshift.methods.scopes import Chosen, get_scopes
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.sites import Change


class Steering(Adaptation):
    """h <- h + shift(h) at the scope's positions. The sum is taken in float32 and rounded once to the base's type.

    Every chosen layer has one part, or with ``scope.separate`` one for the first positions and one for the last.
    Parameters are named ``<layer>.<site>[.first|.last].<tensor>``.
    Shapes: A replicas, B rows of one replica, T tokens, D width.
    """

    def __init__(self, base: Base, *, config: Mapping[str, Any], seeds: Sequence[int]) -> None:
        self.replicas = len(seeds)
        self._model, self._sites = base.model, base.sites
        self._site: str = config["site"]
        self._kind: type[Parameterization] = load(PARAMETERIZATIONS[config["parameterization"]].path)
        self._scopes = get_scopes(**config["scope"])
        self._chosen: dict[str, Chosen] = {}
        self._steps = 0
        self.layers = list(range(base.sites.layers)) if config["layers"] == "all" else list(config["layers"])
        self._parts = self._build(base, config=config, seeds=seeds)
        self._hooks = [base.sites.hook(self._site, layer, self._change(layer)) for layer in self.layers]

    def _build(self, base: Base, *, config: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Parameterization]:
        """The parts by name, their initial values drawn in the order of the layers."""
        chosen = {name: config[name] for name in PARAMETERIZATIONS[config["parameterization"]].options}
        if self._kind.per_head:
            chosen["heads"] = base.sites.heads if self._site == "heads" else 1
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.device("meta") if base.device.type == "meta" else nullcontext():
            return {
                self._name(layer, end): self._kind(base.sites.width(self._site), generators=generators, **chosen).to(
                    base.device
                )
                for layer in self.layers
                for end in self._scopes
            }

    def _name(self, layer: int, end: str) -> str:
        return ".".join(filter(None, (str(layer), self._site, end)))

    def part(self, layer: int) -> Parameterization:
        """The part of a layer whose scope is whole."""
        return self._parts[self._name(layer, "")]

    def _change(self, layer: int) -> Change:
        parts = {end: self._parts[self._name(layer, end)] for end in self._scopes}

        def change(h_BTD: torch.Tensor) -> torch.Tensor:
            exact_BTD = h_BTD.float()
            h_ABTD = exact_BTD.unflatten(0, (self.replicas, -1))
            changed_BTD = exact_BTD
            for end, part in parts.items():
                if self._scopes[end] is not None and end not in self._chosen:
                    continue
                part.training = self._model.training
                chosen = self._chosen.get(end)
                if chosen is None:
                    changed_BTD = changed_BTD + part(h_ABTD).flatten(0, 1)
                else:
                    changed_BTD = chosen.add(changed_BTD, exact_BTD, part)
            return changed_BTD.to(h_BTD.dtype)

        return change

    def check_fold(self) -> None:
        """Refuse to fold what weights cannot do: a change of some tokens and not of others, or see `folding.check`."""
        if any(scope is not None for scope in self._scopes.values()) or self.replicas > 1:
            raise ActshiftError(
                "steering of some positions of the prompt cannot be folded into weights, which all tokens go through; "
                "nor can several adapters at once. Keep it as an adapter, or train with method.scope.kind=all."
            )
        for part in self._parts.values():
            folding.check(self._sites, site=self._site, part=part)

    def fold(self) -> None:
        self.check_fold()
        self.detach()
        for layer in self.layers:
            folding.fold_part(self._sites, site=self._site, layer=layer, part=self.part(layer))

    def begin_pass(self, forward_pass: ForwardPass) -> None:
        prompt_BT = forward_pass.prompt_BT
        scopes_BT = {} if prompt_BT is None else self._masks(prompt_BT)
        self._chosen = {
            end: Chosen.of(scope_BT, forward_pass, replicas=self.replicas) for end, scope_BT in scopes_BT.items()
        }

    def shared_prefix_length(self, prompt_BT: torch.Tensor) -> int:
        differs_BT = torch.zeros_like(prompt_BT)
        for scope_BT in self._masks(prompt_BT).values():
            differs_BT |= scope_BT != scope_BT[:1]
        return int((~differs_BT.any(0)).cumprod(0).sum())

    def _masks(self, prompt_BT: torch.Tensor) -> dict[str, torch.Tensor]:
        return {end: scope(prompt_BT) for end, scope in self._scopes.items() if scope is not None}

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
