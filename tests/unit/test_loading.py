"""Loading base models: their sizes, precision and state, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import replace
from typing import Any

import pytest
import torch
from adapted import CPU, LOCAL_MODELS, another_base, base_of, composed, logits, some_ids

from actshift.errors import ActshiftError
from actshift.models.loading import computed_precision, load_base, meta_model, set_products

PUBLISHED = {
    "llama3.2-1b": 1_235_814_400,
    "llama3.1-8b": 8_030_261_248,
    "qwen3-4b": 4_022_468_096,
    "gemma3-1b": 999_885_952,
}
"""The parameter counts of the checkpoints on the model hub, tied weights counted once."""


def config_of(model: str, **changes: Any) -> dict[str, Any]:
    return replace(copy.deepcopy(composed(f"model={model}").model), **changes)


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_a_base_is_frozen_in_evaluation_mode_and_of_the_declared_sizes(model: str) -> None:
    base, shape = base_of(model), config_of(model).shape
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not any(module.training for module in base.model.modules())
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert (base.sites.layers, base.sites.model_width) == (shape.layers, shape.width)
    assert (base.sites.heads, base.sites.head_size) == (shape.heads, shape.head_size)
    assert base.device == CPU and base.device_name
    assert logits(base, None, some_ids(base, 2, 5)).shape == (2, 5, shape.vocabulary)


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_the_meta_model_has_the_models_parameters_and_no_weights(model: str) -> None:
    meta = meta_model(config_of(model))
    assert {parameter.device.type for parameter in meta.parameters()} == {"meta"}
    real = {name: tuple(p.shape) for name, p in base_of(model).model.named_parameters()}
    assert {name: tuple(p.shape) for name, p in meta.named_parameters()} == real


@pytest.mark.parametrize(("model", "count"), PUBLISHED.items())
def test_the_papers_models_have_their_published_size(model: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in meta_model(config_of(model)).parameters()) == count


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_loading_twice_gives_the_same_weights_and_draws_nothing(model: str) -> None:
    before = torch.get_rng_state()
    again = load_base(config_of(model), precision="float32", device=CPU)
    assert torch.equal(torch.get_rng_state(), before)
    first = base_of(model).model.state_dict()
    assert all(torch.equal(tensor, first[name]) for name, tensor in again.model.state_dict().items())


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_the_precision_is_the_one_asked_for(model: str) -> None:
    base = base_of(model, "bfloat16")
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}


def test_a_model_of_other_sizes_than_declared_is_refused_by_key() -> None:
    config = config_of("tiny")
    for key in ("width", "layers", "vocabulary"):
        wrong = replace(config, shape=replace(config.shape, **{key: getattr(config.shape, key) + 1}))
        with pytest.raises(ActshiftError, match=rf"model\.shape\.{key} = {getattr(wrong.shape, key)}.*conf/model/tiny"):
            load_base(wrong, precision="float32", device=CPU)


def test_a_model_that_is_not_there_is_refused_with_its_path() -> None:
    with pytest.raises(ActshiftError, match=r"model 'tiny' could not be loaded from '.*no_such_model'"):
        load_base(config_of("tiny", path="no_such_model"), precision="float32", device=CPU)


def test_padding_falls_back_to_the_end_token() -> None:
    base = base_of("tiny")
    bare = copy.deepcopy(base.tokenizer)
    bare.pad_token = None
    assert base.pad_id == base.tokenizer.pad_token_id
    assert dataclasses.replace(base, tokenizer=bare).pad_id == base.tokenizer.eos_token_id


def test_tf32_is_float32_where_there_are_no_such_products() -> None:
    base = another_base("random-llama", "tf32")
    ids_BT = some_ids(base, 2, 5)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert torch.equal(logits(base, None, ids_BT), logits(base_of("random-llama"), None, ids_BT))
    assert computed_precision("tf32", CPU) == "float32"
    assert [computed_precision(name, CPU) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]


@pytest.mark.parametrize(("capability", "products"), [((8, 0), "high"), ((9, 0), "high"), ((7, 5), "highest")])
def test_tf32_products_are_for_devices_that_have_them(
    capability: tuple[int, int], products: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    try:
        set_products("tf32", torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == products
        set_products("float32", torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == "highest"
        set_products("tf32", CPU)
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="products of a CPU are the same in both")
def test_tf32_rounds_what_it_multiplies_and_nothing_else() -> None:
    cuda = torch.device("cuda")
    left, right = (torch.randn(512, 512, dtype=torch.float64, device=cuda) for _ in range(2))
    exact = left @ right
    errors = {}
    for precision in ("float32", "tf32"):
        set_products(precision, cuda)
        errors[precision] = float((left.float() @ right.float() - exact).abs().mean() / exact.abs().mean())
    set_products("float32", cuda)
    assert errors["float32"] < 1e-6
    assert 1e-4 < errors["tf32"] < 2e-3, "10 bits behind the point: 2^-11 at most each, about 2.8e-4 in the mean"
