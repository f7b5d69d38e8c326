"""Two hundred SIGKILLs at random moments over one sweep, and two launchers at once: nothing lost, doubled or torn.

`make test-slow`. ACTSHIFT_KILLS and ACTSHIFT_REPETITIONS set other numbers.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actshift.planning.manifests import read_manifest
from actshift.store.store import Store

KILLS = int(os.environ.get("ACTSHIFT_KILLS", "200"))
REPETITIONS = int(os.environ.get("ACTSHIFT_REPETITIONS", "20"))
SWEEP = [
    "sweep.methods=[sft,lora_r8,post_block]",
    "sweep.datasets=[listops,boolq]",
    "sweep.seeds=[42,43,44,45,46]",
    "data.limit.train=400",
    "data.limit.validation=64",
    "data.limit.test=64",
    "hardware.checkpoint_every=10",
]
# 6 cells: 2 rates each on validation, then 5 seeds on test.
RECORDS = 12 + 30


def command(results: Path) -> list[str]:
    return [sys.executable, "-m", "actshift.cli", "sweep", "demo", *SWEEP, f"results={results}"]


def stamps(results: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (results / "records").glob("[!.]*")}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_two_hundred_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undisturbed, results = tmp_path / "undisturbed", tmp_path / "killed"
    starting = _starting(tmp_path / "starting")
    started = time.monotonic()
    subprocess.run(command(undisturbed), check=True, capture_output=True)
    whole = time.monotonic() - started

    rng, kills, at_work = random.Random(0), 0, 0
    before: dict[str, int] = {}
    while kills < KILLS:
        process = subprocess.Popen(
            command(results), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        # A kill that comes before the first run has begun says little: up to three times the start where the sweep is
        # behind the kills, so that the moments spread over all of it, and up to the start alone where it is ahead.
        time.sleep(rng.uniform(0.1, 3.0 if len(before) < RECORDS * (kills + 1) / KILLS else 1.0) * starting)
        finished = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):  # it had ended by itself, the sweep being done
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        at_work += not finished
        after = stamps(results)
        assert {name: after[name] for name in before} == before, "a record was lost or written again"
        before = after
    subprocess.run(command(results), check=True, capture_output=True)
    after = stamps(results)
    assert {name: after[name] for name in before} == before and len(after) == RECORDS
    store = Store(results)
    assert len(store.records()) == RECORDS, "each record reads back whole"
    for stage in ("grid", "final"):
        for run in read_manifest(store.manifest_path("demo", stage)).runs:
            assert store.state(run.identity, run.split) == "done"
    for path in (undisturbed / "tables").iterdir():
        assert path.read_bytes() == (results / "tables" / path.name).read_bytes()
    partial = [path for path in results.rglob("*.json") if not _whole(path)]
    assert not partial
    with capsys.disabled():
        print(f"\n{kills} kills, {at_work} of them at work; undisturbed {whole:.0f} s; {RECORDS} records, tables equal")


def _starting(results: Path) -> float:
    """Seconds that a launcher needs up to the first step of its first run, on this machine now."""
    started = time.monotonic()
    process = subprocess.Popen(
        command(results), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not list(results.glob("runs/*/checkpoint-*")) and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - started


def _whole(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return path.name.startswith(".")
    return True


FEW = ["sweep.methods=[sft,post_block]", "sweep.datasets=[listops]", "sweep.seeds=[42,43,44]", *SWEEP[3:]]
FEW += ["data.limit.train=80", "training.validations=0"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_launchers_share_a_sweep_and_double_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four workers of two launchers on one sweep."""
    done = 0
    for repetition in range(REPETITIONS):
        results = tmp_path / str(repetition)
        call = [sys.executable, "-m", "actshift.cli", "sweep", "demo", *FEW, f"results={results}"]
        launchers = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [launcher.communicate(timeout=600)[0] is None for launcher in launchers] == [False, False]
        assert [launcher.returncode for launcher in launchers] == [0, 0]
        store, records = Store(results), stamps(results)
        for stage in ("grid", "final"):
            for run in read_manifest(store.manifest_path("demo", stage)).runs:
                # Whoever did a run again would have written its predictions after its record, or its adapter.
                made = [f"predictions-{run.split}.jsonl", *(["adapter/facts.json"] if stage == "grid" else [])]
                times = [(store.run_folder(run.identity) / name).stat().st_mtime_ns for name in made]
                assert max(times) <= records[f"{run.identity}.{run.split}.json"], f"{run} was done twice"
        assert len(records) == 4 + 6
        done += len(records)
    with capsys.disabled():
        print(f"\n{REPETITIONS} repetitions with two launchers: {done} runs, none of them doubled")
