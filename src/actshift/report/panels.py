"""Small multiples: equal panels of curves, drawn straight onto a figure.

A sweep has a panel for every model and data set, and matplotlib's own axes take some 50 ms each to be made and drawn.
Here a figure is laid out in inches, and what looks alike in all panels is one line with gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("style.mplstyle")
HEIGHT = 2.6
LEFT, RIGHT, BOTTOM, TOP = 0.65, 0.15, 0.5, 0.35
"""A panel's height and the margins in it, in inches."""
TICK = 0.05
LEGEND_LINE, LEGEND_COLUMN = 0.2, 1.5
CHARACTER, RAISED = 0.08, 0.05
"""Width of a character of a tick's text, and of one in an exponent, in inches."""
LARGEST_MARK, SMALLEST_MARK = 8.5, 4.0
"""Sizes of the first and the last label's marks, in points: marks at one place are all seen, one within another."""
SUPERSCRIPTS = dict(zip("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True))

Inches = NDArray[np.float64]
Points = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Curve:
    """One line of the panel in `row` and `column`; a curve without a label is grey, unmarked and not in the legend.

    `band` holds the lower and upper bounds of y between which is shaded, `bars` those of a bar through each point,
    `ringed` the indices of the points that have a ring.
    """

    row: str
    column: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    band: Points | None = None
    bars: Points | None = None
    ringed: Sequence[int] = ()


@dataclass(frozen=True)
class Axis:
    """What one side of a panel shows (`low` to `high`, powers of ten where `log`), and where on the figure.

    `plain`: a power of ten is written as a number (0.1), as a reader expects of percents, and not as a power. `whole`:
    ticks are whole numbers, as those of layers are.
    """

    start: float
    length: float
    low: float
    high: float
    log: bool
    plain: bool = False
    whole: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, start: float, length: float, log: bool = False, **ticks: bool) -> Axis:
        """The axis that shows all values with a margin; around a single one, enough to read it."""
        shown = [math.log10(value) if log else value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(shown), max(shown)
        margin = 0.05 * (high - low) or (1.0 if log else 0.02 * abs(low) or 1.0)
        return cls(start, length, low - margin, high + margin, log, **ticks)

    def inches(self, values: Sequence[float]) -> Inches:
        shown = np.log10(values) if self.log else np.asarray(values, dtype=float)
        return self.start + self.length * (shown - self.low) / (self.high - self.low)

    def ticks(self) -> dict[str, float]:
        """Round values, by their texts; powers of ten where a logarithmic axis has two or more."""
        from matplotlib.ticker import MaxNLocator

        if not self.log:
            found = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10], integer=self.whole).tick_values(self.low, self.high)
            return {f"{value:g}": value for value in found if self.low <= value <= self.high}
        powers = range(math.ceil(self.low), math.floor(self.high) + 1)
        if len(powers) > 1:
            texts = {power: f"{10.0**power:g}" if self.plain else f"10{_raised(power)}" for power in powers}
            return {texts[power]: 10.0**power for power in powers}
        near = [digit * 10.0**power for power in range(powers.start - 1, powers.stop + 1) for digit in (1, 2, 5)]
        return {f"{value:g}": value for value in near if self.low <= math.log10(value) <= self.high}


@dataclass(frozen=True)
class Panel:
    """One panel: its axes, and what is drawn between them."""

    title: str
    curves: list[Curve]
    x: Axis
    y: Axis

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top edge."""
        return self.x.start, self.y.start, self.x.start + self.x.length, self.y.start + self.y.length


def _raised(power: int) -> str:
    return "".join(SUPERSCRIPTS[letter] for letter in str(power))


def style() -> AbstractContextManager[None]:
    """Our style, while a figure is made and while it is written."""
    import matplotlib.style

    context: AbstractContextManager[None] = matplotlib.style.context(STYLE)
    return context


def small_multiples(
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    width: float,
    log: bool = False,
    markers: bool = True,
    grey: str = "",
) -> Figure:
    """A panel for each row and column of the curves, in their order, and one legend above them.

    All panels of a row have one y range, so that they can be compared. `width` is a panel's in inches, `log` a
    logarithmic x axis, `grey` what the legend calls the grey line.
    """
    from matplotlib.figure import Figure

    rows, columns, labels = (
        list(dict.fromkeys(getattr(curve, name) for curve in curves)) for name in ("row", "column", "label")
    )
    labels = [label for label in labels if label]
    wide, high = max(width, 4.5 / len(columns)), HEIGHT * len(rows)
    across = max(1, min(len(labels), int(wide * len(columns) / LEGEND_COLUMN)))
    entries = len(labels) + bool(grey)
    y_values = {row: [value for curve in curves if curve.row == row for value in _heights(curve)] for row in rows}
    panels = []
    for row, column in dict.fromkeys((curve.row, curve.column) for curve in curves):
        in_cell = [curve for curve in curves if (curve.row, curve.column) == (row, column)]
        corner = wide * columns.index(column) + LEFT, high - HEIGHT * (rows.index(row) + 1) + BOTTOM
        x = [value for curve in in_cell for value in curve.x]
        whole = all(isinstance(value, int) for value in x)
        x_axis = Axis.over(x, start=corner[0], length=wide - LEFT - RIGHT, log=log, plain="(%)" in x_label, whole=whole)
        y_axis = Axis.over(y_values[row], start=corner[1], length=HEIGHT - BOTTOM - TOP)
        panels.append(Panel(", ".join(filter(None, (row, column))), in_cell, x_axis, y_axis))
    with style():
        figure = Figure(figsize=(wide * len(columns), high + LEGEND_LINE * math.ceil(entries / across)))
        _frame(figure, panels)
        _name_axes(figure, panels, x_label=x_label, y_label=y_label)
        handles = [*_lines(figure, panels, labels, markers=markers), *_grey_lines(figure, panels, label=grey)]
        figure.legend(handles=handles, loc="upper center", ncols=across, borderaxespad=0.2)
    return figure


def _heights(curve: Curve) -> list[float]:
    """Every value of y that a curve, its band and its bars reach."""
    return [value for values in (curve.y, *(curve.band or ()), *(curve.bars or ())) for value in values]


def _frame(figure: Figure, panels: Sequence[Panel]) -> None:
    """Titles, grids, the two edges that have ticks, and the ticks' texts."""
    from matplotlib import rcParams

    grid: list[Points] = []
    edges: list[Points] = []
    for panel in panels:
        left, bottom, right, top = panel.corners
        _say(figure, (left + right) / 2, top + 0.08, panel.title, size=rcParams["axes.titlesize"], va="bottom")
        edges.append(((left, left, right), (top, bottom, bottom)))
        for text, x in _placed(panel.x):
            grid.append(((x, x), (bottom, top)))
            edges.append(((x, x), (bottom, bottom - TICK)))
            _say(figure, x, bottom - TICK - 0.04, text, size=rcParams["font.size"], va="top")
        for text, y in _placed(panel.y):
            grid.append(((left, right), (y, y)))
            edges.append(((left, left - TICK), (y, y)))
            _say(figure, left - TICK - 0.04, y, text, size=rcParams["font.size"], ha="right")
    _draw(figure, grid, color=rcParams["grid.color"], linewidth=rcParams["grid.linewidth"], zorder=0)
    _draw(figure, edges, color=rcParams["axes.edgecolor"], linewidth=rcParams["axes.linewidth"], zorder=1)


def _name_axes(figure: Figure, panels: Sequence[Panel], *, x_label: str, y_label: str) -> None:
    """What the axes show: below the last row, and left of the first column."""
    from matplotlib import rcParams

    size = rcParams["axes.labelsize"]
    for panel in panels:
        left, bottom, right, top = panel.corners
        if bottom == min(other.y.start for other in panels):
            _say(figure, (left + right) / 2, bottom - 0.34, x_label, size=size)
        if left == min(other.x.start for other in panels):
            _say(figure, left - 0.5, (bottom + top) / 2, y_label, size=size, rotation=90)


def _placed(axis: Axis) -> Iterator[tuple[str, float]]:
    """The ticks' texts and places, without those whose text would be printed over the one before."""
    found, end = axis.ticks(), -math.inf
    for text, place in zip(found, axis.inches(list(found.values())).tolist(), strict=True):
        half = sum(RAISED if letter in SUPERSCRIPTS.values() else CHARACTER for letter in text) / 2
        if place - half >= end:
            end = place + half
            yield text, place


def _lines(figure: Figure, panels: Sequence[Panel], labels: Sequence[str], *, markers: bool) -> list[Any]:
    """Every curve with its band and its rings; the lines for the legend. A label looks alike in all panels."""
    from matplotlib import rcParams

    handles = []
    sizes = np.linspace(LARGEST_MARK, SMALLEST_MARK, max(2, len(labels)))
    for label, size, look in zip(labels, sizes, cycle(rcParams["axes.prop_cycle"])):
        labelled = [(panel, curve) for panel in panels for curve in panel.curves if curve.label == label]
        for panel, curve in labelled:
            if curve.band is not None:
                _fill(figure, panel, curve, color=look["color"])
        drawn = [(panel.x.inches(curve.x), panel.y.inches(curve.y)) for panel, curve in labelled]
        marks = {**look, "markersize": size} if markers else {"color": look["color"]}
        bars = [part for panel, curve in labelled for part in _bars(panel, curve)]
        if bars:
            _draw(figure, bars, color=look["color"], linewidth=1.0, zorder=3)
        handles.append(_draw(figure, drawn, label=label, zorder=3, **marks))
        rings = [
            (x[list(curve.ringed)], y[list(curve.ringed)]) for (_, curve), (x, y) in zip(labelled, drawn, strict=True)
        ]
        if any(len(x) for x, _ in rings):
            ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": look["color"]}
            _draw(figure, rings, linestyle="none", zorder=4, **ring)
    return handles


def _grey_lines(figure: Figure, panels: Sequence[Panel], *, label: str) -> list[Any]:
    """The curves without a label, and what of them goes into the legend."""
    grey = [(panel, curve) for panel in panels for curve in panel.curves if not curve.label]
    parts = [(panel.x.inches(curve.x), panel.y.inches(curve.y)) for panel, curve in grey]
    line = _draw(figure, parts, color="0.5", zorder=2, label=label)
    return [line] if label and grey else []


def _bars(panel: Panel, curve: Curve) -> Iterator[tuple[Inches, Inches]]:
    """A vertical line through each point, from the lower to the upper bound."""
    if curve.bars is not None:
        for x, low, high in zip(panel.x.inches(curve.x), *map(panel.y.inches, curve.bars), strict=True):
            yield np.array([x, x]), np.array([low, high])


def _fill(figure: Figure, panel: Panel, curve: Curve, *, color: str) -> None:
    from matplotlib.patches import Polygon

    low, high = (panel.y.inches(bound) for bound in curve.band or ((), ()))
    x = panel.x.inches(curve.x)
    around = np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])])
    figure.add_artist(Polygon(around, color=color, alpha=0.2, lw=0, zorder=2, transform=figure.dpi_scale_trans))


def _draw(figure: Figure, parts: Sequence[tuple[Any, Any]], **look: Any) -> Any:
    """Parts as one line with gaps, in inches."""
    from matplotlib.lines import Line2D

    gap = [math.nan]
    x, y = (
        np.concatenate([value for part in parts for value in (part[axis], gap)] or [np.empty(0)]) for axis in (0, 1)
    )
    return figure.add_artist(Line2D(x, y, transform=figure.dpi_scale_trans, **look))


def _say(figure: Figure, x: float, y: float, text: str, *, size: float, **look: Any) -> None:
    placed: dict[str, Any] = {"ha": "center", "va": "center", "transform": figure.dpi_scale_trans} | look
    figure.text(x, y, text, fontsize=size, **placed)
