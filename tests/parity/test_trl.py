"""The same rollouts and rewards through TRL's GRPOTrainer: loss and gradients of a LoRA adapter are equal.

TRL takes adapters of peft alone. No requirement of this project has it: where it is not installed, this is skipped.
docs/rl.md names the version that these were last compared with.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapted import ByLength, attached, base_of, composed, method_config, perturb, some_prompts
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from actshift.data.examples import Example
from actshift.methods.base import Adaptation
from actshift.objectives.grpo import Grpo, Scored, Settings
from actshift.paths import embedded_model_dir
from actshift.schema.method import LoraConfig
from actshift.schema.objective import GrpoConfig, RewardsConfig

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("default")]
trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl")

GROUP, PROMPTS, LIMIT = 4, 3, 8
"""Completions of a prompt, prompts of a step, tokens that a completion may have."""
TOLERANCE = 1e-5
NAMES = {"token": "dapo", "sequence": "grpo", "constant": "dr_grpo"}
"""Our names of ways to average a loss: TRL's."""

Gradients = dict[str, torch.Tensor]


def objective(**changes: Any) -> GrpoConfig:
    config = composed("objective=grpo").objective
    assert isinstance(config, GrpoConfig)
    rewards = {"accuracy": 2.0, "format": 0.0, "think": 0.0, "length": 0.5}
    return replace(config, completions=GROUP, max_new_tokens=LIMIT, rewards=RewardsConfig(**rewards), **changes)


def ours(adaptation: Adaptation, *, micro_batch: int, **changes: Any) -> tuple[float, Gradients, list[Scored]]:
    """Loss, gradients and rollouts of one step."""
    base = base_of("tiny")
    prompts = some_prompts(base, [3, 6, 4])
    settings = Settings(objective(**changes), ByLength(), [3], {base.tokenizer.eos_token_id}, micro_batch, 10**6)
    one = Grpo(base, adaptation, settings)
    one.prepare([[Example([*ids, 5], len(ids), label="") for ids in prompts]], step=1)
    (loss,) = one.backward(0, alive=[0])
    found = {name: parameter.grad for name, parameter in adaptation.named_parameters()}
    return loss, {name: grad.clone() for name, grad in found.items() if grad is not None}, list(one._blocks[0])


class Gathered(TrainerCallback):
    """The gradients as they are before the optimizer takes them."""

    def __init__(self) -> None:
        self.gradients: Gradients = {}

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.gradients = {
            name.removeprefix("base_model.model.").replace(".default", ""): parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }


def theirs(
    folder: Path, state: Gradients, config: LoraConfig, rollouts: list[Scored], *, accumulation: int,
    **settings: Any,
) -> tuple[float, Gradients]:  # fmt: skip
    """What TRL's trainer makes of the same adapter, rollouts and rewards in one optimizer step."""
    base = base_of("tiny")
    model = AutoModelForCausalLM.from_pretrained(embedded_model_dir("tiny_llama"), dtype=torch.float32)
    lora = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, lora)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in state.items():
            inside = name.replace("lora_A.weight", "lora_A.default.weight").replace(
                "lora_B.weight", "lora_B.default.weight"
            )
            parameters[f"base_model.model.{inside}"].copy_(tensor)
    groups = [rollouts[start : start + GROUP] for start in range(0, len(rollouts), GROUP)]

    def roll_out(prompts: list[str], trainer: Any) -> dict[str, Any]:
        chosen = [groups[int(prompt)][index % GROUP] for index, prompt in enumerate(prompts)]
        return {
            "prompt_ids": [row.ids[: row.prompt_length] for row in chosen],
            "completion_ids": [row.completion for row in chosen],
            "logprobs": [list(row.sampled) for row in chosen],
        }

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [
            2.0 * ByLength().score(text, "") + 0.5 * (1 - len(ids) / LIMIT)
            for text, ids in zip(completions, completion_ids, strict=True)
        ]

    gathered = Gathered()
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=reward,
        rollout_func=roll_out,
        train_dataset=Dataset.from_list([{"prompt": str(number)} for number in range(PROMPTS)]),
        processing_class=base.tokenizer,
        callbacks=[gathered],
        args=trl.GRPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, max_steps=1, report_to=[],
            num_generations=GROUP, max_completion_length=LIMIT, shuffle_dataset=False, save_strategy="no",
            per_device_train_batch_size=GROUP * PROMPTS // accumulation, gradient_accumulation_steps=accumulation,
            logging_steps=1, max_grad_norm=1e9, disable_tqdm=True, **settings,
        ),
    )  # fmt: skip
    trainer.train()
    return float(trainer.state.log_history[0]["loss"]), gathered.gradients


@pytest.mark.parametrize("normalization", list(NAMES))
@pytest.mark.parametrize("scaled", [True, False])
def test_loss_and_gradients_are_those_of_trl(normalization: str, scaled: bool, tmp_path: Path) -> None:
    base, config = base_of("tiny"), method_config("lora_r8", model="tiny")
    with attached(base, config) as adaptation:
        perturb(adaptation)
        loss, gradients, rollouts = ours(adaptation, micro_batch=5, normalization=normalization, scale_by_std=scaled)
        state = adaptation.state_dict()
    # Where a mean is over each micro-batch, TRL's accumulation changes it, and ours does not.
    accumulation = 3 if normalization == "token" else 1
    expected_loss, expected = theirs(
        tmp_path, state, config, rollouts, accumulation=accumulation, loss_type=NAMES[normalization],
        scale_rewards="group" if scaled else "none", beta=0.0,
    )  # fmt: skip
    assert loss == pytest.approx(expected_loss, abs=TOLERANCE)
    assert gradients.keys() == expected.keys() and len(gradients) > 8
    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-3
    assert max(float((gradients[name] - grad).abs().max()) for name, grad in expected.items()) < TOLERANCE
