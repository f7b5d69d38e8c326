"""Weights on this machine: found by path, told apart by checksum, refused where they are not what they should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import CPU, base_of, logits, some_ids
from safetensors.torch import load_file, save_file

from actshift.config.composition import compose
from actshift.config.identity import identity_of, ignored_keys
from actshift.errors import ActshiftError
from actshift.models.loading import load_base
from actshift.models.weights import describe_weights
from actshift.paths import embedded_model_dir


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the embedded model in a folder of the user's."""
    monkeypatch.setenv("ACTSHIFT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(embedded_model_dir("tiny_llama"), tmp_path / "mine"))


def local(folder: Path, *overrides: str) -> dict[str, Any]:
    return compose(["model=local", f"model.path={folder}", "method=sft", "dataset=boolq", *overrides])


def identity(config: dict[str, Any]) -> str:
    return identity_of(config, ignore=ignored_keys())


def load(config: dict[str, Any]) -> Any:
    return load_base(config.model, precision="float32", device=CPU)


def test_a_folder_needs_no_sizes_and_gives_the_logits_of_its_weights(folder: Path) -> None:
    config = local(folder)
    assert config.model.shape == compose(["model=tiny"]).model.shape
    assert config.model.architecture == "llama"
    ids = some_ids(base_of("tiny"), 2, 7)
    assert torch.equal(logits(load(config), None, ids), logits(base_of("tiny"), None, ids))


def test_moved_weights_are_the_same_run_and_other_weights_are_another(folder: Path, tmp_path: Path) -> None:
    before = identity(local(folder))
    moved = folder.rename(tmp_path / "moved")
    assert identity(local(moved)) == before
    tensors = load_file(moved / "model.safetensors")
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first] + 1}, moved / "model.safetensors", metadata={"format": "pt"})
    assert identity(local(moved)) != before


def test_weights_that_changed_after_they_were_asked_for_are_refused(folder: Path) -> None:
    config = local(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor * 2 for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ActshiftError, match=r"has the SHA-256 [0-9a-f]{64}, and the run asks for"):
        load(config)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_weights_that_are_not_complete_are_refused_by_name(folder: Path, change: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = {key: value for key, value in tensors.items() if key != name} if change == "missing" else tensors
    tensors |= {"model.layers.9.extra.weight": torch.ones(2)} if change == "unexpected" else {}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ActshiftError, match=rf"{change}_keys: {name if change == 'missing' else 'model.layers.9'}"):
        load(local(folder))


def test_an_adapter_beside_the_weights_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ActshiftError, match=r"holds an adapter \(adapter_config.json\)"):
        local(folder)


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ActshiftError, match=r"has no tokenizer \(one of tokenizer\.json"):
        local(folder)


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ActshiftError, match=r"holds pytorch_model.bin, and weights must be safetensors"):
        local(folder)


def test_what_is_no_model_is_refused_with_what_to_give(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match=r"model=local needs model\.path"):
        compose(["model=local"])
    with pytest.raises(ActshiftError, match="there is no such folder or file"):
        local(tmp_path / "nowhere")
    (folder / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(ActshiftError, match=r"of the architecture 'mamba'.*Known: .*llama"):
        local(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ActshiftError, match=r"has no config\.json"):
        local(folder)


def test_a_file_that_is_not_a_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"not one")
    with pytest.raises(ActshiftError, match="does not begin with 'GGUF'"):
        local(tmp_path / "model.gguf")


def test_a_checksum_is_remembered_until_a_file_changes(folder: Path) -> None:
    first = describe_weights(folder)
    assert describe_weights(folder) == first
    with (folder / "tokenizer_config.json").open("a") as file:
        file.write("\n")
    assert describe_weights(folder)["sha256"] != first["sha256"]
