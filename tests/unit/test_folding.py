"""Adapters folded into weights: the model computes what it computed with the adapter, or is told why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import LOCAL_MODELS, another_base, attached, logits, method_config, perturb, some_ids
from torch import nn

from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.errors import ActshiftError
from actshift.methods import attach
from actshift.methods.folding import affine_form
from actshift.methods.registry import PARAMETERIZATIONS, load
from actshift.models.loading import Base
from actshift.runtime.run import run
from actshift.store.adapters import fold, steer

ALL = ("method.scope.kind=all",)
MATRICES = {"post_mlp", "pre_mlp", "attn_out", "heads"}
"""The sites that have a matrix beside them in every architecture; a vector alone has one at post_block too, in some."""
NORMED = {"random-gemma3", "random-olmo2"}
"""A norm stands between their MLP and the block's output."""


def folded(base: Base, config: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a model with a perturbed adapter on it, and with the same adapter folded in and nothing attached."""
    ids_BT = some_ids(base, 2, 7)
    adaptation = perturb(attach(base, config=config, seeds=(0,)))
    expected = logits(base, adaptation, ids_BT)
    modules = set(map(type, base.model.modules()))
    adaptation.fold()
    hooked = [each for each in base.model.modules() if each._forward_hooks or each._forward_pre_hooks]
    assert not hooked
    assert set(map(type, base.model.modules())) <= modules | {nn.Linear}
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    return expected, logits(base, None, ids_BT)


def assert_folds(model: str, config: dict[str, Any]) -> None:
    base = another_base(model)
    plain = logits(base, None, some_ids(base, 2, 7))
    expected, found = folded(base, config)
    assert (expected - plain).abs().max() > 1e-3, "an adapter that changes nothing shows nothing"
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("model", LOCAL_MODELS)
@pytest.mark.parametrize("method", ["lora_r8", "dora_r8", "lofit", "lofit_two_stage", "jola", "sft"])
def test_methods_that_are_weights(model: str, method: str) -> None:
    assert_folds(model, method_config(method, model=model))


@pytest.mark.parametrize("model", LOCAL_MODELS)
@pytest.mark.parametrize("site", sorted(MATRICES | {"post_block"}))
def test_a_vector_is_a_bias(model: str, site: str) -> None:
    config = method_config("post_block_vector", f"method.site={site}", model=model)
    if site == "post_block" and model in NORMED:
        with pytest.raises(ActshiftError, match="a norm stands between the site and every matrix"):
            assert_folds(model, config)
    else:
        assert_folds(model, config)


@pytest.mark.parametrize("model", LOCAL_MODELS)
@pytest.mark.parametrize("method", ["post_block", "post_block_affine", "reft"])
@pytest.mark.parametrize("site", sorted(MATRICES))
def test_an_affine_map_is_another_matrix(model: str, method: str, site: str) -> None:
    if method == "reft":
        pytest.importorskip("pyreft")
    assert_folds(model, method_config(method, f"method.site={site}", *ALL, model=model))


@pytest.mark.parametrize("sites", ["post_block,post_mlp", "heads,attn_out", "pre_mlp,attn_out,post_mlp"])
def test_several_sites_are_folded_in_the_order_of_the_pass(sites: str) -> None:
    method = "post_block_vector" if "post_block" in sites else "post_block"
    assert_folds("random-llama", method_config(method, f"method.site=[{sites}]", model="random-llama"))


@pytest.mark.parametrize(
    ("method", "overrides", "why"),
    [
        ("post_block", (), "see it through a norm, which divides by the changed length"),
        ("post_block_nonlinear", (), "not affine in the hidden state"),
        ("post_block", ("method.site=post_mlp", "method.scope.kind=last_prompt"), "some positions of the prompt"),
        ("joint", (), "see it through a norm"),
    ],
)
def test_what_cannot_be_folded_is_refused_and_nothing_changes(
    method: str, overrides: tuple[str, ...], why: str
) -> None:
    base = another_base("random-llama")
    config = method_config(method, *overrides, model="random-llama")
    ids_BT = some_ids(base, 2, 7)
    before = logits(base, None, ids_BT)
    with attached(base, config) as adaptation:
        perturb(adaptation)
        expected = logits(base, adaptation, ids_BT)
        with pytest.raises(ActshiftError, match=why):
            adaptation.fold()
        assert torch.equal(logits(base, adaptation, ids_BT), expected)
    assert torch.equal(logits(base, None, ids_BT), before)


def test_joint_steering_at_a_matrix_folds_with_its_lora() -> None:
    config = method_config("joint", "method.steering.site=post_mlp", "method.steering.activation=null", model="tiny")
    config = replace(config, steering=replace(config.steering, parameterization="linear"))
    assert_folds("tiny", config)


def test_a_norm_forbids_a_linear_map_unless_it_keeps_lengths() -> None:
    """What docs say of the block's output: reading (I + S) h through a norm is no product with the norm of h."""
    torch.manual_seed(0)
    h_ND, S_DD = torch.randn(64, 8), 0.3 * torch.randn(8, 8)
    norm = nn.RMSNorm(8)

    def read(map_DD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a matrix sees of the mapped stream, and the best that any matrix makes of the norm of the stream."""
        seen_ND, known_ND = norm(h_ND @ map_DD.mT), norm(h_ND)
        return seen_ND, known_ND @ torch.linalg.lstsq(known_ND, seen_ND).solution

    seen, best = read(torch.eye(8) + S_DD)
    assert float((seen - best).detach().abs().max()) > 0.05
    rotation_DD, _ = torch.linalg.qr(torch.eye(8) + S_DD)
    seen, best = read(1.7 * rotation_DD)
    assert torch.allclose(seen, best, atol=1e-5)


def test_every_parameterization_says_rightly_whether_it_is_affine() -> None:
    """shift(x + y) + shift(0) = shift(x) + shift(y) for those that say so, and not for the others."""
    torch.manual_seed(0)
    affine = {}
    configs = {}  # a method of each parameterization
    for method in groups()["method"]:
        config = method_config(method, model="random-llama")
        configs.setdefault(getattr(config, "parameterization", None), config)
    for name, entry in PARAMETERIZATIONS.items():
        if entry.package:
            pytest.importorskip(entry.package)
        config = configs[name]
        options = {key: getattr(config, key) for key in entry.options}
        kind = load(entry.path)
        part = kind(
            16, generators=[torch.Generator().manual_seed(0)], **options, **({"heads": 4} if kind.per_head else {})
        )
        part.training = False
        with torch.no_grad():
            for parameter in part.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
            x, y = torch.randn(2, 1, 1, 3, 16)
            same = torch.allclose(part(x + y) + part(0 * x), part(x) + part(y), atol=1e-5)
        affine[name] = same
        assert same == part.is_affine, name
        if same:
            S_DD, c_D = affine_form(part, width=16)
            assert torch.allclose(part(x), x @ S_DD.mT + c_D, atol=1e-5)
    assert [name for name, found in affine.items() if not found] == ["nonlinear"]


def test_an_adapter_on_disk_is_folded_into_a_model_of_transformers(tmp_path: Path) -> None:
    overrides = ["debug=few_steps", "model=tiny", "dataset=boolq", "hardware.device=cpu", f"results={tmp_path}"]
    record = run(compose([*overrides, "method=post_block_vector", "lr=0.3"]))
    folder = tmp_path / "runs" / record.identity / "adapter"
    model = another_base("tiny").model
    ids_BT = torch.randint(5, 1000, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with steer(model, folder):
            expected = model(ids_BT).logits
            answer = model.generate(ids_BT, max_new_tokens=8, do_sample=False)
        assert fold(model, folder) is model
        assert torch.allclose(model(ids_BT).logits, expected, atol=1e-4)
        assert torch.equal(model.generate(ids_BT, max_new_tokens=8, do_sample=False), answer)
    linear = run(compose([*overrides, "method=post_block"]))
    with pytest.raises(ActshiftError, match="Keep it as an adapter"):
        fold(model, tmp_path / "runs" / linear.identity / "adapter")
