"""LoRA against plain use of peft: the same matrices, the same logits (1e-6) and ten losses (1e-5)."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from adapted import attached, method_config
from ours import apart, filled, give, logits, losses
from reference import LOGITS, LOSSES, numbers, rows, ten_steps

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def plain(base: Any, *, rank: int) -> tuple[torch.Tensor, list[float], int]:
    """peft as its documentation shows it, with its defaults (alpha 8, no dropout) but for rank and targets."""
    config = peft.LoraConfig(r=rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base.model, config)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for name, weight in trained.items():
            weight.copy_(numbers(_short(name), *weight.shape, scale=0.05))
        output = model(input_ids=rows()).logits
    count = sum(weight.numel() for weight in trained.values())
    return output, ten_steps(lambda ids: model(input_ids=ids).logits, trained.values()), count


def _short(name: str) -> str:
    """A matrix's name without what peft and we put before and behind it."""
    return name.removeprefix("base_model.model.").replace(".default", "").removesuffix(".weight")


@pytest.mark.parametrize("rank", [8, 16])
@pytest.mark.parametrize("model", ["random-llama", "random-qwen3", "random-gemma3"])
def test_lora_is_plain_peft(model: str, rank: int) -> None:
    their_logits, their_losses, count = plain(filled(model), rank=rank)
    base = filled(model)
    with attached(base, method_config(f"lora_r{rank}", model=model)) as adaptation:
        assert adaptation.trainable_parameters() == count
        give(adaptation, lambda name, like: numbers(_short(name), *like.shape, scale=0.05))
        assert apart(logits(base, adaptation), their_logits) <= LOGITS
        assert apart(losses(base, adaptation), their_losses) <= LOSSES
    assert their_losses[-1] < their_losses[0] - 0.01
