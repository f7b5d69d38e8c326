"""LoFiT in one stage, and in the two of its authors: scales, the choice of heads over all layers, biases.

Shapes: B rows, T tokens, L layers, H heads, K head size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import attached, base_of, logits, method_config, perturb, some_ids, some_rows, training_config

from actshift.methods.base import Adaptation
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

MODELS = {"random-llama": (4, 16), "random-qwen3": (4, 24), "random-gemma3": (4, 24)}
MODEL = "random-qwen3"
LAYERS = 3


def two_stages(*overrides: str) -> dict[str, Any]:
    return method_config("lofit_two_stage", "method.selection.heads=0.4", *overrides, model=MODEL)


def at_heads(base: Any, adaptation: Adaptation | None, layer: int) -> torch.Tensor:
    """o_BTD as it enters the output projection of a layer; the layers before it are left as they are."""
    seen: list[torch.Tensor] = []
    projection = base.sites.module("heads", layer)
    handle = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    logits(base, adaptation, some_ids(base, 2, 5))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("model", MODELS)
def test_one_stage_adds_a_vector_to_every_head(model: str) -> None:
    base, (H, K) = base_of(model), MODELS[model]
    assert base.sites.width("heads") == H * K and (base.sites.model_width == H * K) == (model == "random-llama")
    before_BTD = at_heads(base, None, 0)
    with attached(base, method_config("lofit", model=model)) as adaptation:
        v_HK = perturb(adaptation).state_dict()["0.heads.bias"]
        after_BTD = at_heads(base, adaptation, 0)
    assert v_HK.shape == (H, K)
    for head in range(H):
        place = slice(head * K, (head + 1) * K)
        torch.testing.assert_close(after_BTD[..., place], before_BTD[..., place] + v_HK[head], rtol=0, atol=1e-6)


def test_initial_values_are_small_and_normal() -> None:
    config = method_config("lofit", model="tiny")
    with attached(base_of("tiny"), config) as adaptation:
        values = torch.cat([tensor.flatten() for tensor in adaptation.state_dict().values()])
    assert len(values) == 4 * 128
    assert values.std().item() == pytest.approx(1e-3, rel=0.1) and abs(values.mean().item()) < 2e-4


def test_first_scales_then_the_largest_heads_of_all_layers_then_biases() -> None:
    base = base_of(MODEL)
    before_BTD = at_heads(base, None, 0)
    with attached(base, two_stages()) as adaptation:
        perturb(adaptation).begin(steps=10, steps_per_epoch=10)
        state = adaptation.state_dict()
        adaptation.before_step(5)
        assert adaptation.penalty(5) is not None
        scaled_BTD = at_heads(base, adaptation, 0)
        adaptation.before_step(6)
        assert adaptation.penalty(6) is None
        biased_BTD = at_heads(base, adaptation, 0)
        chosen = torch.stack([adaptation.state_dict()[f"{layer}.heads.chosen"] for layer in range(LAYERS)])
    scales, biases = (
        torch.stack([state[f"{layer}.heads.{name}"] for layer in range(LAYERS)]) for name in ("scale", "bias")
    )
    torch.testing.assert_close(scaled_BTD, before_BTD * (1 + scales[0].flatten()), rtol=1e-5, atol=1e-6)
    norms = scales.norm(dim=-1)
    assert chosen.sum() == int(0.4 * norms.numel()) == 4
    assert norms[chosen].min() > norms[~chosen].max()
    torch.testing.assert_close(
        biased_BTD, before_BTD + (biases[0] * chosen[0][:, None]).flatten(), rtol=1e-5, atol=1e-6
    )


def test_the_penalty_is_the_sum_of_the_absolute_scales() -> None:
    with attached(base_of(MODEL), two_stages("method.selection.penalty=0.01"), seeds=(0, 1)) as adaptation:
        perturb(adaptation).begin(steps=10, steps_per_epoch=10)
        scales = [t for a in (0, 1) for name, t in adaptation.state_dict(a).items() if name.endswith("scale")]
        penalty = adaptation.penalty(1)
        assert penalty is not None
    assert penalty.item() == pytest.approx(0.01 * sum(t.abs().sum().item() for t in scales), rel=1e-5)
    with attached(base_of(MODEL), two_stages("method.selection.penalty=0.0")) as adaptation:
        assert adaptation.penalty(1) is None


def test_training_moves_scales_first_and_then_only_the_chosen_biases(tmp_path: Path) -> None:
    base, seen = base_of(MODEL), []
    with attached(base, two_stages()) as adaptation:
        start = adaptation.state_dict()
        train(
            base,
            adaptation,
            rows=some_rows(base, 32),
            validation_rows=(),
            training=training_config(batch_size=4, epochs=1),
            lrs=(1e-2,),
            seeds=(0,),
            micro_batch=4,
            checkpoints=Checkpoints(tmp_path, every=0),
            progress=lambda *_: seen.append(adaptation.state_dict()),
        )
    middle, end = seen[3], seen[-1]
    assert len(seen) == 8
    for layer in range(LAYERS):
        scale, bias, chosen = (f"{layer}.heads.{name}" for name in ("scale", "bias", "chosen"))
        assert not torch.equal(middle[scale], start[scale]) and torch.equal(middle[bias], start[bias])
        assert torch.equal(end[scale], middle[scale])
        moved_H = (end[bias] != start[bias]).any(-1)
        assert torch.equal(moved_H, end[chosen])
        assert not middle[chosen].any() and not middle[f"{layer}.heads.second"] and end[f"{layer}.heads.second"]


def test_each_replica_chooses_for_itself_as_it_does_alone() -> None:
    base, choices = base_of(MODEL), {}
    for seeds in ((1, 2), (1,), (2,)):
        with attached(base, two_stages(), seeds=seeds) as adaptation:
            adaptation.begin(steps=2, steps_per_epoch=2)
            adaptation.before_step(2)
            for replica, seed in enumerate(seeds):
                state = adaptation.state_dict(replica)
                choices[seeds, seed] = torch.stack([state[f"{layer}.heads.chosen"] for layer in range(LAYERS)])
    assert torch.equal(choices[(1, 2), 1], choices[(1,), 1]) and torch.equal(choices[(1, 2), 2], choices[(2,), 2])
    assert not torch.equal(choices[(1,), 1], choices[(2,), 2])
