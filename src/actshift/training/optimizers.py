"""Optimizers by name (`training.optimizer`): AdamW as torch has it, and with less memory as torchao has it.

All of them are AdamW by the same formula. They differ in what each number that trains needs beside itself and its
gradient, and in how a bfloat16 weight takes an update that is smaller than its last digit (`actshift.schema.config`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from hashlib import sha256
from typing import Any

import torch

from actshift.errors import unknown
from actshift.libraries.private import torchao_adamw, torchao_state_8bit
from actshift.schema.config import OPTIMIZERS

PARTS = ("codes", "scale", "qmap")
"""What an 8-bit state is made of: a byte a number, the largest magnitude of each block of 256, what a byte means."""


def build_optimizer(
    name: str, groups: Sequence[dict[str, Any]], *, weight_decay: float, seed: int
) -> torch.optim.Optimizer:
    """The optimizer of that name over some parameter groups. What it draws follows from `seed` and the step alone.

    Errors: an unknown name. That torchao is there and that the name fits what trains is validation's to say.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS, where="training.optimizer=...")
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    kind: Any = _kinds()[name]
    optimizer: torch.optim.Optimizer = kind(groups, weight_decay=weight_decay, bf16_stochastic_round=True)
    assert isinstance(optimizer, LowMemory)
    optimizer.seed = seed
    return optimizer


class LowMemory(torch.optim.Optimizer):
    """What torchao's optimizers lack to be optimizers of this project; the arithmetic is theirs.

    Learning rates are plain numbers outside of a step, so that schedules, curves and checkpoints are what they are
    with torch's. What a step draws follows from the seed and the step, whatever else drew before it. `state_dict`
    has plain tensors alone, fit for safetensors.
    """

    seed: int = 0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        rate = param_group.get("lr", self.defaults["lr"])
        super().add_param_group(param_group)
        self.param_groups[-1]["lr"] = rate  # theirs made a tensor of it, rounded to float32

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = torch.tensor(rate, dtype=torch.float32)
        try:
            with self._drawing(), _eager(self._device):
                return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["state"] = {index: _apart(values) for index, values in state["state"].items()}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        whole = {index: _together(values) for index, values in state_dict["state"].items()}
        super().load_state_dict({**state_dict, "state": whole})

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.param_groups[0]["params"][0].device
        return device

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """The generators seeded for the coming step, and afterwards as they were."""
        done = max((int(state["step"]) for state in self.state.values()), default=0)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            # Hashed, since a CPU's generator looks at the low 32 bits of a seed alone.
            torch.manual_seed(int.from_bytes(sha256(f"{self.seed} {done + 1}".encode()).digest()[:4]))
            yield


def _eager(device: torch.device) -> Any:
    """On a CPU, theirs without the compilation that they ask for: it takes longer than small models train.

    On CUDA compilation is needed, since an eager step holds several float32 copies of the largest weight.
    """
    return torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext()


def _apart(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A parameter's state as plain tensors: an 8-bit one becomes its parts, named below it."""
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if hasattr(tensor, "codes"):
            plain |= {f"{name}.{part}": getattr(tensor, part) for part in PARTS}
        else:
            plain[name] = tensor
    return plain


def _together(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The state that was taken `_apart`."""
    whole: dict[str, Any] = {name: tensor for name, tensor in state.items() if "." not in name}
    for name in {key.partition(".")[0] for key in state if "." in key}:
        codes, scale, qmap = (state[f"{name}.{part}"] for part in PARTS)
        whole[name] = torchao_state_8bit()(codes, scale, qmap, signed=bool(qmap.min() < 0))
    return whole


@cache
def _kinds() -> dict[str, type]:
    """Our optimizers that are torchao's."""
    import torchao.optim

    return {
        "adamw_8bit": type("AdamW8bit", (LowMemory, torchao.optim.AdamW8bit), {}),
        "adamw_bf16_stochastic": type("AdamWStochastic", (LowMemory, torchao_adamw()), {}),
    }
