"""Tokens a second of GRPO's two halves, and the share of the machine's matmul rate that each reaches.

    python scripts/bench_rl.py [--model tiny_taught] [--method post_block] [--dataset gsm8k] [--out results/bench]

A step is 8 prompts with 8 completions each, one thread. Seconds are the processor's own, so that what else the machine
does counts little; the attention that a fused kernel computes is left out of the operations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench.measure import machine, matmul_rate, products, spread

from actshift.config.composition import compose
from actshift.methods import attach
from actshift.objectives.grpo import Grpo
from actshift.observe.provenance import code_provenance
from actshift.runtime.objectives import objective_of
from actshift.runtime.session import Session
from actshift.runtime.train import training_examples
from actshift.schema.config import Config

PROMPTS = 8


def measure(config: Config, *, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    session = Session()
    base = session.base(config)
    rows = training_examples(session.split(config, "train"), config=config, tokenizer=base.tokenizer, cache=None)
    adaptation = attach(base, config=config.method, seeds=[0])
    grpo = objective_of(config, base, adaptation, seeds=[0])
    assert isinstance(grpo, Grpo)

    def roll_out(step: int) -> None:
        block = [rows[(step * PROMPTS + place) % len(rows)] for place in range(PROMPTS)]
        grpo.prepare([block], step=step)

    def update(step: int) -> None:
        grpo.backward(0, alive=[0])
        for _, parameter in adaptation.named_parameters():
            parameter.grad = None

    figures: dict[str, list[float]] = {}
    for step in range(1, repeats + 1):
        rate = matmul_rate(device=base.device, dtype=torch.float32)
        for name, work in (("rollout", roll_out), ("update", update)):
            seconds = _seconds(work, step)
            tokens = grpo.measured(0)["tokens"] if name == "update" else grpo._measures[0]["tokens"]
            operations = products(lambda work=work, step=step: work(step))  # type: ignore[misc]
            figures.setdefault(f"{name}_tokens_per_second", []).append(tokens / seconds)
            figures.setdefault(f"{name}_share_of_matmul_rate", []).append(operations / seconds / rate)
            figures.setdefault(f"{name}_seconds", []).append(seconds)
    adaptation.detach()
    whole = [a + b for a, b in zip(figures["rollout_seconds"], figures["update_seconds"], strict=True)]
    figures["rollout_share_of_time"] = [a / b for a, b in zip(figures["rollout_seconds"], whole, strict=True)]
    return {name: spread(values) for name, values in figures.items()} | {
        "code": code_provenance(),
        "machine": machine(base.device),
    }


def _seconds(work: Callable[[int], None], step: int) -> float:
    started = time.process_time()
    work(step)
    return time.process_time() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny_taught")
    parser.add_argument("--method", default="post_block")
    parser.add_argument("--dataset", default="gsm8k")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    given = parser.parse_args()
    names = [f"{axis}={getattr(given, axis)}" for axis in ("model", "method", "dataset")]
    found = measure(compose([*names, "objective=grpo"]), repeats=given.repeats)
    path = given.out / f"rl_{given.model}_{given.dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "code"}, indent=1))
