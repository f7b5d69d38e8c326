"""LoReFT: the formula, pyreft's initial values, orthonormal rows, and what is saved of them.

Shapes: A replicas, B rows, T tokens, D width, R rank.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from adapted import attached, base_of, composed, logits, method_config, perturb, some_ids
from torch import nn

from actshift.methods.loreft import Loreft
from actshift.models.loading import meta_model
from actshift.models.sites import Sites

D, R = 24, 5


def part_of(*seeds: int) -> Loreft:
    return Loreft(D, rank=R, generators=[torch.Generator().manual_seed(seed) for seed in seeds])


def rotation(part: Loreft, replica: int = 0) -> torch.Tensor:
    """R_RD of the formula."""
    weight: torch.Tensor = part.interventions[replica].get_submodule("rotate_layer").weight
    return weight.T


@torch.no_grad()
def move(part: nn.Module) -> None:
    """A change as training makes it: the diagonal of `original` holds signs and has no gradient."""
    for name, parameter in part.named_parameters():
        change = 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        parameter += change.tril(-1) if name.endswith("original") else change


def test_the_shift_is_the_published_formula() -> None:
    part, h_ABTD = part_of(0, 1), torch.randn(2, 3, 4, D)
    move(part)
    shift_ABTD = part(h_ABTD)
    for replica in (0, 1):
        named = dict(part.replica_parameters(replica))
        R_RD, h_BTD = rotation(part, replica), h_ABTD[replica]
        expected_BTD = (h_BTD @ named["weight"].T + named["bias"] - h_BTD @ R_RD.T) @ R_RD
        torch.testing.assert_close(shift_ABTD[replica], expected_BTD, rtol=0, atol=1e-5)


def test_the_rows_are_orthonormal_whatever_is_trained_and_in_float32() -> None:
    part = part_of(3)
    for _ in range(3):
        torch.testing.assert_close(rotation(part) @ rotation(part).T, torch.eye(R), rtol=0, atol=1e-5)
        move(part)
    assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert sum(p.numel() for p in part.parameters()) == 2 * D * R + R


def test_initial_values_follow_from_the_seed_and_are_spread_as_pyrefts() -> None:
    first, again, other = part_of(3), part_of(3), part_of(4)
    assert torch.equal(rotation(first), rotation(again)) and not torch.equal(rotation(first), rotation(other))
    named = dict(first.replica_parameters(0))
    bound = D**-0.5
    assert named["weight"].abs().max() <= bound and named["weight"].abs().max() > 0.8 * bound
    assert named["bias"].abs().max() <= bound


def test_layers_start_differently() -> None:
    with attached(base_of("random-llama"), method_config("reft", model="random-llama")) as adaptation:
        state = adaptation.state_dict()
    assert not torch.equal(state["0.post_mlp.weight"], state["1.post_mlp.weight"])
    assert state["0.post_mlp.seed"] != state["1.post_mlp.seed"]


def test_what_is_saved_is_small_and_brings_the_same_rotation_back_under_another_seed() -> None:
    base, config = base_of("random-llama"), method_config("reft", model="random-llama")
    ids_BT = some_ids(base, 2, 5)
    with attached(base, config, seeds=(1, 2)) as adaptation:
        perturb(adaptation)
        expected_BTV = logits(base, adaptation, torch.cat([ids_BT, ids_BT])).chunk(2)[1]
        state = adaptation.state_dict(1)
    d, r = base.sites.model_width, config.rank
    assert sum(tensor.numel() for tensor in state.values()) == base.sites.layers * (2 * d * r + r + 1)
    with attached(base, config, seeds=(9,)) as adaptation:
        adaptation.load_state_dict(state)
        torch.testing.assert_close(logits(base, adaptation, ids_BT), expected_BTV, rtol=0, atol=1e-5)
        loaded = adaptation.state_dict()
        assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_rotation_is_differentiable_through_replicas_alone() -> None:
    part, h_ABTD = part_of(0, 1), torch.randn(2, 3, 4, D)
    part(h_ABTD)[0].square().sum().backward()
    for _, parameter in part.replica_parameters(1):
        assert parameter.grad is None or not parameter.grad.any()
    assert all(parameter.grad is not None and parameter.grad.any() for _, parameter in part.replica_parameters(0))


@pytest.mark.parametrize("method", ["reft", "lofit_two_stage", "jola", "post_block", "joint_orth"])
def test_methods_exist_on_the_meta_device_at_full_size(method: str) -> None:
    """No tensor of the 8B model, nor one of the method's own, is ever filled."""
    model = composed("model=llama3.1-8b").model
    network = meta_model(model)
    base = replace(base_of("random-llama"), model=network, sites=Sites(network, architecture=model.architecture))
    with attached(base, copy.deepcopy(method_config(method, model="llama3.1-8b"))) as adaptation:
        assert {p.device.type for _, p in adaptation.named_parameters()} == {"meta"}
        counts = {"reft": 32 * (2 * 4096 * 8 + 8), "jola": 32 * (2 * 4096 + 2 * 32), "post_block": 32 * 2 * 4096 * 8}
        assert adaptation.trainable_parameters() == counts.get(method, adaptation.trainable_parameters())


def test_weight_decay_leaves_the_rows_orthonormal() -> None:
    part = part_of(3)
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        part(torch.randn(1, 2, 3, D)).square().sum().backward()
        optimizer.step()
        Loreft.after_step({"0": part}, losses=(0.0,))
        torch.testing.assert_close(rotation(part) @ rotation(part).T, torch.eye(R), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_pyreft_is_imported_only_where_it_is_used() -> None:
    code = "import sys, actshift.methods.steering; print('pyreft' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
