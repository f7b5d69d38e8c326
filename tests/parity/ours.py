"""Our side of a comparison: the project's methods and its training loop on the weights and rows of `reference`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from adapted import another_base, training_config
from reference import PROMPT, RATE, SHOWN, STEPS, fill, rows

from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.tasks.examples import Example
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

FOLDER = Path(__file__).parent
CONSTANT = {"kind": "constant", "warmup": 0.0}


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
    adaptation.observe(prompts(prompt))
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


def kept(name: str) -> dict[str, Any]:
    """The cases of a file of expected numbers."""
    cases: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    return cases


def apart(a: list[float] | torch.Tensor, b: list[float] | torch.Tensor) -> float:
    """The largest difference between two rows of numbers."""
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


def first(logits_BTV: torch.Tensor) -> torch.Tensor:
    """The logits that a file of expected numbers keeps."""
    return logits_BTV[0, -1, :SHOWN]
