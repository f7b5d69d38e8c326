"""Peak memory of training steps and of evaluation, measured a case a process, beside what the project estimates.

On a CPU a Llama of 110M parameters, on CUDA the architectures of the paper, random weights in either case: bytes do not
depend on them. Rows are of equal length and of random tokens, so that a micro-batch is as large as it can be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from actshift.config.composition import compose
from actshift.data.examples import Example
from actshift.estimates.memory import estimate_peak
from actshift.evaluation.answers import predict
from actshift.evaluation.limits import batch_tokens
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import Base, load_base
from actshift.runtime.session import pick_device
from actshift.schema.config import Config
from actshift.tasks import get_task
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train
from bench.case import model_overrides
from bench.measure import PeakMemory, digits, spread

METHODS = ("post_block", "lora_r8", "sft")
PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = {"float32": ("adamw", "adamw_8bit"), "bfloat16": ("adamw", "adamw_8bit", "adamw_bf16_stochastic")}
CPU_SIZES = (
    *(f"dataset.tokens.{size}" for size in ("prompt=128", "longest=128", "answer=8")),
    *("hardware.micro_batch=4", "hardware.evaluation_tokens=4096"),
)
SIZES = {"tokens": "longest", "answer": "answer"}
STEPS = 2
"""The first makes the optimizer's states, the second has them while it computes. A step has two micro-batches, so that
the gradients of the first are there while the second keeps its activations."""


def cases(models: Sequence[str], *, cuda: bool) -> Iterator[tuple[str, ...]]:
    """The overrides of every case: on CUDA in bfloat16 alone, other optimizers where they are needed."""
    for model in models:
        where = ("hardware=a100-80gb", "dataset=boolq") if cuda else ("hardware=cpu", *CPU_SIZES)
        for precision in PRECISIONS[1:] if cuda else PRECISIONS:
            for method in METHODS:
                for optimizer in OPTIMIZERS[precision] if method == "sft" else OPTIMIZERS[precision][:1]:
                    for checkpointing in ("false", "true") if optimizer == "adamw" else ("true",):
                        yield (
                            *model_overrides(model),
                            *where,
                            f"method={method}",
                            f"training.precision={precision}",
                            f"training.optimizer={optimizer}",
                            f"hardware.gradient_checkpointing={checkpointing}",
                        )


def memory(models: Sequence[str], *, cuda: bool, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Measured and estimated bytes above the loaded model, and their ratio, of every case that could be measured."""
    rows = []
    for case in cases(models, cuda=cuda):
        found = _measured([*case, *overrides])
        rows.append({"overrides": [*case, *overrides], **found})
        print(f"  {' '.join(each.partition('=')[2] for each in case[-4:])}: {found}", flush=True)
    ratios = [row["training_ratio"] for row in rows if "training_ratio" in row]
    return {
        "cases": rows,
        "measured": len(ratios),
        "ratio": spread(ratios) if ratios else None,
        "lowest": min(ratios, default=None),
        "highest": max(ratios, default=None),
    }


def _measured(overrides: Sequence[str]) -> dict[str, Any]:
    """One case in a process of its own, where every tensor is mapped apart, so that freed ones are given back."""
    command = [sys.executable, "-m", "bench.memory", *overrides]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """The case of some overrides, measured in this process."""
    config = compose(overrides)
    torch.set_num_threads(config.hardware.threads)
    device = pick_device(config.hardware)
    with device:
        base = load_base(config.model, precision=config.training.precision, device=device)
    expected = estimate_peak(config)
    above = round(expected.gradients + expected.states + expected.step)  # what a method adds is there before
    training = _train(base, config)
    found = {
        "model": config.model.name,
        "weights_bytes": expected.weights,
        "training_bytes": training,
        "training_estimate": above,
        "training_ratio": digits(above / training),
    }
    if config.method.kind == "steering" and not config.hardware.gradient_checkpointing:
        evaluation = _evaluate(base, config)
        found |= {
            "evaluation_bytes": evaluation,
            "evaluation_estimate": round(expected.batch),
            "evaluation_ratio": digits(expected.batch / evaluation),
        }
    return found


def _train(base: Base, config: Config) -> int:
    """Bytes above the model at the peak of a few steps; on a CPU what SFT keeps aside there is no part of them."""
    adaptation = attach(base, config=config.method, seeds=[0])
    # Libraries keep buffers of their own from the first step on.
    _step(base, adaptation, config, tokens=8, answer=2, most=1)
    peak = PeakMemory(base.device)
    _step(base, adaptation, config, **{name: getattr(config.dataset.tokens, key) for name, key in SIZES.items()})
    above = peak.bytes()["above_model_bytes"]
    adaptation.detach()
    return above


def _step(
    base: Base, adaptation: Adaptation, config: Config, *, tokens: int, answer: int, most: int | None = None
) -> None:
    size = config.hardware.micro_batch
    with tempfile.TemporaryDirectory() as folder:
        train(
            base,
            adaptation,
            rows=[_row(base, tokens, answer=answer) for _ in range(2 * STEPS * size)],
            validation_rows=(),
            training=replace(config.training, batch_size=2 * size, epochs=1, max_steps=most),
            lrs=[1e-4],
            seeds=[0],
            micro_batch=size,
            checkpoints=Checkpoints(Path(folder), every=0),
            progress=lambda *_: None,
            gradient_checkpointing=config.hardware.gradient_checkpointing,
        )


def _evaluate(base: Base, config: Config) -> int:
    """Bytes above the model at the peak of one full evaluation batch."""
    adaptation = attach(base, config=config.method, seeds=[0])
    longest, batch = config.dataset.tokens.longest, batch_tokens(config)
    peak = PeakMemory(base.device)
    predict(
        base,
        adaptation,
        task=get_task(config.dataset.task),
        rows=[_row(base, longest, answer=0) for _ in range(batch // longest)],
        max_new_tokens=2,
        batch_tokens=batch,
        progress=lambda *_: None,
    )
    above = peak.bytes()["above_model_bytes"]
    adaptation.detach()
    return above


def _row(base: Base, tokens: int, *, answer: int) -> Example:
    ids = torch.randint(5, base.model.config.vocab_size, (tokens,)).tolist()
    return Example(ids=ids, prompt_length=tokens - answer, label="")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
