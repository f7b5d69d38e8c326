"""One task of a SLURM array, without a cluster: which runs it does, what it makes of signals, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.paths import slurm_dir
from actshift.planning.expand import expand_grid
from actshift.planning.manifests import Manifest, Run, freeze
from actshift.store.store import Store
from actshift.sweeps import slurm, task
from actshift.sweeps.profiles import read_profiles


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of the test process, put back after a task has set its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class FakeWorker:
    """Notes what a task hands to its worker."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, results: Path, *, overrides: Sequence[str], tell: Any, stop: Any) -> None:
        self.notes: dict[str, Any] = {"results": results, "overrides": list(overrides), "stop": stop}
        FakeWorker.made.append(self.notes)

    def work(self, manifest: Manifest, *, runs: Sequence[Run]) -> None:
        self.notes["runs"] = list(runs)


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Manifest, Store]:
    """A sweep of four runs, submitted as four tasks of one run each."""
    store = Store(tmp_path)
    axes = ["sweep.datasets=[boolq]", "sweep.seeds=[1]"]
    grid = freeze(store, expand_grid(compose(["sweep=smoke", *axes]).sweep, CachedComposer()))
    profile = read_profiles(slurm_dir() / "profiles")["cpu"]
    cells = [slurm.Work(*vars(run.cell).values(), run.seed, run.lr, run.variant, 1.0) for run in grid.runs]
    file = slurm.write_tasks(store, grid, "grid", [(profile, [each]) for each in cells], ["data.dir=/data"])
    FakeWorker.made = []
    monkeypatch.setattr(task, "Worker", FakeWorker)
    return file, grid, store


@pytest.mark.parametrize(("first", "element", "place"), [("0", "0", 0), ("0", "3", 3), ("2", "1", 3), ("1", "0", 1)])
def test_a_task_does_its_own_runs(
    first: str, element: str, place: int, submitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, grid, store = submitted
    assert len(grid.runs) == 4
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", element)
    assert task.main([str(file), first]) == 3, "its run is still missing: the worker did nothing"
    (made,) = FakeWorker.made
    assert made["runs"] == [grid.runs[place]]
    assert made["results"] == store.root.resolve()
    assert made["overrides"] == ["data.dir=/data", "hardware=cpu"]


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 1), ("missing", 3), ("running", 3)])
def test_the_exit_code_says_what_is_left(
    state: str, code: int, submitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _, _ = submitted
    monkeypatch.setattr(Store, "state", lambda *_: state)
    assert task.main([str(file), "0"]) == code


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_the_warning_requeues_this_element_alone_and_a_cancellation_nothing(
    number: signal.Signals, requeued: bool, submitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _, _ = submitted
    calls: list[list[str]] = []

    def called(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    class Signalled(FakeWorker):
        def work(self, manifest: Manifest, *, runs: Sequence[Run]) -> None:
            os.kill(os.getpid(), number)
            assert self.notes["stop"].wait(5), "the signal reaches the run at hand"

    monkeypatch.setattr(task, "Worker", Signalled)
    monkeypatch.setattr(task.subprocess, "run", called)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert task.main([str(file), "0"]) == 3
    assert calls == ([["scontrol", "requeue", "17_2"]] if requeued else [])


def test_a_run_without_a_rate_is_what_was_selected(submitted: Any) -> None:
    _, grid, _ = submitted
    run = grid.runs[0]
    ahead = slurm.Work(*vars(run.cell).values(), run.seed, None, None, 1.0)
    found = task._runs([ahead], grid)
    assert found == [other for other in grid.runs if other.cell == run.cell]
    assert len(found) == 2
