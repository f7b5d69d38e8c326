"""How a CPU's cores are best split into workers and threads: the same runs by each split, in turns.

    python scripts/bench_split.py [--model tiny] [--data FOLDER] [--rounds 2] [--out results/bench]

Runs an hour are 3600 x workers / the mean seconds that a run trained and was evaluated while all workers were busy;
what processes take to start is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.config.overrides import override
from actshift.observe.provenance import code_provenance
from actshift.planning.expand import expand_grid
from actshift.planning.manifests import freeze
from actshift.store.store import Store
from actshift.sweeps.devices import Devices, usable_cores
from actshift.sweeps.local import LocalEngine

METHODS = ("sft", "lora_r8", "post_block")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", help="a folder of real rows: SST-2 instead of procedural BoolQ")
    parser.add_argument("--rows", type=int, default=320, help="training rows of a run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    arguments = parser.parse_args()
    cores = usable_cores()
    splits = [(workers, cores // workers) for workers in range(1, cores + 1) if cores % workers == 0]
    found: dict[tuple[int, int], list[dict[str, float]]] = {split: [] for split in splits}
    for turn in range(arguments.rounds):
        for split in splits if turn % 2 == 0 else splits[::-1]:  # no split always runs on the warmer machine
            found[split].append(measure(arguments, *split))
    report = {
        "model": arguments.model,
        "rows": arguments.rows,
        "rounds": arguments.rounds,
        "cores": cores,
        "code": code_provenance(),
        "splits": [
            {"workers": workers, "threads": threads, "runs_an_hour": _medians(turns)}
            for (workers, threads), turns in found.items()
        ],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"split-{arguments.model}.json"
    path.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for each in report["splits"]:
        print(each)
    print(path)


def measure(arguments: argparse.Namespace, workers: int, threads: int) -> dict[str, float]:
    """Runs an hour by method, by so many workers of so many threads."""
    launch = [f"hardware.workers={workers}", f"hardware.threads={threads}", "execution=separate"]
    config = compose([f"model={arguments.model}", *launch])
    scale, rates = config.model.scale, [1e-4 * 1.1**place for place in range(2 * workers)]
    dataset, extra = "boolq", ["data.source=procedural"]
    if arguments.data:
        dataset, extra = "sst2", ["data.source=local", override("data.dir", Path(arguments.data).resolve())]
    extra += [f"data.limit.train={arguments.rows}", "data.limit.validation=40"]
    found = {}
    for method in METHODS:
        key = compose([f"method={method}"]).method.rates
        words = ["sweep=smoke", f"sweep.models=[{arguments.model}]", f"sweep.methods=[{method}]"]
        words += [
            f"sweep.reference={method}",
            f"sweep.datasets=[{dataset}]",
            f"+sweep.rates={{{scale}: {{{key}: {rates}}}}}",
        ]
        sweep = compose(words).sweep
        assert sweep is not None
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            grid = freeze(store, expand_grid(sweep, CachedComposer(), extra=extra))
            with LocalEngine(store, devices=Devices(config.hardware), overrides=launch) as engine:
                engine.do(grid)
            seconds = [r.provenance["train_seconds"] + r.provenance["evaluation_seconds"] for r in store.records()]
        assert len(seconds) == len(rates), "a run failed"
        found[method] = 3600 * workers / statistics.mean(seconds)
    return found


def _medians(turns: list[dict[str, float]]) -> dict[str, float]:
    return {method: round(statistics.median(turn[method] for turn in turns), 1) for method in METHODS}


if __name__ == "__main__":
    main()
