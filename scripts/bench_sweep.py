"""What a sweep costs beside its training and evaluation: one warm worker over a manifest of many small runs.

    python scripts/bench_sweep.py [--runs 40] [--out results/bench]

Overhead of a run is its wall time in the worker less the record's train and evaluation seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.observe.provenance import code_provenance
from actshift.planning.expand import expand_grid
from actshift.planning.manifests import freeze
from actshift.store.store import Store
from actshift.sweeps.worker import Event, Worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    arguments = parser.parse_args()
    rates = [1e-2 * 0.95**place for place in range(arguments.runs)]
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Store(Path(folder)), rates)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "sweep_overhead.json"
    path.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    print(json.dumps({key: value for key, value in figures.items() if key != "code"}, indent=1))
    print(path)


def measure(store: Store, rates: list[float]) -> dict[str, object]:
    """Overheads in seconds: the median run's, and the whole sweep's as a share of its wall time, start included."""
    overrides = [
        "sweep.methods=[post_block]",
        "sweep.reference=post_block",
        "sweep.datasets=[boolq]",
        f"sweep.rates.tiny.steering_r8={rates}",
    ]
    sweep = compose(["sweep=demo", *overrides]).sweep
    assert sweep is not None
    limits = ["data.limit.train=400", "data.limit.validation=100"]
    started = time.monotonic()
    grid = freeze(store, expand_grid(sweep, CachedComposer(), extra=limits))
    planned = time.monotonic() - started
    ends: list[tuple[str, float]] = []

    def tell(event: Event) -> None:
        if event.kind == "done" and event.run is not None:
            ends.append((event.run.identity, event.seconds))

    Worker(store.root, overrides=["hardware=cpu"], tell=tell).work(grid)
    wall = time.monotonic() - started
    own = {r.identity: r.provenance["train_seconds"] + r.provenance["evaluation_seconds"] for r in store.records()}
    overheads = [seconds - own[identity] for identity, seconds in ends]
    return {
        "runs": len(ends),
        "median_overhead_seconds": round(statistics.median(overheads), 3),
        "largest_overhead_seconds": round(max(overheads), 3),
        "planning_seconds": round(planned, 3),
        "wall_seconds": round(wall, 3),
        "overhead_share": round((wall - sum(own.values())) / wall, 4),
        "code": code_provenance(),
    }


if __name__ == "__main__":
    main()
