"""The key/value cache is found under the name that the installed transformers gives it."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from actshift.errors import ActshiftError
from actshift.models.arguments import CACHE_NAMES, cache_argument, passed_cache

KINDS = ("llama", "qwen3", "gemma3_text")


def small_model(kind: str) -> nn.Module:
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=32)
    config = AutoConfig.for_model(kind, num_key_value_heads=1, head_dim=8, **sizes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_is_passed_by_a_name_that_fills_it(kind: str) -> None:
    model, cache = small_model(kind), DynamicCache()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(input_ids=torch.ones(1, 3, dtype=torch.long), use_cache=True, **{cache_argument(model): cache})
    assert cache.get_seq_length() == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CACHE_NAMES)
def test_a_cache_is_found_among_the_arguments_of_a_pass_by_either_name(kind: str, name: str) -> None:
    model, cache = small_model(kind), DynamicCache()
    bound = inspect.signature(model.forward).bind_partial(input_ids=None, **{name: cache})
    assert passed_cache(bound.arguments) is cache
    assert passed_cache(inspect.signature(model.forward).bind_partial(input_ids=None).arguments) is None


def test_a_model_without_a_cache_by_a_known_name_is_refused() -> None:
    with pytest.raises(ActshiftError, match="takes no key/value cache"):
        cache_argument(nn.Identity())
