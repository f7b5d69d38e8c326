"""The authors' steerer (SprocketLab/steerling, steerer.py), run as it is from a checkout."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from ours import base_logits, filled
from reference import expected, numbers, rows, ten_steps

MODELS = ("random-llama", "random-qwen3", "random-gemma3")
CASES = ("linear", "silu", "relu", "gelu", "tanh", "vector")


def released(checkout: Path, file: str) -> Any:
    """A module of the checkout."""
    spec = importlib.util.spec_from_file_location(f"released_{file}", checkout / f"{file}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(checkout: Path, base: torch.nn.Module, case: str, *, rank: int = 8) -> tuple[torch.Tensor, list[float]]:
    """Logits with given adapters on every block's output, and the losses of ten steps from there."""
    code = released(checkout, "steerer")
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    if case == "vector":
        model = code.FixedVectorSteerer(base, targets=("block",), apply_to="all")
        parameters = list(model.deltas.values())
    else:
        activation = None if case == "linear" else case
        model = code.AdapterSteerer(base, targets=("block",), rank=rank, apply_to="all", activation=activation)
        parameters = list(model.adapters.parameters())
    with torch.no_grad():
        for layer in range(len(base.model.layers)):
            for name, weight in weights(model, layer, case).items():
                weight.copy_(given(name, layer, weight))
    with torch.no_grad():
        logits = model(input_ids=rows()).logits
    losses = ten_steps(lambda ids: model(input_ids=ids).logits, parameters)
    for hook in model._hooks:
        hook.remove()
    return logits, losses


def results(checkout: Path) -> dict[str, Any]:
    """What steerer.json keeps."""
    return {
        "bases": {model: base_logits(model).tolist() for model in MODELS},
        "cases": {
            f"{model} {case}": expected(*measured(checkout, filled(model).model, case))
            for model in MODELS
            for case in CASES
        },
    }


def weights(model: Any, layer: int, case: str) -> dict[str, torch.Tensor]:
    if case == "vector":
        return {"vector": model.deltas[f"layer{layer}_block"]}
    adapter = model.adapters[f"layer{layer}_block"]
    return {"down": adapter.down.weight, "up": adapter.up.weight}


def given(name: str, layer: int, like: torch.Tensor) -> torch.Tensor:
    """The value of an adapter's tensor, by what it is and where."""
    return numbers(f"{name} {layer}", *like.shape, scale=0.05)
