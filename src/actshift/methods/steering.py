"""Steering: a change of the hidden state at a site x scope x parameterization, in every chosen layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from actshift.methods import options
from actshift.methods.base import Adaptation
from actshift.methods.parameterizations import PARAMETERIZATIONS, Parameterization
from actshift.methods.scopes import get_scope
from actshift.models.loading import Base
from actshift.models.sites import Change


class Steering(Adaptation):
    """h <- h + shift(h) at the scope's positions. The sum is taken in float32 and rounded once to the base's type.

    Parameters are named ``<layer>.<site>.<tensor>``. Shapes: A replicas, B rows of one replica, T tokens, D width.
    """

    def __init__(self, base: Base, *, config: Mapping[str, Any], seeds: Sequence[int]) -> None:
        self.replicas = len(seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        kind = PARAMETERIZATIONS[config["parameterization"]]
        chosen = {name: config[name] for name in options.PARAMETERIZATIONS[config["parameterization"]]}
        scope = config["scope"]
        self._site: str = config["site"]
        self._scope = get_scope(scope["kind"], first=scope["first"], last=scope["last"])
        self._scope_BT1: torch.Tensor | None = None
        self._shifts: dict[int, Parameterization] = {}
        self._hooks = []
        for layer in range(base.sites.layers) if config["layers"] == "all" else config["layers"]:
            shift = kind(base.sites.width(self._site), generators=generators, **chosen).to(base.device)
            self._shifts[layer] = shift
            self._hooks.append(base.sites.hook(self._site, layer, self._change(shift)))

    def _change(self, shift: Parameterization) -> Change:
        def change(h_BTD: torch.Tensor) -> torch.Tensor:
            if self._scope is not None and self._scope_BT1 is None:
                return h_BTD
            h_ABTD = h_BTD.float().unflatten(0, (self.replicas, -1))
            shift_BTD = shift(h_ABTD).flatten(0, 1)
            if self._scope_BT1 is not None:
                shift_BTD = shift_BTD * self._scope_BT1
            return (h_BTD.float() + shift_BTD).to(h_BTD.dtype)

        return change

    def observe(self, prompt_BT: torch.Tensor | None) -> None:
        if self._scope is not None:
            self._scope_BT1 = None if prompt_BT is None else self._scope(prompt_BT)[..., None]

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        for layer, shift in self._shifts.items():
            for name, tensors in shift.named_children():
                assert isinstance(tensors, nn.ParameterList)
                yield f"{layer}.{self._site}.{name}", tensors[replica]

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
