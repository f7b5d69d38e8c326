"""The variants of the authors' steerer: `targets` (--submodules) and `apply_to="last"` (--intervene-last)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ours import base_logits, filled
from reference import PROMPT, expected, rows, ten_steps
from steerer_reference import given, released

MODELS = ("random-llama", "random-qwen3", "random-gemma3")
CASES = ("submodules", "submodules vector", "last", "last vector")
NEW = 6
"""How many tokens each prompt is continued by."""
SITES = {"attn": "pre_mlp", "mlp": "post_mlp", "block": "post_block"}
"""Where the released hooks sit: the one that it calls attention is on the norm before the MLP."""


def fits(model: str, case: str) -> bool:
    """Whether the released hooks sit where the paper's sites are: on Gemma 3 that norm is another one."""
    return not (model == "random-gemma3" and case.startswith("submodules"))


def measured(checkout: Path, base: torch.nn.Module, case: str, *, rank: int = 8) -> dict[str, Any]:
    """Logits with given adapters, the losses of ten steps from there, and where they act last, greedy continuations."""
    code, is_last = released(checkout, "steerer"), case.startswith("last")
    base.requires_grad_(False)
    options = {"targets": ("block",) if is_last else ("mlp", "attn"), "apply_to": "last" if is_last else "all"}
    if case.endswith("vector"):
        model = code.FixedVectorSteerer(base, **options)
        tensors = {(key, "vector"): delta for key, delta in model.deltas.items()}
    else:
        model = code.AdapterSteerer(base, rank=rank, activation=None, **options)
        parts = {"down": lambda adapter: adapter.down.weight, "up": lambda adapter: adapter.up.weight}
        tensors = {(key, name): of(each) for key, each in model.adapters.items() for name, of in parts.items()}
    with torch.no_grad():
        for (key, name), tensor in tensors.items():
            layer, target = key.removeprefix("layer").split("_")
            tensor.copy_(given(f"{name} {SITES[target]}", int(layer), tensor))
        logits_BTV = model(input_ids=rows()).logits
        prompts = rows()[:, :PROMPT]
        greedy = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        found = {
            name: model.generate(input_ids=prompts, use_cache=cached, **greedy)[:, PROMPT:].tolist()
            for name, cached in (("generated", True), ("generated_without_cache", False))
            if is_last
        }
    trainer = released(checkout, "custom_trainer").StepwiseTrainer

    def stepwise(ids_BT: torch.Tensor) -> torch.Tensor:
        labels_BT = torch.where(torch.arange(ids_BT.shape[1]) < PROMPT, -100, ids_BT)
        inputs = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "labels": labels_BT}
        loss: torch.Tensor = trainer.compute_loss(None, model, inputs)
        return loss

    losses = ten_steps(
        lambda ids: model(input_ids=ids).logits, tensors.values(), loss_of_rows=stepwise if is_last else None
    )
    for hook in model._hooks:
        hook.remove()
    return {**expected(logits_BTV, losses), **found}


def results(checkout: Path) -> dict[str, Any]:
    """What steerer_variants.json keeps."""
    return {
        "bases": {model: base_logits(model).tolist() for model in MODELS},
        "cases": {
            f"{model} {case}": measured(checkout, filled(model).model, case)
            for model in MODELS
            for case in CASES
            if fits(model, case)
        },
    }
