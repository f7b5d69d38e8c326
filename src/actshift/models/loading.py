"""Loading a base model and its tokenizer: embedded, from the hub, or with random weights."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from actshift.errors import ActshiftError
from actshift.models.sites import Sites
from actshift.paths import embedded_model_dir

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_SHAPE_KEYS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "mlp_width": "intermediate_size",
    "vocabulary": "vocab_size",
    "tied": "tie_word_embeddings",
}
"""Our names of a decoder's sizes: transformers' names."""

_CONFIG_TYPES = {"llama": "llama", "qwen3": "qwen3", "gemma3": "gemma3_text"}


@dataclass(frozen=True)
class Base:
    """A frozen base model in evaluation mode, its tokenizer and its sites."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sites: Sites
    parameters: int
    """How many numbers the model has, tied weights counted once."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def device_name(self) -> str:
        """What the device is called, for provenance."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.processor() or "cpu"

    @property
    def pad_id(self) -> int:
        """The tokenizer's pad token, or its end token where it has none: padding is masked in any case."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)


def load_base(model: Mapping[str, Any], *, precision: str, device: torch.device) -> Base:
    """The base model of a resolved model config, every parameter in `precision`.

    Errors: a model that cannot be found or opened, and one whose sizes are not those of its config.
    """
    transformers.utils.logging.disable_progress_bar()
    dtype = PRECISIONS[precision]
    path = str(embedded_model_dir(model["path"])) if model["source"] != "hub" else model["path"]
    options = {"revision": model["revision"]} if model["source"] == "hub" and model["revision"] else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        if model["source"] == "random":
            network = _random_model(model, dtype=dtype)
        else:
            network = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype, attn_implementation=model["attention"], **options
            )
    except OSError as error:
        raise ActshiftError(
            f"model '{model['name']}' could not be loaded from '{path}': {error}\n"
            "A gated model needs its licence accepted on the hub and a login; without a network, a filled cache."
        ) from error
    _assert_as_declared(network, model=model, dtype=dtype)
    network.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the signature
    network.eval().requires_grad_(False)
    size = sum(parameter.numel() for parameter in network.parameters())
    return Base(network, tokenizer, Sites(network, architecture=model["architecture"]), size)


def meta_model(model: Mapping[str, Any]) -> PreTrainedModel:
    """The model on PyTorch's meta device, from its sizes alone: every shape and no weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(_shape_config(model), dtype=torch.float32)


def _random_model(model: Mapping[str, Any], *, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            _shape_config(model), dtype=dtype, attn_implementation=model["attention"]
        )


def _shape_config(model: Mapping[str, Any]) -> transformers.PretrainedConfig:
    sizes = {theirs: model["shape"][ours] for ours, theirs in _SHAPE_KEYS.items()}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    # The default initialisation leaves a small network nearly linear; tests want every path to matter.
    return AutoConfig.for_model(_CONFIG_TYPES[model["architecture"]], **sizes, **special, initializer_range=0.2)


def _assert_as_declared(network: PreTrainedModel, *, model: Mapping[str, Any], dtype: torch.dtype) -> None:
    wrong = {str(p.dtype) for p in network.parameters() if p.dtype != dtype}
    if wrong:
        raise ActshiftError(f"model '{model['name']}' holds {', '.join(sorted(wrong))} where {dtype} was asked for")
    config = network.config.get_text_config()
    for ours, theirs in _SHAPE_KEYS.items():
        actual = getattr(config, theirs, None)
        if ours == "head_size" and actual is None:
            actual = config.hidden_size // config.num_attention_heads
        if actual != model["shape"][ours]:
            raise ActshiftError(
                f"model '{model['name']}' has {theirs} = {actual}, but its config declares "
                f"model.shape.{ours} = {model['shape'][ours]}. Correct conf/model/{model['name']}.yaml."
            )
