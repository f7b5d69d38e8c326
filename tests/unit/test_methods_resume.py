"""A resumed training of every method with a state of its own equals an uninterrupted one bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import attached, base_of, method_config, some_rows, training_config

from actshift.schema.config import ScheduleConfig
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

MODEL = "random-llama"
METHODS = {
    "reft": ("reft",),
    "reft_published": ("reft_published",),
    "lofit_two_stage": ("lofit_two_stage",),
    "jola": ("jola",),
    "jola, performance": ("jola", "method.gates.schedule=performance"),
    "joint": ("joint", "method.lora_lr=1e-3"),
    "joint_orth": ("joint_orth",),
    "joint_orth, once": ("joint_orth", "method.orthogonality.every=start"),
}


class Interrupted(Exception):
    """What a kill looks like from inside."""


def run(config: dict[str, Any], folder: Path, *, stop: int = 0) -> tuple[list[float], dict[str, torch.Tensor]]:
    """6 steps, a checkpoint after each second; `stop` says after which step the kill comes."""

    def progress(step: int, *_: Any) -> None:
        if step == stop:
            raise Interrupted

    base = base_of(MODEL)
    with attached(base, config, seeds=(3,)) as adaptation:
        (curves,) = train(
            base,
            adaptation,
            rows=some_rows(base, 12),
            validation_rows=some_rows(base, 4, seed=50),
            training=training_config(batch_size=4, epochs=2, validations=3, schedule=ScheduleConfig("cosine", 0.2)),
            lrs=(1e-2,),
            seeds=(3,),
            micro_batch=2,
            checkpoints=Checkpoints(folder, every=2),
            progress=progress,
        )
        return curves.loss, adaptation.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_training_is_the_uninterrupted_one(method: str, tmp_path: Path) -> None:
    config = method_config(*METHODS[method], model=MODEL)
    losses, state = run(config, tmp_path / "whole")
    for stop in (3, 5):  # before and after LoFiT's stages change, which is after step 3
        with pytest.raises(Interrupted):
            run(config, tmp_path / str(stop), stop=stop)
        resumed_losses, resumed = run(config, tmp_path / str(stop))
        assert resumed_losses == losses
        assert resumed.keys() == state.keys() and all(torch.equal(resumed[name], state[name]) for name in state)
