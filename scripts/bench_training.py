"""Time training steps: one run alone, and several replicas of it at once, turn by turn in one process.

    python scripts/bench_training.py model=tiny method=post_block dataset=boolq --replicas 5

Overrides are those of `actshift run`. Prints one line of JSON: median milliseconds a step with the least and the most,
and the ratio of the medians, which is `replicas` where training them at once gains nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from actshift.composition import compose
from actshift.methods import attach
from actshift.models.loading import Base, load_base
from actshift.run import pick_device
from actshift.tasks import get_task
from actshift.tasks.examples import Example, tokenize
from actshift.tasks.splits import load_split
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the configuration, such as model=tiny")
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="in each measurement")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each kind")
    parser.add_argument("--seeds", action="store_true", help="replicas differ in their seeds, and so in their rows")
    arguments = parser.parse_args()

    config = compose(arguments.overrides)
    device = pick_device(config["hardware"])
    torch.set_num_threads(config["hardware"]["threads"])
    base = load_base(config["model"], precision=config["training"]["precision"], device=device)
    rows = some_rows(base, config, count=arguments.steps * config["training"]["batch_size"])
    kinds = {"one": [config["seed"]], "replicas": [config["seed"]] * arguments.replicas}
    if arguments.seeds:
        kinds["replicas"] = list(range(1, arguments.replicas + 1))
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(arguments.repeats + 1):
        for kind, seeds in kinds.items():
            elapsed = milliseconds(base, config, rows=rows, seeds=seeds, steps=arguments.steps)
            if turn > 0:  # the first turn warms up
                times[kind].append(elapsed)
    print(json.dumps({**report(times), "replicas": arguments.replicas, **facts(base, config, rows=rows)}))


def some_rows(base: Base, config: dict[str, Any], *, count: int) -> list[Example]:
    """The first rows of the training split."""
    with tempfile.TemporaryDirectory() as folder:
        rows = tokenize(
            load_split(config, "train"),
            task=get_task(config["dataset"]["task"]),
            tokenizer=base.tokenizer,
            end_token=config["training"]["end_token"],
            max_tokens=config["training"]["max_tokens"],
            cache=Path(folder),
        )
        return [rows[place] for place in range(min(count, len(rows)))]


def milliseconds(base: Base, config: dict[str, Any], *, rows: list[Example], seeds: list[int], steps: int) -> float:
    """The time of a training step, adapters attached anew."""
    adaptation = attach(base, config=config["method"], seeds=seeds)
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            train(
                base,
                adaptation,
                rows=rows,
                validation_rows=(),
                training={**config["training"], "max_steps": steps},
                lrs=[config["lr"]] * len(seeds),
                seeds=seeds,
                micro_batch=config["hardware"]["micro_batch"],
                checkpoints=Checkpoints(Path(folder), every=0),
                progress=lambda *_: None,
            )
            if base.device.type == "cuda":
                torch.cuda.synchronize()
            return 1e3 * (time.perf_counter() - started) / steps
    finally:
        adaptation.detach()


def report(times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {kind: statistics.median(measured) for kind, measured in times.items()}
    spread = {
        kind: [round(value, 2) for value in (medians[kind], min(measured), max(measured))]
        for kind, measured in times.items()
    }
    return {"ms_median_least_most": spread, "ratio": round(medians["replicas"] / medians["one"], 3)}


def facts(base: Base, config: dict[str, Any], *, rows: list[Example]) -> dict[str, Any]:
    return {
        "model": config["model"]["name"],
        "method": config["method"]["name"],
        "dataset": config["dataset"]["name"],
        "batch_size": config["training"]["batch_size"],
        "tokens_a_row": round(statistics.mean(len(row.ids) for row in rows), 1),
        "device": base.device_name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
