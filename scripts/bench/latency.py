"""What every method costs when it answers, a bench of `actshift.analysis.latency` at sizes that suit the device.

Where a model is large for a CPU, prompts are shorter and tokens fewer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from actshift.analysis.latency import (
    BASE,
    adapter_bytes,
    alternate,
    attached,
    folded,
    lap,
    plain,
    random_ids,
    why_not_folded,
)
from actshift.config.composition import compose
from actshift.models.loading import Base
from actshift.paths import PACKAGE
from actshift.schema.method import MethodConfig
from bench.case import load, model_overrides
from bench.measure import digits, ratios, spread
from bench.parts import Options

METHODS = (
    *("lora_r8", "post_block_vector", "post_block_r1", "post_block", "post_block_nonlinear", "adapter_r64"),
    *("lofit", "jola", "reft", "joint"),
)
BATCHES = (1, 32)


@dataclass(frozen=True)
class Size:
    """Tokens of a prompt, tokens generated after it, and how often a lap does both."""

    prompt: int
    new: int
    rounds: int


SIZES = {1: Size(64, 16, 5), 32: Size(64, 8, 3)}
LARGE_ON_CPU = {1: Size(64, 8, 2), 32: Size(16, 2, 1)}
"""For models of 100 million parameters and more, of which a CPU reads a few hundred tokens a second."""


def latency(options: Options, model: str, *, sizes: dict[int, Size] | None = None) -> dict[str, Any]:
    """Milliseconds a token and prompt tokens a second by contestant and batch, and their ratio to the base's."""
    config = compose([*model_overrides(model), f"hardware={_hardware()}", *options.overrides])
    base = load(config, texts=None)
    large = base.device.type == "cpu" and base.parameters > 5e7
    sizes = sizes or (LARGE_ON_CPU if large else SIZES)
    contestants: dict[str, Callable[[], Any]] = {BASE: partial(plain, base)}
    facts: dict[str, dict[str, Any]] = {BASE: {"adapter_bytes": 0}}
    for method in METHODS:
        chosen = compose([*model_overrides(model), f"method={method}", *options.overrides]).method
        facts[method] = _facts(base, chosen)
        contestants[method] = partial(attached, base, chosen)
        if facts[method]["folds"]:
            contestants[f"{method}, folded"] = partial(folded, base, chosen)
            facts[f"{method}, folded"] = {"adapter_bytes": facts[method]["adapter_bytes"]}
    found = {
        str(batch): _compared(base, contestants, batch=batch, size=size, repeats=options.repeats)
        for batch, size in sizes.items()
    }
    return {
        "model": model,
        "parameters": base.parameters,
        "precision": config.training.precision,
        "clock": "wall" if base.device.type == "cuda" else "process",
        "sizes": {str(batch): dataclasses.asdict(size) for batch, size in sizes.items()},
        "contestants": facts,
        "batches": found,
    }


def _hardware() -> str:
    return "a100-80gb" if torch.cuda.is_available() else "cpu"


def _compared(
    base: Base, contestants: dict[str, Callable[[], Any]], *, batch: int, size: Size, repeats: int
) -> dict[str, Any]:
    ids_BT = random_ids(base, batch, size.prompt)
    timed = {
        name: partial(lap, base, each, ids_BT, new=size.new, rounds=size.rounds) for name, each in contestants.items()
    }
    laps = alternate(timed, repeats=repeats)
    alone = laps[BASE]
    return {
        name: {
            "milliseconds_per_token": spread([1000 * each.token for each in found]),
            "prompt_tokens_per_second": spread([ids_BT.numel() / each.prompt for each in found]),
            "token_ratio": ratios([each.token for each in found], [each.token for each in alone]),
            "prompt_ratio": ratios([each.prompt for each in found], [each.prompt for each in alone]),
        }
        for name, found in laps.items()
    }


def _facts(base: Base, config: MethodConfig) -> dict[str, Any]:
    """Bytes of the saved adapter, whether it can be folded, and why not."""
    facts: dict[str, Any] = {"adapter_bytes": adapter_bytes(base, config)[1], "folds": True}
    why_not = why_not_folded(base, config)
    return facts if why_not is None else facts | {"folds": False, "why_not": why_not}


def shown(figures: dict[str, Any]) -> str:
    """The slowest and the fastest contestant beside the base, one token at a time, batch 1."""
    one = {name: found["token_ratio"]["median"] for name, found in figures["batches"]["1"].items() if name != BASE}
    order = sorted(one, key=lambda name: one[name])
    base = figures["batches"]["1"][BASE]["milliseconds_per_token"]["median"]
    return f"base {base} ms; " + ", ".join(f"{name} {digits(one[name])}x" for name in (order[0], order[-1]))


def plot(figures: dict[str, Any], path: Path) -> None:
    """A bar a contestant and batch: milliseconds a token in times of the base's, with quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.style.context(PACKAGE / "report" / "style.mplstyle"):
        batches = figures["batches"]
        names = list(next(iter(batches.values())))[1:]
        figure, axes = pyplot.subplots(1, len(batches), figsize=(8.4, 0.24 * len(names) + 1.0), sharey=True)
        for axis, (batch, found) in zip(axes, batches.items(), strict=True):
            middle = [found[name]["token_ratio"]["median"] for name in names]
            low = [max(0.0, found[name]["token_ratio"]["median"] - found[name]["token_ratio"]["q1"]) for name in names]
            high = [max(0.0, found[name]["token_ratio"]["q3"] - found[name]["token_ratio"]["median"]) for name in names]
            axis.barh(names, middle, xerr=[low, high], height=0.6)
            axis.axvline(1.0, color="black", linewidth=0.8)
            axis.set(title=f"{figures['model']}, batch {batch}", xlabel="time of a token, base = 1")
        axes[0].invert_yaxis()
        figure.savefig(path)
        pyplot.close(figure)
