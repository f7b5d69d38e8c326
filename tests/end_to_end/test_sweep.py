"""A sweep from plan to tables with real workers: done once, killed and resumed, drifted, failed and retried."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = [
    "sweep.methods=[sft,lora_r8,post_block]",
    "sweep.datasets=[listops,boolq]",
    "sweep.seeds=[42,43]",
    "sweep.rates.tiny.sft=[5e-4,2e-3]",
    "sweep.rates.tiny.lora=[3e-3,1e-2]",
    "sweep.rates.tiny.steering_r8=[3e-3,1e-2]",
    "data.limit.train=48",
    "data.limit.validation=16",
    "data.limit.test=16",
    "training.validations=1",
    "training.validation_rows=8",
    "hardware.checkpoint_every=2",
]
KEPT = ("manifests", "selected")
# 2 data sets x 3 methods at 2 rates; then 2 seeds each, the first of which the grid trained.
GRID, FINAL = 12, 12


def command(verb: str, results: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "actshift.cli", verb, "demo", *SMALL, f"results={results}", *more]


def call(verb: str, results: Path, *more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(verb, results, *more), capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def tables(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((results / "tables").iterdir())}


def stamps(results: Path) -> dict[str, int]:
    """When each record was written; a run that is done again would change its stamp."""
    return {path.name: path.stat().st_mtime_ns for path in (results / "records").glob("[!.]*")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    results = tmp_path_factory.mktemp("undisturbed")
    return results, call("sweep", results).stdout


def test_does_every_planned_run_once_and_ends_with_the_tables(undisturbed: tuple[Path, str]) -> None:
    results, output = undisturbed
    assert f"[{GRID}/{GRID}]" in output and f"[{FINAL}/{FINAL}]" in output
    kinds = [f"demo.{name}" for name in ("csv", "html", "md", "std.html", "std.md", "std.tex", "tex")]
    assert sorted(tables(results)) == kinds
    records = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    assert sum(record["split"] == "validation" for record in records) == GRID
    assert sum(record["split"] == "test" for record in records) == FINAL
    assert "small scale" in (results / "tables" / "demo.md").read_text()
    for record in records:
        assert record["identity"] in {path.name for path in (results / "runs").iterdir()}


def test_the_grid_is_scored_on_validation_alone(undisturbed: tuple[Path, str]) -> None:
    results, _ = undisturbed
    grid = [json.loads(line) for line in (results / "manifests" / "demo.grid.jsonl").read_text().splitlines()]
    final = [json.loads(line) for line in (results / "manifests" / "demo.final.jsonl").read_text().splitlines()]
    assert {line["split"] for line in grid if line["kind"] == "run"} == {"validation"}
    assert {line["split"] for line in final if line["kind"] == "run"} == {"test"}
    unselected = {line["identity"] for line in grid if line["kind"] == "run"} - {
        line["identity"] for line in final if line["kind"] == "run"
    }
    assert unselected
    for identity in unselected:
        assert not (results / "records" / f"{identity}.test.json").exists()


def test_a_second_call_does_nothing_again(undisturbed: tuple[Path, str]) -> None:
    results, _ = undisturbed
    before, written = stamps(results), tables(results)
    code = "import sys; from actshift.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    words = [sys.executable, "-c", code, *command("sweep", results)[3:]]
    output = subprocess.run(words, capture_output=True, text=True, check=True, timeout=280).stdout
    assert "[1/" not in output
    assert output.splitlines()[-1] == "False", "what computes nothing does not wait for torch"
    assert stamps(results) == before and tables(results) == written


def test_status_counts_from_files(undisturbed: tuple[Path, str]) -> None:
    results, _ = undisturbed
    output = call("status", results).stdout
    assert output.splitlines()[0] == f"demo grid: {GRID} done | final: {FINAL} done"
    assert output.count("2/2") == GRID, "a line a cell: two rates, then two seeds"


def test_two_clusters_merge_by_copying_files(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    """Each did a part of the runs, some of them both; copied into one folder they are one sweep."""
    results, _ = undisturbed
    records = sorted((results / "records").iterdir())
    for part in (records[: len(records) * 2 // 3], records[len(records) // 3 :]):
        for folder, files in (("records", part), *((name, (results / name).iterdir()) for name in KEPT)):
            (tmp_path / folder).mkdir(exist_ok=True)
            for file in files:
                shutil.copy(file, tmp_path / folder)
    assert f"[{FINAL}" not in call("sweep", tmp_path).stdout, "nothing is left to do"
    assert tables(tmp_path) == tables(results)


def test_a_changed_request_is_refused_with_the_keys_that_changed(undisturbed: tuple[Path, str]) -> None:
    results, _ = undisturbed
    refused = call("sweep", results, "training.clip=0.5", code=2)
    assert "training.clip: 1 -> 0.5" in refused.stderr and "--replan" in refused.stderr


def test_killed_at_three_moments_ends_with_the_same_tables(undisturbed: tuple[Path, str], tmp_path: Path) -> None:
    """Once the launcher alone is killed, and its workers end by themselves; twice all of them are."""
    reference, _ = undisturbed
    rng = random.Random(0)
    for already in (1, GRID // 2, GRID + 3):
        process = subprocess.Popen(
            command("sweep", tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for_records(tmp_path, count=already, process=process)
        time.sleep(rng.random())
        if already == 1:
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_for_end(process.pid)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        before = stamps(tmp_path)
        assert before, "killed before anything was done"
        for path in (tmp_path / "records").glob("[!.]*"):
            json.loads(path.read_text())
    call("sweep", tmp_path)
    after = stamps(tmp_path)
    assert {name: after[name] for name in before} == before
    assert tables(tmp_path) == tables(reference)


def wait_for_end(group: int) -> None:
    """Until no process of the group lives. Raises where one is left after a minute."""
    deadline = time.monotonic() + 60
    while group_lives(group):
        assert time.monotonic() < deadline, "workers outlive their launcher"
        time.sleep(0.2)


def test_a_failing_run_is_named_and_retried(tmp_path: Path) -> None:
    one = [
        "sweep.methods=[sft]",
        "sweep.datasets=[listops]",
        "sweep.seeds=[42]",
        "training.max_steps=2",
        "hardware.workers=1",
    ]
    call("plan", tmp_path, *one)
    runs = [json.loads(line) for line in (tmp_path / "manifests" / "demo.grid.jsonl").read_text().splitlines()]
    identity = next(line["identity"] for line in runs if line["kind"] == "run")
    blocked = tmp_path / "runs" / identity / "adapter"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should go")
    failed = call("sweep", tmp_path, *one, code=1)
    assert "FAILED" in failed.stdout and "--retry" in failed.stderr
    blocked.unlink()
    again = call("sweep", tmp_path, *one, code=1)
    assert "[1/" not in again.stdout, "a failed run is not tried again unasked"
    call("sweep", tmp_path, *one, "--retry")
    assert (tmp_path / "tables" / "demo.md").exists()


def test_a_worker_that_dies_takes_down_its_run_alone_which_is_tried_again_smaller(tmp_path: Path) -> None:
    one = ["sweep.methods=[sft]", "sweep.datasets=[listops]", "sweep.seeds=[42]", "training.epochs=10"]
    process = subprocess.Popen(
        command("sweep", tmp_path, *one), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while not (checkpoints := list(tmp_path.glob("runs/*/checkpoint-*"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    identity = checkpoints[0].parent.name
    owner = json.loads(max((tmp_path / "runs" / identity / "claims").glob("*.json")).read_text())
    os.kill(owner["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    assert "again with half the micro-batch" in output
    record = json.loads((tmp_path / "records" / f"{identity}.validation.json").read_text())
    others = [json.loads(path.read_text()) for path in (tmp_path / "records").glob("*.validation.json")]
    assert record["provenance"]["micro_batch"] == 4
    assert sorted(other["provenance"]["micro_batch"] for other in others) == [4, 8]


def test_ctrl_c_ends_cleanly_and_loses_no_step(tmp_path: Path) -> None:
    one = ["sweep.methods=[sft]", "sweep.datasets=[listops]", "sweep.seeds=[42]", "training.epochs=40"]
    process = subprocess.Popen(
        command("sweep", tmp_path, *one, "hardware.checkpoint_every=0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/claims/*.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130 and "Traceback" not in output, output
    assert "interrupted" in output
    assert list(tmp_path.glob("runs/*/checkpoint-*")) and not list(tmp_path.glob("runs/*/failed.*"))
    deadline = time.monotonic() + 60  # the last worker may need a moment to end
    while group_lives(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_records(results: Path, *, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while len(list((results / "records").glob("[!.]*"))) < count:
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline, "the sweep does not get on"
        time.sleep(0.05)


def group_lives(group: int) -> bool:
    """Whether a process of the group is alive; zombies are not."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(int(pgid) == group and not stat.startswith("Z") for pgid, stat in map(str.split, listed.splitlines()))
