"""Loading base models: their sizes, precision and state, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from adapted import CPU, LOCAL_MODELS, base_of, composed, logits, some_ids

from actshift.errors import ActshiftError
from actshift.models.loading import load_base, meta_model

PUBLISHED = {
    "llama3.2-1b": 1_235_814_400,
    "llama3.1-8b": 8_030_261_248,
    "qwen3-4b": 4_022_468_096,
    "gemma3-1b": 999_885_952,
}
"""The parameter counts of the checkpoints on the model hub, tied weights counted once."""


def config_of(model: str, **changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(composed(f"model={model}")["model"]), **changes}


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_a_base_is_frozen_in_evaluation_mode_and_of_the_declared_sizes(model: str) -> None:
    base, shape = base_of(model), config_of(model)["shape"]
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not any(module.training for module in base.model.modules())
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    assert (base.sites.layers, base.sites.model_width) == (shape["layers"], shape["width"])
    assert (base.sites.heads, base.sites.head_size) == (shape["heads"], shape["head_size"])
    assert base.device == CPU and base.device_name
    assert logits(base, None, some_ids(base, 2, 5)).shape == (2, 5, shape["vocabulary"])


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
        wrong = {**config, "shape": {**config["shape"], key: config["shape"][key] + 1}}
        with pytest.raises(ActshiftError, match=rf"model\.shape\.{key} = {wrong['shape'][key]}.*conf/model/tiny"):
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
