"""Models from the hub as they are opened: what is refused, and what a model knows of where it came from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clients import Client, tiny
from server import Hub

from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.models.loading import load_base
from actshift.paths import embedded_model_dir
from actshift.schema.config import ModelConfig

CPU = torch.device("cpu")


def config(path: str, revision: str | None = None) -> ModelConfig:
    return replace(compose(["model=tiny", "model.source=hub"]).model, path=path, revision=revision)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(embedded_model_dir("tiny_llama"), tmp_path / "model"))


def refused(folder: Path) -> str:
    with pytest.raises(ActshiftError) as error:
        load_base(config(str(folder)), precision="float32", device=CPU)
    return str(error.value)


def test_a_model_from_the_hub_is_the_embedded_one_and_knows_its_commit(hub: Hub, inside: None) -> None:
    base = load_base(config("org/tiny"), precision="float32", device=CPU)
    embedded = load_base(compose(["model=tiny"]).model, precision="float32", device=CPU)
    for name, tensor in embedded.model.state_dict().items():
        assert torch.equal(base.model.state_dict()[name], tensor)
    assert base.tokenizer.get_vocab() == embedded.tokenizer.get_vocab()
    assert base.model.name_or_path == "org/tiny"
    assert base.model.config._commit_hash == hub.repositories["models/org/tiny"].refs["main"]


def test_to_show_a_row_no_weights_are_downloaded(hub: Hub, client: Client) -> None:
    model = ["model=tiny", "model.source=hub", "model.path=org/tiny", "model.revision=main"]
    said, _ = client.actshift("show", *model, "dataset=listops")
    assert "'<|begin|>'" in said
    assert hub.gets("tokenizer.json") and not hub.gets("model.safetensors")
    # They are missed by whoever wants them, where they cannot be had, and else fetched.
    hub.stop()
    assert "prefetch" in client.model("org/tiny")


def test_code_that_a_model_brings_is_never_run(folder: Path) -> None:
    (folder / "modeling_tiny.py").write_text("raise SystemExit('it ran')")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "tiny", "auto_map": {"AutoConfig": "modeling_tiny.Config"}}
    (folder / "config.json").write_text(json.dumps(settings))
    assert "no model's own code is ever run" in refused(folder)


def test_weights_that_are_cut_off_are_refused_with_what_to_delete(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"delete {folder} if its files are damaged" in refused(folder)


def test_files_that_are_not_there_are_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert "lacks model-00002-of-00002.safetensors in" in refused(folder)
    (folder / "model-00001-of-00002.safetensors").rename(folder / "model.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    (folder / "tokenizer.json").unlink()
    assert "lacks a tokenizer (tokenizer.json or" in refused(folder)
    (folder / "config.json").unlink()
    assert "lacks config.json" in refused(folder)


def test_sizes_are_looked_at_before_the_weights(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_size": 256}))
    (folder / "model.safetensors").write_bytes(b"no safetensors at all")
    assert "hidden_size = 256, but its config declares model.shape.width = 128" in refused(folder)


@pytest.mark.slow
def test_the_clients_by_themselves_find_the_same_on_this_hub(hub: Hub, client: Client) -> None:
    """transformers and datasets asked for repositories by name, as anybody would, and `hub_split` on the same."""
    code = """
import json
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from actshift.config.composition import compose
from actshift.data.sources import hub_split

def ours(*overrides):
    dataset = compose([*overrides, "data.source=hub", "dataset.hub.revision=null"]).dataset
    dataset.hub.rows = {}
    return hub_split(dataset, "train", source="hub", directory=None).to_list()

print(json.dumps([
    sum(p.numel() for p in AutoModelForCausalLM.from_pretrained("org/tiny").parameters()),
    len(AutoTokenizer.from_pretrained("org/tiny")),
    load_dataset("google/boolq", split="train").to_list() == ours("dataset=boolq"),
    load_dataset("allenai/winogrande", "winogrande_debiased", split="train").to_list() == ours("dataset=winogrande"),
    load_dataset("allenai/winogrande", "winogrande_xl", split="train").num_rows,
]))
"""
    # The hub serves a loading script beside the rows, which datasets refuses by itself: `actshift.hub` leaves it out.
    repo = hub.repositories["datasets/google/boolq"]
    repo.commits = {sha: {k: v for k, v in files.items() if k != "boolq.py"} for sha, files in repo.commits.items()}
    said, _ = client.call("-c", code)
    assert json.loads(said) == [994_048, len(json.loads(tiny()["tokenizer.json"])["model"]["vocab"]), True, True, 30]
