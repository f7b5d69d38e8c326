"""A sweep over weights in a folder of the user's own, from plan to table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.paths import embedded_model_dir


def test_a_sweep_over_a_folder_of_weights_ends_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTSHIFT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(embedded_model_dir("tiny_llama"), tmp_path / "my model")
    axes = ["sweep.name=mine", "sweep.models=[local]", "sweep.methods=[sft,post_block]", "sweep.datasets=[listops]"]
    own = ["model.path='my model'", "model.name=local", "model.scale=tiny"]
    few = ["sweep.seeds=[1]", "data.limit.train=16", "data.limit.validation=8", "data.limit.test=8"]
    assert main(["sweep", "smoke", *axes, *own, *few]) == 0
    assert "| local" in (tmp_path / "results" / "tables" / "mine.md").read_text()
    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "records").glob("*.test.json")]
    assert len(records) == 2
    for record in records:
        model = record["config"]["model"]
        assert len(model["sha256"]) == 64 and "path" not in model and "source" not in model
        assert model["shape"]["width"] == 128
    capsys.readouterr()
    before = sorted((tmp_path / "results" / "records").iterdir())
    # The same weights elsewhere: every run is done, and none is trained again.
    (tmp_path / "my model").rename(tmp_path / "moved")
    assert main(["sweep", "smoke", *axes, "model.path=moved", *own[1:], *few, "--replan"]) == 0
    assert sorted((tmp_path / "results" / "records").iterdir()) == before
    assert main(["report"]) == 0
