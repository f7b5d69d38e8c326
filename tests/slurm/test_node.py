"""A real SLURM node: a sweep submitted, its tasks killed, cancelled and out of time, submitted again, and finished.

`make test-slurm`; skipped where no node answers. The small model and a few rows keep a run at a second or two.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actshift.paths import slurm_dir


def answers(*command: str) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not answers("sinfo", "-h"), reason="no SLURM node answers sinfo"),
]

# The last rate is a bad one: it diverges, which is a result and no failure.
SWEEP = [
    "sweep.methods=[sft,post_block]",
    "sweep.rates.tiny={sft:[1e-3,2e-3],steering_r8:[1e-2,1e30]}",
    "data.limit.train=400",
    "hardware.checkpoint_every=0",
]
GRID, FINAL = 8, 8


def actshift(verb: str, results: Path, *more: str) -> str:
    command = [sys.executable, "-m", "actshift.cli", verb, "smoke", *SWEEP, f"results={results}", *more]
    command += ["--config-dir", str(results.parent / "configs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """SLURM files of a site whose time limit fits a run or two, so that a stage is several tasks of one array."""
    folder = tmp_path / "site"
    shutil.copytree(slurm_dir(), folder)
    slow = tmp_path / "configs" / "hardware" / "slow.yaml"  # estimates of a slow device: few runs fit a task
    slow.parent.mkdir(parents=True)
    slow.write_text("defaults: [cpu, _self_]\nname: slow\nspeed: {efficiency: 0.03}\n")
    profile = folder / "profiles" / "cpu.yaml"
    text = profile.read_text().replace('"00:20:00"', '"00:01:00"').replace("warning_seconds: 30", "warning_seconds: 20")
    profile.write_text(re.sub("throttle: .*", "throttle: 2", text).replace("memory: 3G", "memory: 2G"))
    profile.write_text(profile.read_text().replace("hardware: cpu", "hardware: slow"))
    return folder


def submit(results: Path, site: Path) -> list[str]:
    output = actshift("submit", results, "profile=cpu", "--slurm", str(site))
    return re.findall(r"^(\d+): ", output, re.MULTILINE)


def elements(job: str) -> dict[str, str]:
    """The state of each element of an array that is in the queue."""
    lines = slurm("squeue", "-h", "-r", "-o", "%F|%K|%T").splitlines()
    return {index: state for number, index, state in (line.strip().split("|") for line in lines) if number == job}


def wait_until(done: Callable[[], bool], *, seconds: int, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.3)


def wait_for_queue(ids: list[str], *, seconds: int = 400) -> None:
    def empty() -> bool:
        lines = slurm("squeue", "-h", "-o", "%F|%r").splitlines()
        return not [line for line in lines if line.split("|")[0] in ids]

    wait_until(empty, seconds=seconds, what="the end of the jobs")


def running(results: Path) -> list[tuple[str, int]]:
    """(identity, process) of the runs that are claimed and not given back."""
    found = []
    for claim in results.glob("runs/*/claims/*.json"):
        if not claim.with_suffix(".released").exists():
            owner = json.loads(claim.read_text())
            if Path(f"/proc/{owner['pid']}").exists():
                found.append((claim.parents[1].name, owner["pid"]))
    return found


def records(results: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (results / "records").glob("[!.]*.json")}


def test_a_sweep_survives_what_clusters_do(tmp_path: Path, site: Path) -> None:
    results, reference = tmp_path / "slurm", tmp_path / "local"
    grid, *_ = submit(results, site)
    assert len(elements(grid)) > 2, "a stage is several tasks"

    wait_until(lambda: bool(running(results)), seconds=90, what="the first run")
    assert sum(state == "RUNNING" for state in elements(grid).values()) <= 2, "the array is throttled"
    _, process = running(results)[0]
    os.kill(process, signal.SIGKILL)

    wait_until(lambda: "RUNNING" in elements(grid).values(), seconds=90, what="another task")
    cancelled = next(index for index, state in elements(grid).items() if state == "RUNNING")
    subprocess.run(["scancel", f"{grid}_{cancelled}"], check=True)

    def warned() -> bool:
        """What SLURM does before a time limit; by hand, for it takes a minute otherwise. A task may end before it."""
        states = elements(grid)
        for index, state in states.items():
            call = ["scancel", "--batch", "--signal=USR1", f"{grid}_{index}"]
            if state == "RUNNING" and index != cancelled and not subprocess.run(call, capture_output=True).returncode:
                return True
        return not set(states) - {cancelled}

    wait_until(warned, seconds=90, what="a task to be warned, or the end of all")

    before = {}
    for _ in range(4):
        wait_for_queue([line.split("|")[0] for line in slurm("squeue", "-h", "-o", "%F|%j").splitlines()])
        for name, stamp in before.items():
            assert records(results)[name] == stamp, "a run that was done was done again"
        before = records(results)
        if len(before) == GRID + FINAL:
            break
        submit(results, site)
    assert len(before) == GRID + FINAL
    assert not re.search(r"\b[1-9]\d* (failed|missing|running)", actshift("status", results).splitlines()[0])
    log = "".join(path.read_text() for path in (results / "slurm" / "smoke" / "logs").iterdir())
    assert len(re.findall(r"^done ", log, re.MULTILINE)) == GRID + FINAL, "each planned run was done exactly once"

    actshift("baselines", results)  # a sweep on one machine makes them by itself
    actshift("tables", results)
    actshift("sweep", reference, "hardware=slow")
    for name in ("smoke.md", "smoke.csv", "smoke.tex"):
        assert (results / "tables" / name).read_bytes() == (reference / "tables" / name).read_bytes()


def test_a_task_out_of_time_checkpoints_requeues_itself_and_goes_on(tmp_path: Path, site: Path) -> None:
    """A run longer than what is left of its task's time: warned by SLURM itself, requeued, resumed, and no worse."""
    results = tmp_path / "slurm"
    long = [
        "data.limit.train=null",
        "dataset.procedural.rows.train=12000",
        "sweep.methods=[post_block]",
        "sweep.reference=post_block",
    ]
    one = [*long, "sweep.datasets=[listops]", "sweep.seeds=[42]", "sweep.rates.tiny.steering_r8=[0.01]"]
    output = actshift("submit", results, *one, "profile=cpu", "--slurm", str(site))
    ids = re.findall(r"^(\d+): ", output, re.MULTILINE)
    wait_for_queue(ids, seconds=600)
    log = "".join(path.read_text() for path in (results / "slurm" / "smoke" / "logs").iterdir())
    assert "interrupted" in log and "requeueing" in log
    assert len(re.findall(r"^started ", log, re.MULTILINE)) >= 2 and len(re.findall(r"^done ", log, re.MULTILINE)) == 1
    (record,) = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    assert record["metrics"]["steps"] == 1500
