"""A real SLURM node: an analysis submitted with the sweep that trains its adapters, and done after it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest


def answers(*command: str) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not answers("sinfo", "-h"), reason="no SLURM node answers sinfo"),
]

SWEEP = """
defaults: [steps_1, _self_]
name: few
title: "Adapters of a test"
methods: [joint_orth]
reference: joint_orth
datasets: [listops]
seeds: [1, 2]
overrides: [protocol=paper, data.source=procedural, data.limit.train=16, data.limit.test=4, training.validations=0]
"""


def actshift(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "actshift.cli", *words], capture_output=True, text=True, timeout=300)


def queued() -> set[str]:
    text = subprocess.run(["squeue", "-h", "-o", "%F"], capture_output=True, text=True, check=True).stdout
    return set(text.split())


def wait_for(jobs: list[str], *, seconds: int = 600) -> None:
    deadline = time.monotonic() + seconds
    while set(jobs) & queued():
        assert time.monotonic() < deadline, f"jobs {jobs} did not end within {seconds} s"
        time.sleep(0.5)


def test_an_analysis_waits_for_its_adapters_and_finds_what_it_finds_here(tmp_path: Path) -> None:
    configs, results = tmp_path / "configs", tmp_path / "results"
    (configs / "sweep").mkdir(parents=True)
    (configs / "sweep" / "few.yaml").write_text(SWEEP)
    asked = ["analyze", "norms", "dataset=listops", "analysis.sweep=few", "analysis.methods=[joint_orth]"]
    asked += [f"results={results}", "--config-dir", str(configs)]

    refused = actshift(*asked, "--submit", "profile=cpu")
    assert refused.returncode == 2 and "needs adapters of few (joint_orth): not planned yet" in refused.stderr

    done = actshift(*asked, "--submit", "--train", "profile=cpu")
    assert done.returncode == 0, done.stderr
    jobs = re.findall(r"^(\d+): ", done.stdout, re.MULTILINE)
    notes = (results / "slurm" / "analyze-norms" / "jobs.jsonl").read_text().splitlines()
    (last,) = [json.loads(line)["job"] for line in notes]
    assert jobs[-1] == last and len(jobs) >= 2, "the sweep's jobs, then the analysis"
    again = actshift(*asked, "--submit", "profile=cpu")
    assert again.returncode == 0 and f"job {last} is this analysis" in again.stdout, again.stdout + again.stderr
    wait_for(jobs)

    (log,) = (results / "slurm" / "analyze-norms" / "logs").iterdir()
    written = results / "analyses" / "norms-tiny.csv"
    assert written.exists(), log.read_text()
    frame = pd.read_csv(written)
    assert sorted(frame["seed"].unique()) == [1, 2] and frame["method"].unique().tolist() == ["joint_orth"]
    text = written.read_bytes()
    here = actshift(*asked)
    assert here.returncode == 0, here.stderr
    assert written.read_bytes() == text
    planned = actshift(*asked, "--plan")
    assert "adapters of few (joint_orth): 2 of 2 adapters are there" in planned.stdout


def test_an_analysis_without_adapters_needs_no_sweep(tmp_path: Path) -> None:
    asked = ["analyze", "overlap", "dataset=listops", "analysis.rows=4", f"results={tmp_path}"]
    done = actshift(*asked, "--submit", "profile=cpu")
    assert done.returncode == 0, done.stderr
    wait_for(re.findall(r"^(\d+): ", done.stdout, re.MULTILINE))
    record = json.loads((tmp_path / "analyses" / "overlap-tiny.json").read_text())
    assert record["analysis"]["rows"] == 4
    assert (tmp_path / "analyses" / "overlap-tiny_layers.png").exists()
