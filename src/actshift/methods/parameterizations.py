"""Parameterizations: how a steering method computes its shift of a hidden state, over a leading replica axis.

Shapes: A replicas, B rows, T tokens, N = B T, D width, R rank. Each replica has parameters of its own, so that it has
its own optimizer state and learning rate; they are stacked for the forward pass. All arithmetic is in float32.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}


class Parameterization(nn.Module):
    """The shift at one site of one layer, its *part* of a method; built from a width, options, a generator a replica.

    `training` says whether a forward pass belongs to a training step. What happens once a step happens to the parts
    of all layers together, which are called by name; the defaults below do nothing.
    """

    is_affine = False
    """Whether the shift outside of training is S h + c with S and c that no h changes."""
    per_head = False
    """Whether it is also built from ``heads``, the number of heads that share the width equally."""

    def replica_axis(self) -> nn.ParameterList | nn.ModuleList:
        """Something that there is one of for each replica."""
        return next(child for child in self.children() if isinstance(child, nn.ParameterList | nn.ModuleList))

    @abstractmethod
    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        """The shift of h, in h's shape; row (a, b) depends on replica a's parameters alone."""

    def replica_parameters(self, replica: int) -> Iterator[tuple[str, nn.Parameter]]:
        """What one replica trains."""
        for name, tensors in self.named_children():
            assert isinstance(tensors, nn.ParameterList)
            yield name, tensors[replica]

    def replica_buffers(self, replica: int) -> Iterator[tuple[str, torch.Tensor]]:
        """What one replica saves beside that."""
        yield from ()

    def loaded(self, replica: int) -> None:
        """Called after parameters and buffers of one replica have been overwritten by saved ones."""

    @classmethod
    def before_step(cls, parts: Mapping[str, Any], *, step: int, steps: int) -> None:
        """Called before the forward passes of step `step` of `steps`."""

    @classmethod
    def penalty(cls, parts: Mapping[str, Any], *, step: int, steps: int) -> torch.Tensor | None:
        """A term of the loss of step `step`, one number a replica, or None."""
        return None

    @classmethod
    def after_step(cls, parts: Mapping[str, Any], *, losses: Sequence[float]) -> None:
        """Called after a step with its loss, one a replica, the penalty not counted."""


class Vector(Parameterization):
    """shift = v. Trains D numbers, initially 0 (Table 2, Ours 1-vec)."""

    is_affine = True

    def __init__(self, width: int, *, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.vector = nn.ParameterList(torch.zeros(width) for _ in generators)

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        return stack(self.vector)[:, None, None, :].expand_as(h_ABTD)


class Scale(Parameterization):
    """shift = s * h, elementwise. Trains D numbers, initially 0: a no-op. The diagonal maps among the linear ones."""

    is_affine = True

    def __init__(self, width: int, *, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.scale = nn.ParameterList(torch.zeros(width) for _ in generators)

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        return stack(self.scale)[:, None, None, :] * h_ABTD


class Linear(Parameterization):
    """shift = W2 W1 h, W1 (R x D), W2 (D x R). Trains 2DR numbers (Section 3.1, phi the identity).

    Initially W1 ~ U(-1/sqrt(D), 1/sqrt(D)) x 1e-3 (Kaiming with a = sqrt(5), as released) and W2 = 0: a no-op.
    """

    is_affine = True

    def __init__(self, width: int, *, rank: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        bound = 1e-3 / math.sqrt(width)
        self.down = nn.ParameterList(
            torch.empty(rank, width).uniform_(-bound, bound, generator=generator) for generator in generators
        )
        self.up = nn.ParameterList(torch.zeros(width, rank) for _ in generators)

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        down_ARD, up_ADR = stack(self.down), stack(self.up)
        code_ANR = torch.bmm(h_ABTD.flatten(1, 2), down_ARD.mT)
        return torch.bmm(self.activate(code_ANR), up_ADR.mT).view_as(h_ABTD)

    def activate(self, code_ANR: torch.Tensor) -> torch.Tensor:
        return code_ANR


class Affine(Linear):
    """shift = W2 W1 h + b, b (D). Trains 2DR + D numbers, initially as `Linear` and b = 0: a no-op."""

    def __init__(self, width: int, *, rank: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__(width, rank=rank, generators=generators)
        self.bias = nn.ParameterList(torch.zeros(width) for _ in generators)

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        return super().forward(h_ABTD) + stack(self.bias)[:, None, None, :]


class Nonlinear(Linear):
    """shift = W2 phi(W1 h). Trains 2DR numbers, initially as `Linear` (Section 3.1; released default: SiLU)."""

    is_affine = False

    def __init__(self, width: int, *, rank: int, activation: str, generators: Sequence[torch.Generator]) -> None:
        super().__init__(width, rank=rank, generators=generators)
        self._activation = ACTIVATIONS[activation]

    def activate(self, code_ANR: torch.Tensor) -> torch.Tensor:
        return self._activation(code_ANR)


def stack(tensors: nn.ParameterList | Sequence[torch.Tensor]) -> torch.Tensor:
    """The tensors of all replicas along a new leading axis."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
