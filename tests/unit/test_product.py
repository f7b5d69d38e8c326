"""Cells composed by their axes are the cells that Hydra composes."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import pytest

from actshift import paths
from actshift.cli import main
from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.errors import ActshiftError


@pytest.mark.parametrize("rest", [["protocol=released", "data.limit.test=7"], ["protocol=paper", "stage=final"]])
def test_a_cell_is_what_hydra_composes(rest: list[str]) -> None:
    cells = list(product(("tiny", "gemma3-1b"), ("sft", "post_block", "lora_r8"), ("boolq", "gsm8k")))
    composer = CachedComposer()
    for model, method, dataset in cells:
        overrides = [f"model={model}", f"method={method}", f"dataset={dataset}", *rest]
        assert composer(overrides) == compose(overrides)


def test_a_key_below_a_group_goes_with_its_option() -> None:
    composer = CachedComposer()
    for method, *own in (("post_block",), ("post_block", "method.rank=3"), ("sft",), ("post_block", "method.rank=5")):
        for dataset in ("boolq", "gsm8k"):
            overrides = ["model=tiny", f"method={method}", f"dataset={dataset}", "protocol=paper", *own, "stage=grid"]
            assert composer(overrides) == compose(overrides)


def test_every_option_can_be_an_axis() -> None:
    composer = CachedComposer()
    first = {"model": "llama3.1-8b", "method": "sft", "dataset": "boolq"}  # has the layers that any method names
    for group in first:
        for name in groups()[group]:
            overrides = [f"{axis}={option}" for axis, option in (first | {group: name}).items()]
            overrides += [f"model.path={paths.embedded_model_dir('tiny_llama')}"] if name == "local" else []
            config = composer([*overrides, "data.source=hub"])
            assert getattr(config, group).name == name


def test_an_option_that_changes_more_than_its_group_is_composed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paths.conf_dir(), tmp_path / "conf")
    file = tmp_path / "conf" / "dataset" / "boolq.yaml"
    inner = "".join(f"  {line}\n" for line in file.read_text().splitlines() if not line.startswith("defaults"))
    head = "# @package _global_\ndefaults: [dataset_schema@dataset, _self_]\ntraining: {max_steps: 3}\n"
    file.write_text(f"{head}dataset:\n{inner}")
    for module in ("composition", "groups"):
        monkeypatch.setattr(f"actshift.config.{module}.conf_dir", lambda: tmp_path / "conf")
    composer = CachedComposer()
    for dataset in ("gsm8k", "boolq"):
        overrides = ["model=tiny", "method=sft", f"dataset={dataset}"]
        assert composer(overrides) == compose(overrides)
    assert composer(["model=tiny", "method=sft", "dataset=boolq"]).training.max_steps == 3


def test_an_impossible_cell_is_refused() -> None:
    composer = CachedComposer()
    composer(["model=tiny", "method=post_block", "dataset=boolq"])
    with pytest.raises(ActshiftError, match=r"method\.layers"):
        composer(["model=tiny", "method=post_block", "dataset=boolq", "method.layers=[99]"])


@pytest.mark.parametrize("verb", ["sweep", "submit"])
def test_a_table_whose_weights_are_not_to_be_had_is_priced_and_not_begun(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actshift.planning.prefetch.is_reachable", lambda: False)
    assert main(["plan", "table3", f"results={tmp_path}"]) == 0
    assert main([verb, "table3", f"results={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "nothing was started" in error
    assert "meta-llama/Llama-3.1-8B" in error
    assert not (tmp_path / "runs").exists()
