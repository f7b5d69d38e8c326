"""The figures of a study: every run of every combination, and the contrasts with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actshift.report import names
from actshift.report.panels import style
from actshift.report.study.design import Study
from actshift.report.study.effects import ALL, Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE, COLUMN, HEAD = 0.21, 2.4, 0.8
"""Inches of a row, of a panel, and of what stands above and below."""
LETTER = 0.072
"""Inches of a letter of the rows' names."""
SHOWN, OPEN = "#0072B2", "0.45"


def combinations(study: Study) -> Figure | None:
    """Accuracy of every run (dots) and the mean of every row of the table (bars), a panel a data set."""
    rows = [name for name in study.levels if any((dataset, name) in study.answers for dataset in study.datasets)]
    if not rows:
        return None
    figure, axes = _panels([label(name) for name in rows], len(study.datasets))
    with style():
        for ax, dataset in zip(axes, study.datasets, strict=True):
            for place, name in enumerate(rows):
                bits = study.answers.get((dataset, name))
                if bits is None:
                    ax.text(50, place, "not finished", ha="center", va="center", fontsize=7, color="0.5")
                    continue
                values = [100 * float(each.mean()) for each in bits]
                ax.barh(place, sum(values) / len(values), height=0.7, color="0.85", zorder=1)
                ax.plot(values, [place] * len(values), "o", markersize=3, color=SHOWN, alpha=0.7, zorder=2)
            ax.set(xlim=(-3, 103), xlabel="test accuracy (%)", title=names.dataset(dataset))
    return figure


def contrasts(study: Study, effects: list[Effect]) -> Figure | None:
    """The contrasts and their 95% intervals, a panel a data set; in colour where one survives its adjusted test."""
    rows = list(dict.fromkeys(effect.contrast.name for effect in effects))
    if not rows:
        return None
    panels = [*study.datasets, *([ALL] if any(effect.dataset == ALL for effect in effects) else [])]
    figure, axes = _panels(rows, len(panels), sharex=True)
    with style():
        for ax, dataset in zip(axes, panels, strict=True):
            ax.axvline(0, color="0.3", linewidth=0.8, zorder=1)
            for effect in effects:
                if effect.dataset == dataset:
                    place, color = rows.index(effect.contrast.name), SHOWN if effect.shown else OPEN
                    ends = [effect.interval.low, effect.interval.high]
                    ax.plot(ends, [place] * 2, color=color, marker="", zorder=2)
                    ax.plot([effect.difference], [place], "o", color=color, zorder=3)
            title = "mean of the data sets" if dataset == ALL else names.dataset(dataset)
            ax.set(xlabel="difference (points)", title=title)
    return figure


def label(name: str) -> str:
    """A row of the table as figures show it: its levels, or the name of the method."""
    shown = names.method(name)
    return shown if shown != name else name.replace("-", "  ")


def _panels(rows: list[str], columns: int, *, sharex: bool = False) -> tuple[Figure, list[Any]]:
    """A row of panels with a line for each of `rows`, the first at the top, and the lines' names on the left."""
    from matplotlib.figure import Figure

    with style():
        left = LETTER * max(map(len, rows)) + 0.15
        width, height = left + COLUMN * columns + 0.2, HEAD + LINE * len(rows)
        figure = Figure(figsize=(width, height))
        axes = list(figure.subplots(1, columns, squeeze=False, sharey=True, sharex=sharex)[0])
        edges = {"left": left / width, "right": 1 - 0.2 / width, "bottom": 0.5 / height, "top": 1 - 0.3 / height}
        figure.subplots_adjust(**edges, wspace=0.12)
        axes[0].set_yticks(range(len(rows)), rows, fontsize=8)
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        for ax in axes:
            ax.tick_params(axis="y", length=0)
    return figure, axes
