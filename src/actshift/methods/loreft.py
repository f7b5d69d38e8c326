"""LoReFT by pyreft's own intervention class.

Shapes: A replicas, B rows, T tokens, D width, R rank.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from actshift.methods.parameterizations import Parameterization


class Loreft(Parameterization):
    """shift = R^T (W h + b - R h), R (R x D) with orthonormal rows. Trains 2DR + R numbers (ReFT, equation 2).

    The modules are ``pyreft.LoreftIntervention``, one a replica: orthogonal R, torch's default for W and b, so away
    from the base model at the start. Its parametrization writes R^T = base H(original) with a fixed orthogonal
    base (D x D) and trains `original`. The base follows from a seed and only that is saved: it is as large as a layer.
    """

    is_affine = True

    def __init__(self, width: int, *, rank: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self._sizes = width, rank
        self._drawn = [int(torch.randint(2**31, (), generator=one, device="cpu")) for one in generators]
        self.interventions = nn.ModuleList(_intervention(width, rank, seed=seed) for seed in self._drawn)
        for replica, seed in enumerate(self._drawn):
            self.register_buffer(f"seed_{replica}", torch.tensor(seed))

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        with parametrize.cached():  # the class asks for R twice
            changed = [one(h_BTD) for one, h_BTD in zip(self.interventions, h_ABTD, strict=True)]
        return torch.stack(changed) - h_ABTD

    def replica_parameters(self, replica: int) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.interventions[replica].named_parameters():
            yield {"original": "rotation"}.get(name.rpartition(".")[-1], name.rpartition(".")[-1]), parameter

    def replica_buffers(self, replica: int) -> Iterator[tuple[str, torch.Tensor]]:
        yield "seed", self.get_buffer(f"seed_{replica}")

    @classmethod
    def after_step(cls, parts: Mapping[str, Loreft], *, losses: Sequence[float]) -> None:
        # It holds the signs of R's rows as whole numbers: weight decay, which pyreft never uses, would make them 0.
        with torch.no_grad():
            for intervention in (one for part in parts.values() for one in part.interventions):
                intervention.get_parameter("rotate_layer.parametrizations.weight.original").diagonal().fill_(-1)

    def loaded(self, replica: int) -> None:
        seed = int(self.get_buffer(f"seed_{replica}"))
        if seed != self._drawn[replica]:
            self._drawn[replica] = seed
            _base(self.interventions[replica]).copy_(_base(_intervention(*self._sizes, seed=seed)))


def _base(intervention: nn.Module) -> torch.Tensor:
    return intervention.get_buffer("rotate_layer.parametrizations.weight.0.base")


def _intervention(width: int, rank: int, *, seed: int) -> nn.Module:
    """pyreft's module in float32. Its base is drawn in float64, so that rounding hides what machines do differently."""
    # Importing pyreft takes seconds, and prints about packages that it would also like to have.
    with contextlib.redirect_stdout(io.StringIO()):
        from pyreft.interventions import LoreftIntervention

    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        try:
            with _OnMeta() if torch.get_default_device().type == "meta" else contextlib.nullcontext():
                module: nn.Module = LoreftIntervention(
                    embed_dim=width, low_rank_dimension=rank, dtype=torch.float64
                ).float()
        finally:
            torch.set_default_dtype(default)
    return module


class _OnMeta(TorchFunctionMode):
    """Matrices on the meta device; pyreft's sizes, which are tensors too, must keep their values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        place = {torch.empty: "meta", torch.tensor: "cpu"}
        return func(*args, **{**(kwargs or {}), **({"device": place[func]} if func in place else {})})
