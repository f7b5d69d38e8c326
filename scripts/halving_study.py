"""How often successive halving chooses what a full grid chose, on grids whose records are committed.

    python scripts/halving_study.py small2 small1 small4      train to the shares that halving compares, in turn
    python scripts/halving_study.py small2 small1 small4 --report

Every candidate of a cell is trained for a quarter of its steps and those that halving keeps to a half, for their
validation losses; what they reach in the end is in the records of the full grid, whose runs these are.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from actshift.config.cached import CachedComposer
from actshift.data.examples import Examples
from actshift.files import write_file
from actshift.methods import attach
from actshift.planning.halving import SHARES, loss_after, pause_step, standing
from actshift.planning.manifests import Manifest, Run, read_manifest
from actshift.planning.selection import select
from actshift.runtime.session import Session
from actshift.runtime.train import training_examples
from actshift.schema.config import Config
from actshift.store.store import Store
from actshift.training.batches import step_rows
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

CURVES = Path("results/bench/halving-curves.json")
RESULTS = Path("results")


class Study:
    """Validation losses by run, trained as far as halving asks for, kept in one file."""

    def __init__(self, manifest: Manifest, curves: dict[str, Any]) -> None:
        self.manifest, self.curves = manifest, curves
        self._session, self._compose = Session(), CachedComposer()

    def loss(self, run: Run, share: float) -> float | None:
        found = self.curves.get(run.identity)
        if found is None:
            return None
        loss = loss_after(found["curve"], steps=found["steps"], share=share)
        return math.inf if loss is None and found["diverged"] else loss

    def measure(self) -> None:
        """Train what each cell still needs, its runs continuing from their own checkpoints."""
        for planned in self.manifest.cells:
            runs = self.manifest.runs_of(planned.cell)
            with tempfile.TemporaryDirectory() as folder:
                done = [run.identity for run in runs]
                while (now := standing(runs, loss_at=self.loss, done=done)).due:
                    for run in now.due:
                        self._train(run, now.share, folder=Path(folder) / run.identity)
                        write_file(CURVES, json.dumps(self.curves, indent=1, sort_keys=True) + "\n")
            print(planned.cell, {f"{run.lr:g}": share for run, share in now.dropped.items()}, flush=True)

    def _train(self, run: Run, share: float, *, folder: Path) -> None:
        planned = self.manifest.planned(run.cell).variant(run.variant)
        config = self._compose([*planned.overrides, "training.validations=4", "stage=grid"])
        config = replace(config, lr=run.lr, seed=run.seed)
        base, training = self._session.base(config), config.training
        rows, watched = (self._examples(config, name) for name in ("train", "validation"))
        sizes = {"batch_size": training.batch_size, "epochs": training.epochs}
        steps = len(step_rows(len(rows), **sizes, max_steps=training.max_steps, seed=run.seed))
        adaptation = attach(base, config=config.method, seeds=[run.seed])
        try:
            (curves,) = train(
                base,
                adaptation,
                rows=rows,
                validation_rows=[watched[row] for row in range(min(len(watched), training.validation_rows))],
                training=training,
                lrs=[run.lr],
                seeds=[run.seed],
                micro_batch=config.hardware.micro_batch,
                checkpoints=Checkpoints(folder, every=0, pause=pause_step(steps, share)),
                progress=lambda *_: None,
            )
        finally:
            adaptation.detach()
        found = {"curve": curves.validation, "steps": steps, "diverged": curves.diverged_at is not None}
        self.curves[run.identity] = found

    def _examples(self, config: Config, name: str) -> Examples:
        split = self._session.split(config, name)
        return training_examples(split, config=config, tokenizer=self._session.base(config).tokenizer, cache=None)


def report(studies: Iterable[Study]) -> dict[str, Any]:
    """By sweep: cells, how often both choose the same rate, what halving loses in validation and test accuracy."""
    found = {}
    for study in studies:
        records = {record.identity: record for record in Store(RESULTS).records("validation")}
        full = select(study.manifest, records.values())
        cells = []
        for choice in full.choices:
            runs = study.manifest.runs_of(choice.cell)
            now = standing(runs, loss_at=study.loss, done=[run.identity for run in runs])
            if not runs or now.due:
                continue
            left = [run for run in runs if run not in now.dropped]
            best = min(left, key=lambda run: (-records[run.identity].metrics["accuracy"], run.lr, run.variant))
            accuracy = records[best.identity].metrics["accuracy"]
            spent = sum(now.dropped.get(run, 1.0) for run in runs) / len(runs)
            tied = f"{best.lr:g} {best.variant}".rstrip() in choice.tie
            same = (best.lr, best.variant) == (choice.lr, choice.variant)
            regret = (choice.accuracy or 0.0) - accuracy
            cells.append({"cell": str(choice.cell), "same": same, "tied": tied, "regret": regret, "spent": spent})
        found[study.manifest.sweep] = {
            "cells": len(cells),
            "same_rate": sum(each["same"] for each in cells),
            "same_rate_or_tied": sum(each["same"] or each["tied"] for each in cells),
            "mean_regret": round(statistics.fmean(each["regret"] for each in cells), 3),
            "largest_regret": max(each["regret"] for each in cells),
            "steps_saved": round(1 - statistics.fmean(each["spent"] for each in cells), 4),
            "differing": [each for each in cells if not each["same"]],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+")
    parser.add_argument("--report", action="store_true", help="write results/bench/halving.json, train nothing")
    arguments = parser.parse_args()
    curves = json.loads(CURVES.read_text()) if CURVES.exists() else {}
    studies = [Study(read_manifest(Store(RESULTS).manifest_path(name, "grid")), curves) for name in arguments.sweeps]
    if arguments.report:
        found = {"shares": SHARES, **report(studies)}
        write_file(RESULTS / "bench" / "halving.json", json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(json.dumps(found, indent=1))
        return
    for study in studies:
        study.measure()


if __name__ == "__main__":
    main()
