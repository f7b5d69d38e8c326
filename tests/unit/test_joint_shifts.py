"""What the constraint is for (Section 6.5, Figure 5): the cosine between what the two parts add to the residual stream.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from adapted import attached, base_of, composed, method_config, training_config
from torch.utils.hooks import RemovableHandle

from actshift.data.examples import tokenize
from actshift.data.splits import load_split
from actshift.methods.joint import Joint
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.schema.config import ScheduleConfig
from actshift.tasks import get_task
from actshift.training.batches import Batch, collate
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

STEPS, PROMPTS = 100, 64


@dataclass
class Cosines:
    """Between the adapter's shift and LoRA's, at prompt tokens: of the whole MLP's output, of down_proj's alone."""

    mlp: torch.Tensor
    down_proj: torch.Tensor


@torch.no_grad()
def cosines(base: Base, joint: Joint, batch: Batch, *, layer: int) -> Cosines:
    """LoRA's shift is the output with it less the output without, on the same input."""
    seen: dict[str, torch.Tensor] = {}
    modules = {"adapter": joint._steering.part(layer), "mlp": base.sites.module("post_mlp", layer)}
    modules["down_proj"] = modules["mlp"].get_submodule("down_proj")

    def note(name: str) -> RemovableHandle:
        return modules[name].register_forward_pre_hook(lambda _, inputs: seen.update({name: inputs[0]}))

    hooks = [note(name) for name in modules]
    joint.begin_pass(ForwardPass(batch.prompt_BT))
    base.model(input_ids=batch.ids_BT)
    for hook in hooks:
        hook.remove()
    outputs_BTD = {name: module(seen[name]) for name, module in modules.items()}
    with joint._lora._peft.disable_adapter():
        shifts_BTD = {name: outputs_BTD[name] - modules[name](seen[name]) for name in ("mlp", "down_proj")}
    adapter_ND = outputs_BTD["adapter"][0][batch.prompt_BT]
    return Cosines(
        **{
            name: torch.cosine_similarity(adapter_ND, shift_BTD[batch.prompt_BT], dim=-1)
            for name, shift_BTD in shifts_BTD.items()
        }
    )


def measured(method: str, folder: Path, *, seed: int) -> Cosines:
    """The cosines of all layers after 100 steps on procedural Winogrande."""
    config, base = composed("model=tiny", "dataset=winogrande"), base_of("tiny")
    rows = tokenize(
        load_split(config, "train"),
        task=get_task("winogrande"),
        tokenizer=base.tokenizer,
        end_token=True,
        max_tokens=None,
        cache=folder,
    )
    with attached(base, method_config(method, model="tiny"), seeds=(seed,)) as joint:
        assert isinstance(joint, Joint)
        train(
            base,
            joint,
            rows=rows,
            validation_rows=(),
            training=training_config(max_steps=STEPS, schedule=ScheduleConfig("cosine", 0.06)),
            lrs=(3e-3,),
            seeds=(seed,),
            micro_batch=8,
            checkpoints=Checkpoints(folder, every=0),
            progress=lambda *_: None,
        )
        batch = collate([rows[-1 - place] for place in range(PROMPTS)], pad_id=base.pad_id, device=base.device)
        layers = [cosines(base, joint, batch, layer=layer) for layer in range(base.sites.layers)]
    return Cosines(torch.cat([each.mlp for each in layers]), torch.cat([each.down_proj for each in layers]))


@pytest.mark.slow
def test_the_shifts_are_orthogonal_under_the_constraint_and_not_without(tmp_path: Path) -> None:
    """Exactly so for down_proj, which the constraint is against. The MLP's output also moves through W_down itself,
    by LoRA on gate and up, and that part is only what chance makes it."""
    naive, held = (measured(method, tmp_path, seed=42) for method in ("joint", "joint_orth"))
    for name, found in (("joint", naive), ("joint_orth", held)):
        print(f"{name}: mlp {found.mlp.mean():.3f} +- {found.mlp.std():.3f}, down_proj {found.down_proj.mean():.1e}")
    assert held.down_proj.abs().max() < 1e-5 < 0.1 < naive.down_proj.mean()
    assert abs(held.mlp.mean()) < held.mlp.std() and naive.mlp.mean() > naive.mlp.std()
    assert naive.mlp.mean() > 2 * abs(held.mlp.mean())
