"""Our side of a comparison: the project's methods and its training loop on the weights and rows of `reference`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from adapted import another_base, training_config
from reference import BASE, LOGITS, PROMPT, RATE, STEPS, fill, rows, shown

from actshift.data.examples import Example
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.schema.config import ScheduleConfig
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

FOLDER = Path(__file__).parent
CONSTANT = ScheduleConfig(kind="constant", warmup=0.0)


def filled(model: str) -> Base:
    """A base model with the weights of `reference.fill`."""
    base = another_base(model)
    fill(base.model)
    base.model.tie_weights()
    return base


def prompts(prompt: int = PROMPT) -> torch.Tensor:
    """prompt_BT of the rows."""
    prompt_BT = torch.zeros_like(rows(prompt), dtype=torch.bool)
    prompt_BT[:, :prompt] = True
    return prompt_BT


@torch.no_grad()
def logits(base: Base, adaptation: Adaptation, *, prompt: int = PROMPT) -> torch.Tensor:
    """The logits of all rows, their beginnings being prompt."""
    adaptation.begin_pass(ForwardPass(prompts(prompt)))
    output: torch.Tensor = base.model(input_ids=rows(prompt)).logits
    return output


def losses(base: Base, adaptation: Adaptation, *, prompt: int = PROMPT) -> list[float]:
    """The losses of ten steps of our loop, every row in each."""
    examples = [Example(ids=ids, prompt_length=prompt, label="") for ids in rows(prompt).tolist()]
    plan = {"batch_size": len(examples), "epochs": STEPS, "max_steps": None, "schedule": CONSTANT}
    with tempfile.TemporaryDirectory() as folder:
        (curves,) = train(
            base,
            adaptation,
            rows=examples,
            validation_rows=[],
            training=training_config(**plan, weight_decay=0.0, clip=0.0),
            lrs=(RATE,),
            seeds=(0,),
            micro_batch=len(examples),
            checkpoints=Checkpoints(Path(folder), every=0),
            progress=lambda *_: None,
        )
    return curves.loss


@torch.no_grad()
def give(adaptation: Adaptation, value: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Set every parameter of an adaptation, by its name."""
    for name, parameter in adaptation.named_parameters():
        parameter.copy_(value(name, parameter))


@cache
def kept(name: str) -> dict[str, Any]:
    """A file of expected numbers."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def apart(a: list[float] | torch.Tensor, b: list[float] | torch.Tensor) -> float:
    """The largest difference between two rows of numbers."""
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


@cache
@torch.no_grad()
def base_logits(model: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What a file keeps of a base model with no method on, here; in float64 it has no rounding worth the name."""
    return shown(filled(model).model.to(dtype)(input_ids=rows()).logits)


def tolerance(model: str, bases: dict[str, list[float]]) -> float:
    """How far logits may be from those of a machine where the base models gave `bases` (see `reference.BASE`)."""
    machines = apart(base_logits(model), bases[model])
    assert machines <= 1e-4, "not the same base model"
    rounding = apart(base_logits(model), base_logits(model, torch.float64).float())
    return LOGITS + BASE * max(machines, rounding)
