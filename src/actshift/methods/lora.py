"""LoRA by peft: W <- W + (alpha / r) B A on the targeted projections."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from actshift.methods.base import Adaptation
from actshift.models.architectures import ARCHITECTURES, projection_names
from actshift.models.loading import Base


class Lora(Adaptation):
    """peft's LoRA in float32 over the frozen base: A Kaiming-uniform, B zero, so a no-op at the start."""

    def __init__(self, base: Base, *, config: Mapping[str, Any], seeds: Sequence[int]) -> None:
        (seed,) = seeds
        lora = LoraConfig(
            r=config["rank"],
            lora_alpha=config["alpha"],
            lora_dropout=config["dropout"],
            target_modules=projection_names(config["targets"], ARCHITECTURES[base.sites.architecture].fused),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft asks transformers for a name that transformers 5 deprecates.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            torch.manual_seed(seed)
            self._peft = get_peft_model(base.model, lora)
        self._dropout = config["dropout"]
        if not self._dropout:
            for module in self._peft.modules():
                if isinstance(module, LoraLayer):
                    module.forward = partial(_forward, module)
        base.model.eval()  # peft's modules start in training mode: dropout would act at evaluation
        self._base = base

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self._base.model.named_parameters():
            if "lora_" in name:
                yield name.replace(".default", ""), parameter

    def shared_prefix_length(self, prompt_BT: torch.Tensor) -> int:
        """Dropout draws for every token of every row."""
        return 0 if self._dropout else super().shared_prefix_length(prompt_BT)

    def output(self, layer: int, *, projection: str) -> nn.Parameter:
        """B (D x R) of a projection of one layer: its columns span what LoRA adds to the projection's output."""
        for name, module in self._base.sites.module("post_block", layer).named_modules():
            if name.endswith(f"{projection}.lora_B"):
                weight: nn.Parameter = module.get_submodule("default").weight
                return weight
        raise KeyError(f"no LoRA on {projection} of layer {layer}")

    def detach(self) -> None:
        self._peft.unload()
        # peft marks a model that it has been on, and warns when it comes again.
        if hasattr(self._base.model, "peft_config"):
            del self._base.model.peft_config
        self._base.model.requires_grad_(False)


def _forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    """y + s B A x as one product onto the sum, where peft makes three passes over the output and keeps more of them."""
    y: torch.Tensor = module.base_layer(x)
    if module.disable_adapters:
        return y
    (A_RD, B_ER), scale = (each["default"].weight for each in (module.lora_A, module.lora_B)), module.scaling["default"]
    code_NR = torch.nn.functional.linear(x.to(A_RD.dtype), A_RD).flatten(0, -2)
    changed_NE = torch.addmm(y.to(B_ER.dtype).flatten(0, -2), code_NR, B_ER.mT, alpha=scale)
    return changed_NE.view_as(y).to(y.dtype)
