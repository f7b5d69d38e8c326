"""Loading a base model and its tokenizer: embedded, from the hub, from this machine, or with random weights."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from actshift.errors import ActshiftError
from actshift.hub import folder, model_repository, quiet
from actshift.libraries.private import set_commit
from actshift.models.architectures import ARCHITECTURES
from actshift.models.gguf import converted_folder
from actshift.models.sites import Sites
from actshift.models.weights import SIZE_NAMES, describe_weights, is_gguf, weights_path
from actshift.paths import embedded_model_dir
from actshift.schema.config import ModelConfig

PRECISIONS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
"""The type in which weights are kept, by the name of a precision.

`tf32` keeps float32 and rounds what goes into a product of matrices to 10 bits behind the point, on CUDA devices that
have such products (see `computed_precision`).
"""
TF32_CAPABILITY = (8, 0)
"""The compute capability from which on CUDA devices have TensorFloat-32 products: Ampere's."""


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


def computed_precision(precision: str, device: torch.device) -> str:
    """The precision that a device really computes in: `tf32` is float32 where there are no TensorFloat-32 products."""
    if precision != "tf32":
        return precision
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= TF32_CAPABILITY
    return "tf32" if able else "float32"


def set_products(precision: str, device: torch.device) -> None:
    """Set how torch multiplies float32 matrices from now on, for the whole process.

    `highest` multiplies them as they are, which is torch's default; `high` rounds their elements to TensorFloat-32.
    """
    torch.set_float32_matmul_precision("high" if computed_precision(precision, device) == "tf32" else "highest")


def load_base(model: ModelConfig, *, precision: str, device: torch.device) -> Base:
    """The base model of a resolved model config, every parameter in the type that `precision` keeps.

    Errors: a model that cannot be found, downloaded or opened (see `actshift.hub`), one whose weights are no
    safetensors or that needs code of its own, and one whose sizes are not those of its config.
    """
    transformers.utils.logging.disable_progress_bar()
    dtype = PRECISIONS[precision]
    tokenizer, path = load_tokenizer(model, weights=True), model_folder(model)
    with _explaining(model, path):
        if model.source == "random":
            network = _random_model(model, dtype=dtype)
        else:
            _assert_sizes(AutoConfig.from_pretrained(path, trust_remote_code=False), model=model)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                attn_implementation=model.attention,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            network, info = loaded
            _assert_complete(info, model=model, path=path)
    _assert_sizes(network.config, model=model)
    _assert_precision(network, model=model, dtype=dtype)
    if model.source == "hub":
        _name(network, model=model, path=path)
    network.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the signature
    network.eval().requires_grad_(False)
    size = sum(parameter.numel() for parameter in network.parameters())
    return Base(network, tokenizer, Sites(network, architecture=str(model.architecture)), size)


def load_tokenizer(model: ModelConfig, *, weights: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a resolved model config, for which its weights are not downloaded unless they are wanted, too.

    Errors: one that cannot be found, downloaded or opened.
    """
    path = model_folder(model, weights=weights)
    with _explaining(model, path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    return tokenizer


def model_folder(model: ModelConfig, *, weights: bool = True) -> Path:
    """The folder with a model's files: of the package, the user's own, or of a cache of downloads or conversions."""
    if model.source in ("local", "package"):
        return _local_folder(model)
    if model.source != "hub":
        return embedded_model_dir(str(model.path))
    with quiet():
        return folder(model_repository(model), weights=weights)


def _local_folder(model: ModelConfig) -> Path:
    """The folder of weights on this machine, converted where they are a GGUF file. Errors: other weights."""
    path = weights_path(model)
    found = describe_weights(path)["sha256"]
    if found != model.sha256:
        raise ActshiftError(
            f"{path} has the SHA-256 {found}, and the run asks for {model.sha256} (model.sha256): these are other "
            "weights. Restore the file, or take model=local model.path=... for runs of their own."
        )
    return converted_folder(path, sha256=found) if is_gguf(path) else path


def _assert_complete(info: Mapping[str, Any], *, model: ModelConfig, path: Path) -> None:
    """Refuse weights that are not those of the model: transformers draws missing ones at random and goes on."""
    problems = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
    if problems:
        listed = "; ".join(f"{name}: {', '.join(keys[:3])} ({len(keys)})" for name, keys in sorted(problems.items()))
        raise ActshiftError(
            f"the weights of model '{model.name}' in {path} are not those of its architecture: {listed}. "
            "Restore the files, or set model.path to a complete model."
        )


@contextmanager
def _explaining(model: ModelConfig, path: Path) -> Iterator[None]:
    """What transformers cannot open, in our words."""
    try:
        yield
    except ActshiftError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        # Of a damaged file in the hub's cache both the link and what it points to have to go.
        cached = path.parents[1] if path.parent.name == "snapshots" else path
        raise ActshiftError(
            f"model '{model.name}' could not be loaded from '{path}': {error}\n"
            "It takes config.json, a tokenizer and weights as safetensors, and no model's own code is ever run. "
            f"Set model.path to another, or delete {cached} if its files are damaged."
        ) from error


def _name(network: PreTrainedModel, *, model: ModelConfig, path: Path) -> None:
    """Let a model that was opened as a folder know its repository and commit, which adapters are checked against."""
    network.name_or_path = model.path
    if path.parent.name == "snapshots":
        set_commit(network.config, path.name)


def meta_model(model: ModelConfig) -> PreTrainedModel:
    """The model on PyTorch's meta device, from its sizes alone: every shape and no weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(_shape_config(model), dtype=torch.float32)


def _random_model(model: ModelConfig, *, dtype: torch.dtype) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(_shape_config(model), dtype=dtype, attn_implementation=model.attention)


def _shape_config(model: ModelConfig) -> transformers.PretrainedConfig:
    sizes = {theirs: getattr(model.shape, ours) for ours, theirs in SIZE_NAMES.items()}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    # The default initialisation leaves a small network nearly linear; tests want every path to matter.
    return AutoConfig.for_model(ARCHITECTURES[str(model.architecture)].type, **sizes, **special, initializer_range=0.2)


def _assert_precision(network: PreTrainedModel, *, model: ModelConfig, dtype: torch.dtype) -> None:
    wrong = {str(p.dtype) for p in network.parameters() if p.dtype != dtype}
    if wrong:
        raise ActshiftError(f"model '{model.name}' holds {', '.join(sorted(wrong))} where {dtype} was requested")


def _assert_sizes(config: transformers.PretrainedConfig, *, model: ModelConfig) -> None:
    """Of the files' own config, before gigabytes of weights are read; and of the model as it was built."""
    text = config.get_text_config()
    for ours, theirs in SIZE_NAMES.items():
        actual = getattr(text, theirs, None)
        if ours == "head_size" and actual is None:
            actual = text.hidden_size // text.num_attention_heads
        declared = getattr(model.shape, ours)
        if actual != declared:
            raise ActshiftError(
                f"model '{model.name}' has {theirs} = {actual}, but its config declares "
                f"model.shape.{ours} = {declared}. Correct conf/model/{model.name}.yaml."
            )
