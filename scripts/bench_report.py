"""How long tables and the report take from many records.

    python scripts/bench_report.py [--out results/bench]

Five sweeps of 4 models x 5 methods x 6 data sets at 5 rates and 5 seeds, with records of 1,300 answered rows each:
the size of the paper's tables, filled with made-up answers in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from actshift.composition import compose
from actshift.manifests import Manifest, Run
from actshift.planning import expand_final, expand_grid, freeze
from actshift.product import ProductComposer
from actshift.records import Record
from actshift.selection import select, write_selection
from actshift.store import Store

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
        started = time.monotonic()
        command = [sys.executable, "-m", "actshift.cli", "report", "--results", folder]
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.monotonic() - started
        figures = {"records": records, "report_seconds": round(seconds, 2)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


def fill(store: Store) -> int:
    """Plans and records of the sweeps; how many records there are."""
    composer = ProductComposer()
    base = compose(["sweep=table2"])["sweep"]
    total = 0
    for number in range(SWEEPS):
        seeds = [100 * number + seed for seed in base["seeds"]]
        sweep = {**base, "name": f"bench{number}", "seeds": seeds, "seeds_by_method": {}}
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
