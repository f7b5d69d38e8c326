"""LoRA by peft: W <- W + (alpha / r) B A on the targeted projections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from actshift.methods.peft_methods import PeftMethod
from actshift.models.loading import Base
from actshift.schema.method import LoraOptions


class Lora(PeftMethod):
    """peft's LoRA in float32 over the frozen base: A Kaiming-uniform, B zero, so a no-op at the start."""

    def __init__(self, base: Base, *, config: LoraOptions, seeds: Sequence[int]) -> None:
        super().__init__(base, config=config, seeds=seeds)
        if not config.dropout:
            for module in self._peft.modules():
                if isinstance(module, LoraLayer):
                    module.forward = partial(_forward, module)

    @staticmethod
    def settings(config: LoraOptions) -> LoraConfig:
        return LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=list(config.targets),
            task_type="CAUSAL_LM",
        )

    def output(self, layer: int, *, projection: str) -> nn.Parameter:
        """B (D x R) of a projection of one layer: its columns span what LoRA adds to the projection's output."""
        for name, module in self._base.sites.module("post_block", layer).named_modules():
            if name.endswith(f"{projection}.lora_B"):
                weight: nn.Parameter = module.get_submodule("default").weight
                return weight
        raise KeyError(f"no LoRA on {projection} of layer {layer}")


def _forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    """y + s B A x as one product onto the sum, where peft makes three passes over the output and keeps more of them."""
    y: torch.Tensor = module.base_layer(x)
    if module.disable_adapters:
        return y
    (A_RD, B_ER), scale = (each["default"].weight for each in (module.lora_A, module.lora_B)), module.scaling["default"]
    code_NR = torch.nn.functional.linear(x.to(A_RD.dtype), A_RD).flatten(0, -2)
    changed_NE = torch.addmm(y.to(B_ER.dtype).flatten(0, -2), code_NR, B_ER.mT, alpha=scale)
    return changed_NE.view_as(y).to(y.dtype)
