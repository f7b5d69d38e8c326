"""Cost as work grows: seconds of training against rows, tokens of a row, and layers, each with a line through them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actshift.data.examples import Example
from actshift.paths import PACKAGE
from bench.case import Case, build
from bench.contestants import Actshift
from bench.measure import alternate, digits, spread, timed
from bench.parts import Options

MODEL, DATASET = "llama-small", "winogrande"
GROWTH = {"rows": (32, 64, 96, 128), "tokens": (32, 64, 96, 128, 160), "layers": (2, 4, 6, 8)}
USUAL = {"rows": 32, "tokens": 64, "layers": 4}
ANSWER = 4
"""Answer tokens of each made-up row."""


def scaling(options: Options) -> dict[str, Any]:
    """For each kind of work: seconds by size, the line through them, and how far they lie off it at most."""
    torch.manual_seed(0)
    return {
        "model": MODEL,
        "usual": USUAL,
        **{kind: _grown(options, kind, sizes) for kind, sizes in GROWTH.items()},
    }


def _grown(options: Options, kind: str, sizes: Sequence[int]) -> dict[str, Any]:
    cases = {size: _case(options, **{**USUAL, kind: size}) for size in sizes}
    for case in cases.values():
        _seconds(case)
    works: dict[str, Callable[[], float]] = {
        str(size): lambda case=case: _seconds(case)  # type: ignore[misc]
        for size, case in cases.items()
    }
    laps = alternate(works, repeats=max(3, options.repeats))
    medians = np.array([np.median(laps[str(size)]) for size in sizes])
    slope, intercept = np.polyfit(sizes, medians, 1)
    line = slope * np.array(sizes) + intercept
    return {
        "sizes": list(sizes),
        "seconds": [spread(laps[str(size)]) for size in sizes],
        "slope": digits(float(slope)),
        "intercept": digits(float(intercept)),
        "off_the_line": digits(float(np.max(np.abs(medians / line - 1)))),
    }


def _case(options: Options, *, rows: int, tokens: int, layers: int) -> Case:
    """Made-up rows of one length."""
    overrides = (*options.overrides, f"model.shape.layers={layers}")
    case = build(MODEL, DATASET, "steering", rows=16, scored=1, overrides=overrides)
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(5, 1000, (rows, tokens), generator=generator, device="cpu").tolist()
    return dataclasses.replace(case, rows=[Example(ids, tokens - ANSWER, "") for ids in ids_BT])


def _seconds(case: Case) -> float:
    ours = Actshift(case)
    seconds, _ = timed(ours.train, device=case.device)
    ours.close()
    return seconds


def plot(figures: dict[str, Any], path: Path) -> None:
    """Three panels: measured seconds with quartiles, and the line through the medians."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.style.context(PACKAGE / "report" / "style.mplstyle"):
        figure, axes = pyplot.subplots(1, len(GROWTH), figsize=(8.4, 2.6))
        for axis, kind in zip(axes, GROWTH, strict=True):
            found = figures[kind]
            sizes, medians = found["sizes"], [each["median"] for each in found["seconds"]]
            low = [each["median"] - each["q1"] for each in found["seconds"]]
            high = [each["q3"] - each["median"] for each in found["seconds"]]
            axis.errorbar(sizes, medians, yerr=[low, high], linestyle="none", capsize=2, label="measured")
            axis.plot(sizes, [found["slope"] * size + found["intercept"] for size in sizes], marker="", label="line")
            axis.set(xlabel={"tokens": "tokens a row"}.get(kind, kind), ylim=(0, None))
            axis.set_title(f"off the line by {100 * found['off_the_line']:.0f}% at most")
        axes[0].set_ylabel("seconds of training")
        axes[0].legend()
        figure.savefig(path)
        pyplot.close(figure)
