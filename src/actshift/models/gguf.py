"""GGUF files as models: dequantized once by transformers, kept as an ordinary folder of safetensors in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from actshift.errors import ActshiftError
from actshift.files import new_folder
from actshift.paths import user_cache_dir

PRE_TOKENIZERS = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
}
"""By `tokenizer.ggml.pre` of a GGUF file: how text is cut before byte pairs are merged, where transformers' reading of
the file leaves a part out. SmolLM's tokenizer takes each digit alone."""


def converted_folder(file: Path, *, sha256: str) -> Path:
    """The folder of a GGUF file's dequantized weights and its tokenizer, made at the first call and kept by checksum.

    Errors: the package gguf is not installed, or transformers cannot read the file.
    """
    folder = user_cache_dir() / "models" / sha256[:32]
    if (folder / "config.json").is_file():
        return folder
    with new_folder(folder, replace=False) as partial:  # two processes may convert at once, to the same files
        _convert(file, partial)
    return folder


def _convert(file: Path, folder: Path) -> None:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
    except ImportError as error:
        raise ActshiftError(
            f"{file}: transformers reads GGUF files by the package gguf: uv pip install gguf"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ActshiftError(f"{file} is damaged, or of a kind that transformers cannot dequantize: {error}") from error
    model, info = loaded
    if problems := {name: sorted(keys) for name, keys in info.items() if keys}:
        raise ActshiftError(f"{file} does not hold exactly the weights of its architecture: {problems}")
    plain = AutoModelForCausalLM.from_config(_plain_config(model), dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), strict=True)
    plain.save_pretrained(folder)
    cut = PRE_TOKENIZERS.get(_pre_tokenizer_name(file))
    if cut is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = cut()
    tokenizer.save_pretrained(folder)


def _plain_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The configuration of a model without what says that it came from a quantized file."""
    values = model.config.to_dict()
    values.pop("quantization_config", None)
    return type(model.config).from_dict(values)


def _pre_tokenizer_name(file: Path) -> str:
    from gguf import GGUFReader

    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    return str(field.contents()) if field is not None else ""
