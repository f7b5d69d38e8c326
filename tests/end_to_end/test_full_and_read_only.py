"""A disk without room and a folder that cannot be written: nothing is half-made, readers read, and work goes on.

The disks are real ones, of a few megabytes in memory. Where this user may mount none, the tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import attached, base_of, method_config

from actshift.cli import main
from actshift.planning.manifests import read_manifest
from actshift.training.checkpoints import Checkpoints

COMMITTED = Path(__file__).parents[2] / "results"


def mounted(folder: Path, *options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user cannot mount a file system: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of two megabytes."""
    folder = tmp_path / "disk"
    mounted(folder, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """The committed results of a small sweep on a disk that cannot be written, not even by root."""
    folder = tmp_path / "results"
    mounted(folder, "-t", "tmpfs", "tmpfs")
    for part in ("records", "manifests", "selected", "baselines"):
        shutil.copytree(COMMITTED / part, folder / part)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    "command",
    [
        ["tables", "small1"],
        ["status", "small1"],
        ["status", "small1", "--json"],
        ["runs", "method=sft"],
        ["compare"],
        ["adapters"],
    ],
    ids=" ".join,
)
def test_reading_needs_no_right_to_write(
    command: list[str], read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command == ["compare"]:
        final = read_manifest(read_only / "manifests" / "small1.final.jsonl")
        command = ["compare", *(run.identity for run in final.runs if run.cell == final.runs[0].cell)]
    assert main([*command, f"results={read_only}"]) == 0
    said = capsys.readouterr()
    assert len(said.out.strip()) > 20 or command == ["adapters"]
    if command[0] == "tables":
        assert "were not written" in said.err
        assert "Read-only file system" in said.err


@pytest.mark.parametrize("command", [["figures", "small1"], ["select", "small1"], ["report"], ["plan", "smoke"]])
def test_what_must_write_says_that_it_cannot(
    command: list[str], read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, f"results={read_only}"]) == 2
    error = capsys.readouterr().err
    assert "Read-only file system" in error
    assert "results=" in error


def test_a_page_of_results_that_cannot_be_written_goes_elsewhere(read_only: Path, tmp_path: Path) -> None:
    assert main(["report", f"results={read_only}", "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_an_older_checkpoint_makes_room_for_a_newer_one(small_disk: Path) -> None:
    base = base_of("random-llama")
    with attached(base, method_config("sft", model="random-llama")) as adaptation:
        parameters = [parameter for _, parameter in adaptation.named_parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        checkpoints, facts = Checkpoints(small_disk / "run", every=1), {"curves": []}
        fill = 2 * 2**20 - int(1.6 * sum(parameter.nbytes for parameter in parameters))
        assert fill > 0, "the model fits the disk once, and not twice"
        (small_disk / "fill").write_bytes(b"0" * fill)
        checkpoints.save(1, adaptation=adaptation, optimizer=optimizer, facts=facts)
        checkpoints.save(2, adaptation=adaptation, optimizer=optimizer, facts=facts)
        assert [folder.name for folder in (small_disk / "run").iterdir()] == ["checkpoint-00000002"]
        found = checkpoints.restore(adaptation=adaptation, optimizer=optimizer)
        assert found is not None
        assert found["step"] == 2


def test_a_run_on_a_full_disk_fails_in_words_and_goes_on_once_there_is_room(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_disk / "fill").write_bytes(b"0" * (2 * 2**20 - 40_000))
    command: list[Any] = ["run", "method=post_block", "dataset=listops", "model=random-llama", "lr=1e-3"]
    command += ["data.limit.train=16", "data.limit.validation=8", f"results={small_disk / 'results'}"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert "Make room" in error
    assert not list(small_disk.rglob("*.tmp*")), "nothing is half-made"
    assert not list(small_disk.glob("results/records/*"))
    (small_disk / "fill").unlink()
    assert main(command) == 0
    assert len(list(small_disk.glob("results/records/*.json"))) == 1
