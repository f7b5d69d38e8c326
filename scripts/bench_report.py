"""How long all tables and the report take from many records.

    python scripts/bench_report.py [--out results/bench]

Five sweeps of 4 models x 5 methods x 6 data sets at 5 rates and 5 seeds, with records of 1,300 answered rows each:
the size of the paper's tables, filled with made-up answers and loss curves in a temporary folder. The time is that of
`actshift report --tables`, once with no library compiled yet and once as ever after.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.planning.expand import expand_final, expand_grid
from actshift.planning.manifests import Manifest, Run, freeze
from actshift.planning.selection import select, write_selection
from actshift.store.records import Record
from actshift.store.store import Store

SWEEPS = 5
ROWS = 1300
POINTS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        records = fill(store)
        first, _ = report(Path(folder))  # the libraries are compiled, as in the first run after an installation
        seconds, cpu = report(Path(folder))
    figures = {
        "records": records,
        "report_seconds": round(seconds, 2),
        "report_cpu_seconds": round(cpu, 2),
        "first_report_seconds": round(first, 2),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def report(folder: Path) -> tuple[float, float]:
    """All tables and the report of a results folder, by the command: its seconds, and those of the processors.

    Bytecode is kept in the folder, whatever the environment says, so that two calls are a first and a second.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    command = [sys.executable, "-m", "actshift.cli", "report", "--tables", f"results={folder}"]
    started, before = time.monotonic(), os.times()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, cpu


def fill(store: Store) -> int:
    """Plans and records of the sweeps; how many records there are."""
    composer = CachedComposer()
    base = compose(["sweep=table2"]).sweep
    assert base is not None
    total = 0
    for number in range(SWEEPS):
        seeds = [100 * number + seed for seed in base.seeds]
        sweep = replace(base, name=f"bench{number}", seeds=seeds, seeds_by_method={})
        grid = freeze(store, expand_grid(sweep, composer))
        selection = select(grid, [_publish(store, grid, run) for run in grid.runs])
        write_selection(store, selection)
        final = freeze(store, expand_final(grid, selection))
        for run in final.runs:
            _publish(store, final, run)
        total += len(grid.runs) + len(final.runs)
    return total


def _publish(store: Store, manifest: Manifest, run: Run) -> Record:
    rng = np.random.default_rng(int(run.identity[:8], 16))
    right = rng.random(ROWS) < rng.uniform(0.3, 0.9)
    losses = 2 * np.exp(-np.arange(POINTS) / 8) + rng.uniform(0.2, 0.4, POINTS)
    metrics = {
        "accuracy": 100 * float(right.mean()),
        "rows": ROWS,
        "correct": int(right.sum()),
        "answers": np.packbits(right).tobytes().hex(),
        "diverged": False,
        "trainable_parameters": 1000 * (1 + len(run.cell.method)),
        "total_parameters": 10**6,
        "loss_curve": [[10 * (step + 1), round(float(loss), 5)] for step, loss in enumerate(losses)],
    }
    config = manifest.planned(run.cell).at(run.lr, run.seed, run.variant)
    provenance = {"scale": "1b", "source": "hub", "data": {run.split: "x"}}
    record = Record(run.identity, run.split, run.cell, run.lr, run.seed, config, metrics, provenance)
    store.publish(record)
    return record


if __name__ == "__main__":
    main()
