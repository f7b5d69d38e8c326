"""The devices of a launcher's workers: a GPU each, shared between launchers, and cores where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from actshift.config.composition import compose
from actshift.planning.manifests import freeze
from actshift.schema.config import HardwareConfig
from actshift.store.store import Store
from actshift.sweeps import devices, local
from actshift.sweeps.devices import VISIBLE, Devices, visible_gpus
from actshift.sweeps.worker import Event
from tests.unit.test_selection import manifest

HARDWARE = HardwareConfig(device="cuda")


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four GPUs whose numbers and UUIDs nvidia-smi tells."""
    monkeypatch.setattr(devices, "_nvidia_smi", lambda: [(str(index), f"GPU-{index}") for index in range(4)])
    monkeypatch.delenv(VISIBLE, raising=False)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]),
        ("2,0", ["GPU-2", "GPU-0"]),
        ("GPU-3", ["GPU-3"]),
        ("", []),
        ("-1", []),
    ],
)
def test_visible_gpus_have_one_name_in_every_launcher(
    given: str | None, found: list[str], four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is not None:
        monkeypatch.setenv(VISIBLE, given)
    assert visible_gpus() == found


def test_two_launchers_share_the_gpus(four_gpus: None, tmp_path: Path) -> None:
    first = Devices(replace(HARDWARE, workers=3), folder=tmp_path)
    second = Devices(HARDWARE, folder=tmp_path)
    assert (first.count, second.count) == (3, 4)
    held = [first.claim() for _ in range(3)]
    assert [claim.gpu for claim in held if claim] == ["GPU-0", "GPU-1", "GPU-2"]
    last = second.claim()
    assert last is not None and last.environment == {VISIBLE: "GPU-3"}
    assert second.claim() is None and first.claim() is None
    assert held[1] is not None
    held[1].release()
    again = second.claim()
    assert again is not None and again.gpu == "GPU-1"


def test_a_killed_launcher_holds_no_gpu(four_gpus: None, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from actshift.schema.config import HardwareConfig
from actshift.sweeps import devices
devices._nvidia_smi = lambda: [("0", "GPU-0")]
claim = devices.Devices(HardwareConfig(device="cuda"), folder=Path(sys.argv[1])).claim()
print(claim.gpu, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline().strip() == "GPU-0"
        mine = Devices(HARDWARE, folder=tmp_path)
        other = mine.claim()
        assert other is not None and other.gpu == "GPU-1"
        child.kill()
        child.wait(timeout=30)
    freed = mine.claim()
    assert freed is not None and freed.gpu == "GPU-0"


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "count"), [(None, 1, 2, 2), (None, 4, 16, 4), (None, 4, 2, 1), (3, 1, 2, 3)]
)
def test_on_a_cpu_there_is_a_worker_for_its_threads(
    workers: int | None, threads: int, cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: cores)
    found = Devices(HardwareConfig(device="cpu", workers=workers, threads=threads))
    assert found.count == count
    claim = found.claim()
    assert claim is not None and claim.environment == {}


def test_profiles_leave_the_count_to_the_machine() -> None:
    assert all(compose([f"hardware={name}"]).hardware.workers is None for name in ("cpu", "a100-40gb", "a100-80gb"))


def tell_the_gpu(commands: Connection, results: str, overrides: list[str]) -> None:
    """A worker that does nothing but note which GPU it sees."""
    while commands.recv() is not None:
        (Path(results) / f"worker-{os.getpid()}").write_text(os.environ.get(VISIBLE, ""))
        time.sleep(0.5)
        commands.send(Event("idle"))


def test_each_worker_sees_one_gpu(four_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "serve", tell_the_gpu)
    store, plan = Store(tmp_path), manifest()
    freeze(store, plan)
    turns = iter([["missing"] * 4, ["missing"] * 4, ["done"] * 4])  # for the progress, then a round, then the end
    monkeypatch.setattr(local, "states_of", lambda manifest, store: next(turns))
    engine = local.LocalEngine(store, devices=Devices(replace(HARDWARE, workers=2), folder=tmp_path), overrides=[])
    monkeypatch.setattr(local.LocalEngine, "_on_event", lambda self, hand, event: setattr(hand, "idle", True))
    with engine:
        assert engine.do(plan)["done"] == 4
    assert sorted(path.read_text() for path in tmp_path.glob("worker-*")) == ["GPU-0", "GPU-1"]
    assert VISIBLE not in os.environ
    free = Devices(HARDWARE, folder=tmp_path).claim()
    assert free is not None and free.gpu == "GPU-0", "an engine that has ended holds none"
