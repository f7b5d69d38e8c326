"""The figure of what adapters cost when they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.report import names
from actshift.report.panels import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"token": "a generated token", "prompt": "reading a prompt"}
LINE = 0.27
"""Height of a method's line, in inches."""


def latency_ratios(frame: pd.DataFrame) -> Figure:
    """Time in times of the base model's, a panel for each part of answering and size of batch, a line for each method.

    A full mark is the adapter on the model, an empty one the adapter folded into its weights; bars are quartiles.
    """
    from matplotlib.figure import Figure

    shown = frame[frame["method"].ne("base")]
    methods, batches = list(dict.fromkeys(shown["method"])), list(dict.fromkeys(shown["batch"]))
    with style():
        size = (6.8, (LINE * len(methods) + 0.75) * len(batches) + 0.35)
        figure = Figure(figsize=size, layout="constrained")
        grid: Any = figure.subplots(len(batches), len(PARTS), sharey=True, sharex="col", squeeze=False)
        for row, batch in zip(grid, batches, strict=True):
            for ax, (part, title) in zip(row, PARTS.items(), strict=True):
                _panel(ax, shown[shown["batch"].eq(batch)], part, methods)
                ax.set(title=f"{title}, {batch} row{'' if batch == 1 else 's'}")
        for ax in grid[-1]:
            ax.set_xlabel("time, base model = 1")
        grid[0][0].invert_yaxis()
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def _panel(ax: Any, rows: pd.DataFrame, part: str, methods: list[str]) -> None:
    ax.axvline(1.0, color="0.4", linewidth=1.0, zorder=1)
    looks = {False: ("C0", "C0", -0.14, "adapter on the model"), True: ("C1", "white", 0.14, "folded into its weights")}
    for folded, (color, face, offset, label) in looks.items():
        group = rows[rows["folded"].eq(folded)]
        middle = group[f"{part}_ratio"]
        places = [methods.index(method) + offset for method in group["method"]]
        around = [(middle - group[f"{part}_low"]).clip(lower=0), (group[f"{part}_high"] - middle).clip(lower=0)]
        marks = {"marker": "s" if folded else "o", "markersize": 5, "markerfacecolor": face, "markeredgecolor": color}
        ax.errorbar(middle, places, xerr=around, fmt="none", ecolor=color, elinewidth=1.2, zorder=2)
        ax.plot(middle, places, linestyle="none", zorder=3, label=label, **marks)
    ax.set_yticks(range(len(methods)), [names.method(method) for method in methods])
