"""What commands make of the overrides of a sweep."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from actshift.commands.requests import sweep_request
from actshift.config.overrides import override


@pytest.mark.parametrize("given", ["data.dir=data", "data.dir=./data"])
def test_a_relative_folder_of_data_is_the_same_wherever_a_task_starts(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    wanted = sweep_request(Namespace(sweep="smoke", overrides=[given, "hardware=cpu"]))
    assert wanted.launch == [override("data.dir", tmp_path / "data"), "hardware=cpu"]


def test_an_absolute_folder_of_data_stays_as_it_is_written(tmp_path: Path) -> None:
    given = f"data.dir={tmp_path}"
    assert sweep_request(Namespace(sweep="smoke", overrides=[given])).launch == [given]
