"""Parameterizations that change the outputs of attention heads one by one: LoFiT and JoLA.

They act on o = (o_1 .. o_H), the width of the site cut into H heads; where a site has no heads, its width is one head.
Shapes: A replicas, B rows, T tokens, D = H K width, H heads, K head size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from actshift.methods.parameterizations import Parameterization, stack
from actshift.schema.method import GatesConfig, SelectionConfig

STD = 1e-3
"""Of the initial vectors (both authors' code)."""
TEMPERATURE, LOW, HIGH, EPSILON = 0.33, -0.1, 1.1, 1e-6
"""Of the hard concrete gates (JoLA's code)."""


class PerHead(Parameterization):
    """A parameterization over the heads of a site."""

    is_affine = True
    per_head = True

    def __init__(self, width: int, *, heads: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.heads = heads
        self.seeds = [generator.initial_seed() for generator in generators]
        self._sizes = heads, width // heads

    def normal(self, generators: Sequence[torch.Generator]) -> nn.ParameterList:
        """A vector of size K a head, N(0, 1e-3), for each replica."""
        return nn.ParameterList(torch.empty(self._sizes).normal_(0, STD, generator=one) for one in generators)

    def heads_of(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        """o_ABTHK."""
        return h_ABTD.unflatten(-1, self._sizes)


class Lofit(PerHead):
    """shift of head j = v_j, in one stage over all heads. Trains HK numbers, v ~ N(0, 1e-3) (LoFiT, its bias stage)."""

    def __init__(self, width: int, *, heads: int, generators: Sequence[torch.Generator]) -> None:
        super().__init__(width, heads=heads, generators=generators)
        self.bias = self.normal(generators)

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        return stack(self.bias).flatten(1)[:, None, None, :].expand_as(h_ABTD)


class LofitTwoStage(PerHead):
    """LoFiT as its authors run it. Trains HK scales, then HK biases of which only the chosen heads' count.

    First stage: shift of head j = s_j * o_j, with an absolute penalty on s. Then the heads of all layers with the
    largest |s_j| are chosen, the scales are dropped, and shift of head j = v_j on these. s, v ~ N(0, 1e-3).
    # authors: two trainings, each with its own rate and schedule, the heads in a file / here: two stages of one run.
    """

    def __init__(
        self, width: int, *, heads: int, selection: SelectionConfig, generators: Sequence[torch.Generator]
    ) -> None:
        super().__init__(width, heads=heads, generators=generators)
        self._stage, self._share, self._weight = selection.stage, selection.heads, selection.penalty
        self.scale = self.normal(generators)
        self.bias = self.normal(generators)
        self.register_buffer("second", torch.zeros((), dtype=torch.bool))
        for replica in range(len(generators)):
            self.register_buffer(f"chosen_{replica}", torch.zeros(heads, dtype=torch.bool))

    @property
    def is_second(self) -> bool:
        """Whether the heads are chosen."""
        return bool(self.get_buffer("second"))

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        # The tensors of the other stage stay out of the graph: without gradients, the optimizer leaves them alone.
        if not self.is_second:
            return (stack(self.scale)[:, None, None] * self.heads_of(h_ABTD)).flatten(-2)
        chosen_AH1 = stack([self.get_buffer(f"chosen_{a}") for a in range(len(self.bias))])[..., None]
        return (stack(self.bias) * chosen_AH1).flatten(1)[:, None, None, :].expand_as(h_ABTD)

    def replica_buffers(self, replica: int) -> Iterator[tuple[str, torch.Tensor]]:
        yield "chosen", self.get_buffer(f"chosen_{replica}")
        yield "second", self.get_buffer("second")

    @classmethod
    def before_step(cls, parts: Mapping[str, LofitTwoStage], *, step: int, steps: int) -> None:
        first, *_ = parts.values()
        if first.is_second or step <= max(1, int(first._stage * steps)):
            return
        for replica in range(len(first.scale)):
            norms = torch.cat([part.scale[replica].detach().norm(dim=-1) for part in parts.values()])
            chosen = torch.zeros_like(norms, dtype=torch.bool)
            chosen[norms.argsort(descending=True, stable=True)[: max(1, int(first._share * len(norms)))]] = True
            for part, heads in zip(parts.values(), chosen.split([part.heads for part in parts.values()]), strict=True):
                part.get_buffer(f"chosen_{replica}").copy_(heads)
        for part in parts.values():
            part.get_buffer("second").fill_(True)

    @classmethod
    def penalty(cls, parts: Mapping[str, LofitTwoStage], *, step: int, steps: int) -> torch.Tensor | None:
        first, *_ = parts.values()
        if first._weight == 0 or first.is_second:
            return None
        return first._weight * torch.stack([stack(part.scale).abs().sum((1, 2)) for part in parts.values()]).sum(0)


class Jola(PerHead):
    """shift of head j = g2_j a_j * o_j + g1_j v_j with gates in [0, 1]. Trains 2HK + 2H numbers (JoLA, equation 4).

    Hard concrete gates: g = clip(1.2 s - 0.1, 0, 1), s = sigmoid((logit(u) + log_alpha) / 0.33) with u ~ U(0, 1) in
    training, s = sigmoid(log_alpha) otherwise. One u a gate and step, whatever the micro-batches.
    Penalty: l L0(g1) / (N H) + (1 - l) L0(g2) / (N H), L0 the sum over the N parts of the mean over heads of
    P(g > 0) = sigmoid(log_alpha - 0.33 log(0.1 / 1.1)), l by `gates`. Initially a, v ~ N(0, 1e-3), log_alpha Xavier.
    """

    def __init__(self, width: int, *, heads: int, gates: GatesConfig, generators: Sequence[torch.Generator]) -> None:
        super().__init__(width, heads=heads, generators=generators)
        self._gates = gates
        self.scale = self.normal(generators)
        self.bias = self.normal(generators)
        bound = math.sqrt(6 / (1 + heads))
        self.log_bias, self.log_scale = (  # of the published code's g1 and g2
            nn.ParameterList(torch.empty(heads).uniform_(-bound, bound, generator=one) for one in generators)
            for _ in range(2)
        )
        self._noise_2AH: torch.Tensor | None = None
        if self._gates.schedule == "performance":
            for replica in range(len(generators)):
                # lambda, the penalty of the last step and its loss; the authors start the comparison at a loss of 50.
                self.register_buffer(f"balance_{replica}", torch.tensor([self._gates.start, 0.0, 50.0]))

    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:
        g1_AH, g2_AH = self._gate(self._logs())
        change_ABTHK = (g2_AH[..., None] * stack(self.scale))[:, None, None] * self.heads_of(h_ABTD)
        return (change_ABTHK + (g1_AH[..., None] * stack(self.bias))[:, None, None]).flatten(-2)

    def _logs(self) -> torch.Tensor:
        """log_alpha_2AH of both kinds of gate."""
        return torch.stack([stack(self.log_bias), stack(self.log_scale)])

    def _gate(self, log_2AH: torch.Tensor) -> torch.Tensor:
        if self.training:
            assert self._noise_2AH is not None, "before_step draws the noise of a step"
            log_2AH = (self._noise_2AH + log_2AH) / TEMPERATURE
        return (log_2AH.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def replica_buffers(self, replica: int) -> Iterator[tuple[str, torch.Tensor]]:
        if self._gates.schedule == "performance":
            yield "balance", self.get_buffer(f"balance_{replica}")

    @classmethod
    def before_step(cls, parts: Mapping[str, Jola], *, step: int, steps: int) -> None:
        for name, part in parts.items():
            u_A2H = torch.stack([_uniform(f"{seed} {name} {step}", 2, part.heads) for seed in part.seeds])
            noise_A2H = u_A2H.mul(1 - 2 * EPSILON).add(EPSILON).logit()
            part._noise_2AH = noise_A2H.transpose(0, 1).to(part.bias[0].device)

    @classmethod
    def penalty(cls, parts: Mapping[str, Jola], *, step: int, steps: int) -> torch.Tensor | None:
        first, *_ = parts.values()
        weight_A = first._weight(step, steps)
        norms_2A = torch.stack([_open(part._logs()) for part in parts.values()]).sum(0)
        # The authors add nothing, not even the other gates' term, where lambda is exactly 0.
        penalty_A = torch.where(weight_A > 0, weight_A * norms_2A[0] + (1 - weight_A) * norms_2A[1], 0)
        penalty_A = penalty_A / sum(part.heads for part in parts.values())
        for part in parts.values():
            for replica, (_, balance) in enumerate(part._balances()):
                balance[1] = penalty_A[replica].detach()
        return penalty_A

    @classmethod
    def after_step(cls, parts: Mapping[str, Jola], *, losses: Sequence[float]) -> None:
        for part in parts.values():
            for replica, (change, balance) in enumerate(part._balances()):
                loss = losses[replica] + balance[1]
                balance[0] = (balance[0] + (change if loss < balance[2] else -change)).clamp(0, 1)
                balance[2] = loss

    def _balances(self) -> Iterator[tuple[float, torch.Tensor]]:
        for replica in range(len(self.seeds)):
            for _, balance in self.replica_buffers(replica):
                yield self._gates.change, balance

    def _weight(self, step: int, steps: int) -> torch.Tensor:
        """lambda at step `step`, one a replica."""
        if self._gates.schedule == "performance":
            return torch.stack([balance[0] for _, balance in self._balances()])
        value = gate_weight(self._gates, step=step, steps=steps)
        return torch.full((len(self.seeds),), value, device=self.bias[0].device)


def gate_weight(gates: GatesConfig, *, step: int, steps: int) -> float:
    """JoLA's lambda at step `step` of `steps` by the schedules that do not look at the loss (its code's trainer).

    The first step uses the start, the n-th what the schedule gives after n - 1 steps.
    """
    done, start = step - 1, float(gates.start)
    if done == 0:
        return start
    if gates.schedule == "exponential":
        return start * math.exp(-gates.decay * done)
    if gates.schedule == "linear":
        return start + (gates.end - start) * done / steps
    return 0.5 + 0.5 * math.sin(2 * math.pi * done / gates.cycle)


def _open(log_2AH: torch.Tensor) -> torch.Tensor:
    """The mean over heads of a gate's probability of not being closed, for both kinds of gate."""
    return (log_2AH - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid().clamp(EPSILON, 1 - EPSILON).mean(-1)


def _uniform(key: str, *shape: int) -> torch.Tensor:
    """Numbers of U(0, 1) that follow from a text alone, on every device the same."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
