"""Trackers: mirrors that cannot stop a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from actshift.errors import ActshiftError
from actshift.observe.progress import Progress
from actshift.observe.trackers import Guarded, Tracker, _has_key, start_tracker, sync
from actshift.runtime.train import _report_step
from actshift.schema.building import config_of
from actshift.schema.config import Config
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import Curves


def config(**logger: Any) -> Config:
    values = {
        "logger": {"name": "wandb", "project": "actshift", "mode": None, "sweep": "demo", **logger},
        **{group: {"name": f"a-{group}"} for group in ("model", "method", "dataset")},
        "lr": 0.001,
        "seed": 1,
        "stage": "grid",
    }
    return config_of(values)


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC", "WANDB_MODE", "WANDB_DISABLED", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


class Broken(Tracker):
    """Fails at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, 0
        self._fail("start")

    def step(self, step: int, *, loss: float, lr: float) -> None:
        self.calls += 1
        self._fail("step")

    def finish(self, metrics: Mapping[str, Any]) -> None:
        self.calls += 1
        self._fail("finish")

    def _fail(self, call: str) -> None:
        if call == self.at:
            raise RuntimeError(f"no {call}")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("at", ["start", "step", "finish"])
def test_a_fault_is_told_once_and_ends_the_mirror(at: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Guarded(lambda: Broken(at))
    for step in range(3):
        tracker.step(step, loss=1.0, lr=0.1)
    tracker.finish({"accuracy": 50.0})
    tracker.finish({"accuracy": 50.0})
    assert warnings_of(caplog) == [f"the tracker failed and is off for this run: no {at}"]


def test_a_mirror_without_faults_hears_everything() -> None:
    mirror = Broken("never")
    tracker = Guarded(lambda: mirror)
    tracker.step(1, loss=1.0, lr=0.1)
    tracker.step(2, loss=1.0, lr=0.1)
    tracker.finish({})
    assert mirror.calls == 3


def test_none_is_the_plain_tracker(tmp_path: Path) -> None:
    tracker = start_tracker(config(name="none"), identity="0" * 16, folder=tmp_path)
    tracker.step(1, loss=1.0, lr=0.1)
    tracker.finish({"accuracy": 1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize(
    ("machine", "found"),
    [("example.org", False), ("api.wandb.ai", True), ("api.forge.coreweave.com", True), ("wb.lab.example.org", True)],
)
def test_a_key_is_found_where_wandb_login_puts_it(
    machine: str, found: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wb.lab.example.org:8080")
    assert not _has_key()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text(f"machine {machine} login user password x\n")
    assert _has_key() == found


@pytest.mark.usefixtures("no_key")
def test_a_broken_netrc_is_no_key_and_the_variable_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text("machine\n")
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert _has_key()


@pytest.mark.usefixtures("no_key")
def test_wandb_is_offline_without_a_key_and_each_run_is_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (tmp_path / "first", tmp_path / "second")
    start_tracker(config(), identity="1" * 16, folder=first).step(1, loss=1.0, lr=0.1)
    # The first run failed before it could finish: the second must not continue under its name.
    tracker = start_tracker(config(), identity="2" * 16, folder=second)
    tracker.step(1, loss=1.0, lr=0.1)
    tracker.finish({"accuracy": 50.0, "rows_touched": {"truncated": 0}, "split": "validation"})
    assert warnings_of(caplog) == []
    for folder, identity in ((first, "1" * 16), (second, "2" * 16)):
        (file,) = folder.glob("wandb/offline-run-*/*.wandb")
        assert file.name == f"run-{identity}.wandb"
        assert file.stat().st_size > 0


@pytest.mark.usefixtures("no_key")
def test_wandb_that_refuses_stays_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = start_tracker(config(project="a/b"), identity="3" * 16, folder=tmp_path)
    tracker.step(1, loss=1.0, lr=0.1)
    tracker.finish({})
    (warning,) = warnings_of(caplog)
    assert "the tracker failed" in warning
    assert "a/b" in warning


@pytest.mark.usefixtures("no_key")
def test_what_is_offline_waits_for_a_key(tmp_path: Path) -> None:
    assert sync(tmp_path) == 0
    start_tracker(config(), identity="4" * 16, folder=tmp_path / "runs" / ("4" * 16)).finish({})
    with pytest.raises(ActshiftError, match="WANDB_API_KEY"):
        sync(tmp_path)


@pytest.mark.usefixtures("no_key")
def test_runs_that_train_at_once_are_mirrored_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trackers = [start_tracker(config(), identity=digit * 16, folder=tmp_path / digit) for digit in "56"]
    for step in (1, 2):
        for tracker in trackers:
            tracker.step(step, loss=1.0, lr=0.1)
    for tracker in trackers:
        tracker.finish({"accuracy": 50.0})
    assert warnings_of(caplog) == []
    assert len(list(tmp_path.glob("*/wandb/offline-run-*/*.wandb"))) == 2


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize(
    ("environment", "mode", "kept"),
    [
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, None, "offline-run"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "disabled"}, None, None),
        ({"WANDB_DISABLED": "true"}, None, None),
        ({"WANDB_MODE": "disabled"}, "offline", "offline-run"),
    ],
)
def test_wandbs_environment_is_obeyed_where_the_configuration_is_silent(
    environment: dict[str, str],
    mode: str | None,
    kept: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tracker = start_tracker(config(mode=mode), identity="4" * 16, folder=tmp_path)
    tracker.step(1, loss=1.0, lr=0.1)
    tracker.finish({"accuracy": 50.0})
    assert warnings_of(caplog) == []
    runs = list(tmp_path.glob("wandb/*run-*"))
    assert [path.name.startswith(str(kept)) for path in runs] == ([True] if kept else [])


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize(
    ("logger", "variable", "project"),
    [(None, "mine", "mine"), (None, None, "actshift"), ("given", "mine", "given")],
)
def test_the_project_is_the_configurations_then_the_variables(
    logger: str | None, variable: str | None, project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import wandb

    seen: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(options))
    if variable:
        monkeypatch.setenv("WANDB_PROJECT", variable)
    start_tracker(config(project=logger), identity="5" * 16, folder=tmp_path)
    assert seen["project"] == project


class Steps(Tracker):
    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def step(self, step: int, *, loss: float, lr: float) -> None:
        self.seen.append((step, loss))


def test_of_runs_trained_at_once_the_one_that_diverged_has_no_more_steps(tmp_path: Path) -> None:
    trackers = [Steps(), Steps()]
    going, over = Curves(loss=[2.0, 1.0], lr=[0.1, 0.1]), Curves(loss=[3.0], lr=[0.1])
    checkpoints = Checkpoints(tmp_path, every=0)
    _report_step(2, 4, [going, over], trackers=trackers, progress=Progress(), stop=Event(), checkpoints=checkpoints)
    assert [tracker.seen for tracker in trackers] == [[(2, 1.0)], []]
