"""Initial values and updates by value: what the contract battery, which only compares, cannot see."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from adapted import attached, base_of, method_config
from torch import nn

from actshift.methods.base import Adaptation
from actshift.methods.parameterizations import Affine, Linear, Nonlinear
from actshift.training.loop import _update


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("width", [64, 1024])
def test_w1_is_uniform_within_a_thousandth_of_kaimings_bound(width: int) -> None:
    """U(-1/sqrt(D), 1/sqrt(D)) x 1e-3, as the released code draws it; W2 and b are 0."""
    parts = [
        Linear(width, rank=8, generators=generators(0)),
        Affine(width, rank=8, generators=generators(0)),
        Nonlinear(width, rank=8, activation="silu", generators=generators(0)),
    ]
    bound = 1e-3 / math.sqrt(width)
    for part in parts:
        down = part.down[0].detach()
        assert down.abs().max() <= bound
        assert down.abs().max() > 0.98 * bound
        assert down.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not part.up[0].any()
    assert not parts[1].bias[0].any()


@pytest.mark.parametrize("method", ["post_block", "post_block_affine", "reft", "lofit", "jola", "lora_r8", "dora_r8"])
def test_another_seed_draws_other_initial_values(method: str) -> None:
    base = base_of("random-llama")
    states = []
    for seed in (1, 2):
        with attached(base, method_config(method, model="random-llama"), seeds=(seed,)) as adaptation:
            states.append(adaptation.state_dict())
    drawn = [name for name, tensor in states[0].items() if tensor.is_floating_point() and tensor.float().std() > 0]
    assert any(not torch.equal(states[0][name], states[1][name]) for name in drawn)


class OnePerReplica(Adaptation):
    """A vector of two numbers for each replica."""

    def __init__(self, gradients: list[list[float]]) -> None:
        self.replicas = len(gradients)
        self.parameters = [nn.Parameter(torch.zeros(2)) for _ in gradients]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        yield "vector", self.parameters[replica]

    def detach(self) -> None:
        """There is nothing to take off."""


@pytest.mark.parametrize(
    ("clip", "moved"), [(1.0, [[-0.6, -0.8], [-0.03, -0.04]]), (2.5, [[-1.5, -2.0], [-0.03, -0.04]]), (0.0, None)]
)
def test_each_replica_is_clipped_to_the_norm_by_its_own_gradient(clip: float, moved: list[list[float]] | None) -> None:
    """Norms 5 and 0.05: the first is brought to `clip`, the second stays; 0 clips nothing."""
    gradients = [[3.0, 4.0], [0.03, 0.04]]
    adaptation = OnePerReplica(gradients)
    optimizer = torch.optim.SGD(adaptation.parameters, lr=1.0)
    _update(adaptation, optimizer, alive=[0, 1], clip=clip)
    expected = moved or [[-3.0, -4.0], [-0.03, -0.04]]
    for parameter, values in zip(adaptation.parameters, expected, strict=True):
        torch.testing.assert_close(parameter.data, torch.tensor(values), rtol=1e-5, atol=1e-6)


def test_a_replica_that_ended_is_not_moved() -> None:
    adaptation = OnePerReplica([[3.0, 4.0], [3.0, 4.0]])
    optimizer = torch.optim.SGD(adaptation.parameters, lr=1.0)
    _update(adaptation, optimizer, alive=[1], clip=1.0)
    assert not adaptation.parameters[0].any()
    assert adaptation.parameters[1].any()
