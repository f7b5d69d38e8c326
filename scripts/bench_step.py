"""Where the time of a training step on a CPU goes, by kernel: products of matrices, attention, and everything else.

    python scripts/bench_step.py [--models smollm2-135m llama-100m ...] [--data FOLDER] [--out results/bench]

A step of steering (post_block) with one thread, on rows of BoolQ and Winogrande, after one that warms up. Shares are
of the time that torch's profiler counts to kernels themselves.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from bench.case import build
from bench.contestants import Actshift
from torch.profiler import ProfilerActivity, profile

from actshift.observe.provenance import code_provenance
from actshift.runtime.session import set_threads

MODELS = ("smollm2-135m", "llama-100m", "qwen3-150m", "gemma3-270m")
DATASETS = ("boolq", "winogrande")
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
ATTENTION = "aten::_scaled_dot_product"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--data", type=Path, help="a folder of real rows; procedural ones without it")
    parser.add_argument("--rows", type=int, default=16, help="rows of the steps that are counted")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cases = [(model, dataset) for model in arguments.models for dataset in DATASETS]
    found = []
    for model, dataset in cases:
        found.append(shares(model, dataset, rows=arguments.rows, data=arguments.data))
        print(found[-1])
    report = {"code": code_provenance(), "steps": found}
    path = arguments.out / "step.json"
    path.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(path)


def shares(model: str, dataset: str, *, rows: int, data: Path | None) -> dict[str, object]:
    """Percent of a step's time by kind of kernel, and of the ten slowest kernels of the rest by name."""
    case = build(model, dataset, "steering", rows=rows, scored=1, data=data)
    set_threads(case.config.hardware)
    ours = Actshift(case)
    ours.train()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        ours.train()
    ours.close()
    times = {event.key: float(event.self_cpu_time_total) for event in profiler.key_averages()}
    whole, rest = sum(times.values()), {}
    by_kind: dict[str, float] = defaultdict(float)
    for name, time in times.items():
        kind = "products" if name in PRODUCTS else "attention" if name.startswith(ATTENTION) else "rest"
        by_kind[kind] += time
        if kind == "rest":
            rest[name] = time
    slowest = sorted(rest, key=rest.__getitem__, reverse=True)[:10]
    percent = {name: round(100 * time / whole, 1) for name, time in by_kind.items()}
    kept = ("model", "dataset", "parameters", "tokens_a_row")
    facts = {name: value for name, value in case.facts().items() if name in kept} | {"seconds": round(whole / 1e6, 3)}
    return facts | percent | {"slowest": {name: round(100 * rest[name] / whole, 1) for name in slowest}}


if __name__ == "__main__":
    main()
