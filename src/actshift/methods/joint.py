"""Joint: LoRA and steering trained together over one base, with or without the orthogonality constraint.

Shapes: L steered layers, D model width, R rank of the steering part, S rank of LoRA (times the projections looked at).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from actshift.methods.base import Adaptation
from actshift.methods.lora import Lora
from actshift.methods.parameterizations import Linear
from actshift.methods.steering import Steering
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.schema.method import JointConfig


class Joint(Adaptation):
    """W <- W + (alpha / r) B A and h <- h + W2 phi(W1 h) at once. Trains what the two parts train (Section 4.1).

    Under `orthogonality` (Section 5.2), V is an orthonormal basis of the column space of B, of every layer by itself,
    and ``project: output`` keeps W2 <- (I - V V^T) W2 (the paper), ``input`` W1 <- W1 (I - V V^T) (the released code).
    ``every: step`` projects after each optimizer step, so that it holds at every forward pass and in what is saved.
    Where B is 0, as at the start, V is empty.
    # released: an arbitrary basis of D x S where B is 0, and nothing after the last step / here: see above.
    """

    def __init__(self, base: Base, *, config: JointConfig, seeds: Sequence[int]) -> None:
        # LoRA first: it replaces modules that carry sites.
        self._lora = Lora(base, config=config.lora, seeds=seeds)
        self._steering = Steering(base, config=config.steering, seeds=seeds)
        self._parts: dict[str, Adaptation] = {"steering": self._steering, "lora": self._lora}
        self._lora_lr: float | None = config.lora_lr
        self._constraint = config.orthogonality
        self._epoch = 0
        self.changes_copies = self._steering.changes_copies

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        for part_name, part in self._parts.items():
            yield from ((f"{part_name}.{name}", parameter) for name, parameter in part.named_parameters())

    def named_buffers(self, replica: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
        for part_name, part in self._parts.items():
            yield from ((f"{part_name}.{name}", buffer) for name, buffer in part.named_buffers())

    def load_state_dict(self, state: Mapping[str, torch.Tensor], replica: int = 0) -> None:
        super().load_state_dict(state, replica)
        self._steering.loaded()

    def parameter_groups(self, *, lrs: tuple[float, ...]) -> list[dict]:
        """One group; two where LoRA has a rate of its own, steering first: its rate is the run's."""
        if self._lora_lr is None:
            return super().parameter_groups(lrs=lrs)
        return self._steering.parameter_groups(lrs=lrs) + self._lora.parameter_groups(lrs=(self._lora_lr,))

    def fold(self) -> None:
        self._steering.check_fold()
        # LoRA first: what stands beside a site is then a matrix again.
        self._lora.fold()
        self._steering.fold()

    def begin_pass(self, forward_pass: ForwardPass) -> None:
        self._steering.begin_pass(forward_pass)

    def shared_prefix_length(self, prompt_BT: torch.Tensor) -> int:
        return min(part.shared_prefix_length(prompt_BT) for part in self._parts.values())

    def begin(self, *, steps: int, steps_per_epoch: int) -> None:
        self._epoch = steps_per_epoch
        self._steering.begin(steps=steps, steps_per_epoch=steps_per_epoch)

    def before_step(self, step: int) -> None:
        self._steering.before_step(step)
        # Not in `begin`, which a resumed training calls again.
        if step == 1 and self._constraint.project:
            self.project()

    def penalty(self, step: int) -> torch.Tensor | None:
        return self._steering.penalty(step)

    def after_step(self, step: int, losses: Sequence[float] = ()) -> None:
        self._steering.after_step(step, losses)
        if self._constraint.project:
            every = self._constraint.every
            period = {"step": 1, "epoch": self._epoch}.get(every, every)
            if period != "start" and step % period == 0:
                self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Take V out of W2, or of W1, in every steered layer. In float64: rounding to float32 comes last and once."""
        layers, against = self._steering.layers, self._constraint.against
        written_LDS = torch.stack(
            [torch.cat([self._lora.output(layer, projection=name) for name in against], dim=1) for layer in layers]
        )
        V_LDS = column_basis(written_LDS)
        for V_DS, layer in zip(V_LDS, layers, strict=True):
            for part in self._steering.parts(layer):
                assert isinstance(part, Linear)
                if self._constraint.project == "output":
                    (W2_DR,) = part.up
                    W2_DR.copy_(W2_DR - V_DS @ (V_DS.mT @ W2_DR.double()))
                else:
                    (W1_RD,) = part.down
                    W1_RD.copy_(W1_RD - (W1_RD.double() @ V_DS) @ V_DS.mT)

    def detach(self) -> None:
        self._steering.detach()  # its hooks may sit on modules that LoRA takes away
        self._lora.detach()


def column_basis(matrices_LDS: torch.Tensor) -> torch.Tensor:
    """Orthonormal bases V of column spaces, in float64; a column of V beyond a matrix's numerical rank is 0."""
    U_LDS, sizes_LS, _ = torch.linalg.svd(matrices_LDS.double(), full_matrices=False)
    smallest_L1 = sizes_LS[:, :1] * matrices_LDS.shape[1] * torch.finfo(torch.float64).eps
    return U_LDS * (sizes_LS > smallest_L1)[:, None, :]
