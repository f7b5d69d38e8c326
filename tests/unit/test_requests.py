"""What commands make of the overrides of a sweep."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.commands.requests import sweep_request
from actshift.config.cached import CachedComposer
from actshift.config.overrides import override
from actshift.errors import ActshiftError
from actshift.paths import CONFIG_DIR, embedded_model_dir


@pytest.mark.parametrize("given", ["data.dir=data", "data.dir=./data"])
def test_a_relative_folder_of_data_is_the_same_wherever_a_task_starts(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    wanted = sweep_request(Namespace(sweep="smoke", overrides=[given, "hardware=cpu"]))
    assert wanted.launch == [override("data.dir", tmp_path / "data"), "hardware=cpu"]


def test_a_relative_path_of_weights_is_the_same_wherever_a_task_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(embedded_model_dir("tiny_llama"), tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    given = ["sweep.models=[local]", "model.path=weights", "model.name=mine", "model.scale=tiny", "sweep.name=own"]
    grid = sweep_request(Namespace(sweep="smoke", overrides=given)).grid(CachedComposer())
    assert all(override("model.path", tmp_path / "weights") in variant.overrides for variant in grid.cells[0].variants)
    # The plan is known by its name now, and what it holds already may be said again.
    again = sweep_request(Namespace(sweep="own", overrides=["sweep.name=own", "model.path=weights"]))
    assert again.grid(CachedComposer()) == grid
    for changed in ("sweep.name=other", "sweep.methods=[sft]", "model.path=elsewhere"):
        with pytest.raises(ActshiftError, match="its plan is frozen"):
            sweep_request(Namespace(sweep="own", overrides=[changed]))


def test_a_sweep_that_cannot_start_is_not_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = "defaults: [smoke, _self_]\nname: own\noverrides: [data.source=local, protocol=paper]\n"
    (tmp_path / "configs" / "sweep").mkdir(parents=True)
    (tmp_path / "configs" / "sweep" / "own.yaml").write_text(own)
    monkeypatch.setenv(CONFIG_DIR, str(tmp_path / "configs"))
    assert main(["sweep", "own", "data.dir=nowhere"]) == 2
    assert "data.dir = " in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_sweeps_own_file_may_name_its_folder_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    own = "defaults: [smoke, _self_]\nname: own\noverrides: [data.source=local, protocol=paper, data.dir=rows]\n"
    (tmp_path / "configs" / "sweep").mkdir(parents=True)
    (tmp_path / "configs" / "sweep" / "own.yaml").write_text(own)
    monkeypatch.setenv(CONFIG_DIR, str(tmp_path / "configs"))
    assert main(["submit", "own", "--dry-run", "profile=cpu"]) == 0
    grid = sweep_request(Namespace(sweep="own", overrides=[])).grid(CachedComposer())
    assert all(override("data.dir", tmp_path / "rows") in cell.variants[0].overrides for cell in grid.cells)


def test_a_debug_option_wins_over_a_sweeps_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["debug=few_steps", "data.limit.test=8", "sweep.name=few"]
    grid = sweep_request(Namespace(sweep="smoke", overrides=given)).grid(CachedComposer())
    assert vars(grid.cells[0].settings.data.limit) == {"train": 32, "validation": 16, "test": 8}
    assert grid.cells[0].settings.training.max_steps == 4


def test_a_models_name_on_the_hub_is_no_path() -> None:
    given = ["model.path=org/model", "sweep.name=own"]
    assert sweep_request(Namespace(sweep="smoke", overrides=given)).frozen[0] == "model.path=org/model"


def test_an_absolute_folder_of_data_stays_as_it_is_written(tmp_path: Path) -> None:
    given = f"data.dir={tmp_path}"
    assert sweep_request(Namespace(sweep="smoke", overrides=[given])).launch == [given]
