"""The figures of one GPU in one command, unattended and within a time limit.

    make bench-gpu                                    eight minutes on one card
    make bench-gpu ARGS='--minutes 20 --models llama3.2-1b qwen3-4b'
    make bench-gpu ARGS='--minutes 5 --models random-llama --rows 16 --scored 4 --repeats 1'    a rehearsal on a CPU

Benches are processes of their own, in the order of what is owed most; each writes its figures as soon as it has them.
One that takes longer than its share, or than what is left, is ended with all that it started, and the next one begins.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODELS = ("llama3.2-1b", "gemma3-1b", "qwen3-4b")
LEAST_SECONDS = 20.0
"""With less than this left nothing is begun: a process takes as long to load."""
WRITING_SECONDS = 10.0
"""Kept for the page that lists all figures."""


@dataclass(frozen=True)
class Bench:
    """One process: a name for people, the arguments of `bench`, and the seconds that it may take at most."""

    name: str
    arguments: tuple[str, ...]
    seconds: float


def plan(models: tuple[str, ...]) -> Iterator[Bench]:
    """What is measured, what is owed most first: all of it for the first model, then the cells of the others."""
    first, *others = models
    cell = ("--datasets", "winogrande", "--methods", "steering")
    yield Bench("parity", ("--only", "parity"), 120)
    yield Bench("steering", ("--only", "cells", "rate", "--models", first, *cell), 150)
    yield Bench("latency", ("--only", "latency", "--models", first, "--repeats", "3"), 120)
    yield Bench("evaluation", ("--only", "evaluation", "--models", first, *cell, "--long", "none"), 100)
    yield Bench("replicas", ("--only", "replicas", "--models", first, *cell), 60)
    for precision in ("tf32", "float32"):
        arguments = ("--only", "rate", "--models", first, *cell, "--overrides", f"training.precision={precision}")
        yield Bench(f"rate in {precision}", arguments, 60)
    yield Bench("memory", ("--only", "memory", "--models", first), 120)
    for model in others:
        yield Bench(f"steering on {model}", ("--only", "cells", "rate", "--models", model, *cell), 120)
    lora = ("--datasets", "winogrande", "--methods", "lora")
    yield Bench("LoRA", ("--only", "cells", "--models", first, *lora), 100)


def main() -> int:
    arguments, given = _parser().parse_known_args()
    deadline = time.monotonic() + 60 * arguments.minutes - WRITING_SECONDS
    notes = []
    for bench in plan(tuple(arguments.models)):
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            notes.append(f"{bench.name}: not begun, no time left")
            continue
        words = [*given, "--out", str(arguments.out), *bench.arguments]
        notes.append(f"{bench.name}: {_run(words, seconds=min(left, bench.seconds))}")
        print(notes[-1], flush=True)
    (arguments.out / "gpu.txt").write_text("\n".join(notes) + "\n")
    print("\n".join(["", *notes]))
    return 0 if any(": done" in note for note in notes) else 1


def _run(words: list[str], *, seconds: float) -> str:
    """Run `bench` with some arguments and say how that ended; with its time it takes its children along."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["scripts", os.environ.get("PYTHONPATH")]))}
    process = subprocess.Popen([sys.executable, "-m", "bench", *words], env=environment, start_new_session=True)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"ended after {seconds:.0f} s, its share of the time"
    spent = time.monotonic() - started
    return f"done in {spent:.0f} s" if code == 0 else f"failed with {code} after {spent:.0f} s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench-gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="of all benches together (8)")
    parser.add_argument("--models", nargs="+", default=MODELS, help="the first one is measured in full")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
