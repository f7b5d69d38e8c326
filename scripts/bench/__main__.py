"""The benchmark program: the project beside the released code, peft and pyreft, on the same model, rows and protocol.

    make bench                                  all benches
    make bench ARGS='--only evaluation'         some of them
    make bench ARGS='--models llama3.1-8b'      the paper's models, with random weights, for a GPU
    make bench ARGS='--only memory'             peak memory beside what is estimated; on a CPU a quarter of an hour
    make bench ARGS='--only latency'            what every method costs when it answers, folded into weights and not
    make bench ARGS='--steerling FOLDER'        with the steerer of a checkout of the released code

Without CUDA it takes the embedded model and a Llama of 110M parameters with random weights, one thread; where CUDA
answers, the architectures of the paper with random weights, the project in bfloat16 and the released code in float32.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from bench import latency, parity, parts, table
from bench.limits import rate
from bench.measure import write
from bench.memory import memory
from bench.parts import LONG_ANSWERS, RIVALS, Options
from bench.planner import planner
from bench.scaling import plot, scaling

BENCHES = ("cells", "evaluation", "replicas", "rate", "scaling")
ON_REQUEST = ("memory", "latency", "parity", "planner")
CPU_MODELS = ("tiny", "llama-100m")
CUDA_MODELS = ("llama3.2-1b", "gemma3-1b", "qwen3-4b", "llama3.1-8b")
DATASETS = ("boolq", "winogrande")
SLOW = "llama-100m"
"""What takes a minute a cell: on long rows it is held against the released loop alone."""
ROWS = {"tiny": 96, "llama-100m": 16}
SCORED = {"tiny": 256, "llama-100m": 24}


def main() -> None:
    arguments = _parser().parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = arguments.models or (CUDA_MODELS if device.type == "cuda" else CPU_MODELS)
    options = Options(
        rows=dict.fromkeys(models, arguments.rows) if arguments.rows else ROWS,
        scored=dict.fromkeys(models, arguments.scored) if arguments.scored else SCORED,
        repeats=arguments.repeats,
        data=arguments.data,
        steerling=arguments.steerling,
        overrides=(f"training.precision={_precision(device)}", *arguments.overrides),
    )
    if arguments.peak:
        found = parts.peak(options, arguments.peak, models[0], arguments.datasets[0], arguments.methods[0])
        print(json.dumps(found))
        return
    other = options.precision if options.precision != _precision(device) else None
    for name, figures in benches(options, arguments, models=models):
        name = f"{name}-{other}" if other and name != "parity" else name
        path = write(arguments.out, name, figures, device=device)
        if name == "scaling":
            plot(figures, path.with_suffix(".svg"))
        if name.startswith("latency"):
            latency.plot(figures, path.with_suffix(".svg"))
        print(table.line(name, figures), flush=True)
    (arguments.out / "README.md").write_text(table.page(arguments.out))


def _precision(device: torch.device) -> str:
    """The precision of what is measured where none is named; the released code's is float32 everywhere."""
    return "bfloat16" if device.type == "cuda" else "float32"


def benches(options: Options, arguments: Any, *, models: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of the benches that were asked for, by the name of their file."""
    chosen = arguments.only
    for model in models:
        for dataset in arguments.datasets:
            if "cells" in chosen:
                for method in _methods(model, dataset, arguments.methods):
                    yield f"cell-{model}-{dataset}-{method}", parts.cell(options, model, dataset, method)
            if "rate" in chosen and not _slow(model, dataset):
                yield f"rate-{model}-{dataset}", rate(options, model, dataset)
        if "evaluation" in chosen:
            for dataset in (*arguments.datasets, *([] if arguments.long == "none" else [arguments.long])):
                yield f"evaluation-{model}-{dataset}", parts.evaluation(options, model, dataset)
        if "replicas" in chosen and model != SLOW:
            for dataset in arguments.datasets:
                yield f"replicas-{model}-{dataset}", parts.replicas(options, model, dataset)
        if "latency" in chosen:
            yield f"latency-{model}", latency.latency(options, model)
    if "scaling" in chosen:
        yield "scaling", scaling(options)
    if "planner" in chosen:
        yield "planner", planner(options, models)
    if "parity" in chosen:
        yield "parity", parity.parity(arguments.models or parity.MODELS, overrides=arguments.overrides)
    if "memory" in chosen:
        cuda = torch.cuda.is_available()
        sized = [model for model in models if cuda or model != "tiny"]  # libraries take more than tiny does
        yield "memory", memory(sized, cuda=cuda, overrides=arguments.overrides)


def _methods(model: str, dataset: str, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    """The released loop everywhere; the libraries once where a cell takes long, and pyreft on what it knows."""
    if chosen:
        return chosen
    if _slow(model, dataset):
        return ("steering",)
    return tuple(RIVALS) if "llama" in model or model == "tiny" else ("steering", "lora")


def _slow(model: str, dataset: str) -> bool:
    return model == SLOW and dataset != "winogrande"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=(*BENCHES, *ON_REQUEST), default=BENCHES)
    parser.add_argument("--models", nargs="+", help="of conf/model (the hub's with random weights), or llama-100m")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--long", default=LONG_ANSWERS, help="the data set that is evaluated beside these, or none")
    parser.add_argument("--methods", nargs="+", choices=tuple(RIVALS))
    parser.add_argument("--repeats", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--rows", type=int, help="to train on; by default by model")
    parser.add_argument("--scored", type=int, help="to score where evaluation is timed alone; by default by model")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--data", type=Path, help="a folder with real rows; procedural rows without it")
    parser.add_argument("--steerling", type=Path, help="a checkout of the released code, whose steerer then runs")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--overrides", nargs="*", default=(), help="of the configuration, for every case")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # a child process that measures its memory
    return parser


if __name__ == "__main__":
    main()
