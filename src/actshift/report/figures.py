"""Figures, each a function of a frame; nothing here trains or reads a run's folder.

Accuracies are percent. A figure that has nothing to show is None.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.files import write_file
from actshift.report import names
from actshift.report.panels import Curve, small_multiples, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from actshift.planning.selection import Selection


def accuracy_by_parameters(cells: pd.DataFrame) -> Figure | None:
    """Mean accuracy over data sets against the share of parameters that train, and the methods that no other beats.

    Bars are one standard deviation over seeds of that mean, the data sets' deviations being independent.

    A method is on the front of its model if none has at most as many parameters and at least as high an average. Only
    methods whose data sets are all finished are shown.
    """
    points: dict[str, list[tuple[float, float, str]]] = {}
    deviations: dict[tuple[str, str], float] = {}
    for (model, method), group in _groups(cells, ["model", "method"]):
        if group["status"].eq("done").all():
            point = float(group["params_pct"].max()), float(group["mean"].mean()), names.method(method)
            points.setdefault(names.model(model), []).append(point)
            of_data_sets = group["std"].fillna(0.0)
            deviations[names.model(model), point[2]] = math.sqrt((of_data_sets**2).sum()) / len(group)
    if not points:
        return None
    curves = []
    for model, group in points.items():
        for share, mean, method in group:
            deviation = deviations[model, method]
            curves.append(Curve("", model, method, [share], [mean], bars=([mean - deviation], [mean + deviation])))
        shares, means = zip(*front(group), strict=True)
        curves.append(Curve("", model, "", shares, means))
    label = "accuracy, mean over data sets (%)"
    return small_multiples(
        curves,
        x_label="parameters that train (%)",
        y_label=label,
        width=3.4,
        log=True,
        grey="no smaller method is better",
    )


def front(points: Iterable[tuple[Any, ...]]) -> Iterator[tuple[float, float]]:
    """The points (cost, score, ...) that no other has at most the cost and at least the score of, by rising cost."""
    best = -math.inf
    for cost, score, *_ in sorted(points, key=lambda point: (point[0], -point[1])):
        if score > best:
            best = score
            yield cost, score


def learning_rates(selection: Selection) -> Figure | None:
    """Validation accuracy against the learning rate, a panel a data set and model, a line a method (and variant).

    The chosen rates have a ring.
    """
    curves = []
    for choice in selection.choices:
        for variant in dict.fromkeys(rate.variant for rate in choice.rates):
            group = [
                (rate.lr, rate.accuracy)
                for rate in choice.rates
                if rate.variant == variant and rate.accuracy is not None
            ]
            curves.append(
                Curve(
                    names.model(choice.cell.model),
                    names.dataset(choice.cell.dataset),
                    f"{names.method(choice.cell.method)} {variant}".strip(),
                    [lr for lr, _ in group],
                    [accuracy for _, accuracy in group],
                    ringed=[
                        index for index, (lr, _) in enumerate(group) if (lr, variant) == (choice.lr, choice.variant)
                    ],
                )
            )
    if not curves:
        return None
    return small_multiples(curves, x_label="learning rate", y_label="validation accuracy (%)", width=2.5, log=True)


def loss_curves(curves: pd.DataFrame) -> Figure | None:
    """Training loss by step from `frame.loss_curves`: a panel a data set and model, a line a method.

    The line is the mean over seeds, the band reaches from the lowest to the highest.
    """
    if curves.empty:
        return None
    by_step = _groups(curves, ["model", "dataset", "method", "step"])["loss"].agg(["mean", "min", "max"])
    points: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    for (model, dataset, method, step), mean, low, high in by_step.itertuples():
        points.setdefault((model, dataset, method), []).append((step, mean, low, high))
    lines = []
    for (model, dataset, method), group in points.items():
        steps, means, lows, highs = zip(*sorted(group), strict=True)
        panel = names.model(model), names.dataset(dataset)
        lines.append(Curve(*panel, names.method(method), steps, means, band=(lows, highs)))
    return small_multiples(lines, x_label="step", y_label="loss (nats a token)", width=2.5, markers=False)


def gap_to_paper(cells: pd.DataFrame) -> Figure | None:
    """Our mean less the paper's figure in percent points, a panel a model: methods by rows, data sets by columns."""
    known = cells[cells["gap"].notna()]
    if known.empty:
        return None
    models = list(dict.fromkeys(known["model"]))
    limit = max(1.0, float(known["gap"].abs().max()))
    with _axes(1, len(models), width=4.0, left=1.2, bottom=0.9) as (figure, axes):
        for ax, model in zip(axes, models, strict=True):
            group = known[known["model"].eq(model)]
            wide = group.pivot(index="method", columns="dataset", values="gap")
            wide = wide.loc[group["method"].unique(), group["dataset"].unique()]  # in the order of the table
            ax.imshow(wide.to_numpy(), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
            ax.set_xticks(range(len(wide.columns)), [names.dataset(str(name)) for name in wide.columns], rotation=45)
            ax.set_yticks(range(len(wide.index)), [names.method(str(name)) for name in wide.index])
            ax.grid(False)
            ax.set_title(names.model(model), y=1.0)  # said: to find it takes as long as the rest
            for y, method in enumerate(wide.index):
                for x, dataset in enumerate(wide.columns):
                    value = float(wide.loc[method, dataset])
                    if not math.isnan(value):
                        color = "white" if abs(value) > 0.6 * limit else "black"
                        ax.text(x, y, f"{value:+.1f}", ha="center", va="center", fontsize=8, color=color)
    return figure


RANKS = {
    "post_block_r1": ("linear", 1),
    "post_block": ("linear", 8),
    "post_block_r16": ("linear", 16),
    "adapter_r64": ("linear", 64),
    "post_block_nonlinear_r1": ("nonlinear", 1),
    "post_block_nonlinear": ("nonlinear", 8),
    "post_block_nonlinear_r16": ("nonlinear", 16),
    "post_block_nonlinear_r64": ("nonlinear", 64),
}
"""The methods of Figure 4: which line a method is on, and its rank."""


def accuracy_by_rank(cells: pd.DataFrame) -> Figure | None:
    """Figure 4: accuracy by rank, linear and nonlinear, a panel a model; bars are standard deviations over seeds."""
    known = cells[cells["method"].isin(list(RANKS)) & cells["mean"].notna()]
    ranks = {RANKS[method][1] for method in known["method"]}
    if len(ranks) < 2:
        return None
    models = list(dict.fromkeys(known["model"]))
    with _axes(1, len(models), width=2.6) as (figure, axes):
        for ax, model in zip(axes, models, strict=True):
            for line in ("linear", "nonlinear"):
                group = known[known["model"].eq(model) & known["method"].map(lambda name: RANKS[name][0]).eq(line)]
                group = group.assign(rank=group["method"].map(lambda name: RANKS[name][1])).sort_values("rank")
                if not group.empty:
                    ax.errorbar(group["rank"], group["mean"], yerr=group["std"].fillna(0), label=line, capsize=2)
            ax.set(xscale="log", xlabel="rank", title=names.model(model))
            ax.set_xticks(sorted(ranks), [str(rank) for rank in sorted(ranks)])
        axes[0].set_ylabel("accuracy (%)")
        axes[-1].legend(loc="best")
    return figure


def all_figures(cells: pd.DataFrame, selection: Selection | None, curves: pd.DataFrame) -> dict[str, Figure]:
    """Every figure that a sweep has something for, by name."""
    from functools import partial

    makers: dict[str, Callable[[], Figure | None]] = {
        "accuracy_by_parameters": partial(accuracy_by_parameters, cells),
        "accuracy_by_rank": partial(accuracy_by_rank, cells),
        "gap_to_paper": partial(gap_to_paper, cells),
        "loss_curves": partial(loss_curves, curves),
    }
    if selection is not None:
        makers["learning_rates"] = partial(learning_rates, selection)
    made = {name: maker() for name, maker in makers.items()}
    return {name: figure for name, figure in made.items() if figure is not None}


def svg(figure: Figure) -> str:
    """A figure as SVG text; the same figure is the same text."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def write(figures: dict[str, Figure], folder: Path, *, sweep: str) -> list[Path]:
    """Write <sweep>_<name>.svg and .png of every figure; returns their paths."""
    paths = []
    for name, figure in figures.items():
        vector, raster = folder / f"{sweep}_{name}.svg", folder / f"{sweep}_{name}.png"
        write_file(vector, svg(figure))
        with style():
            pixels = io.BytesIO()
            figure.savefig(pixels, format="png", metadata={"Software": None})
        write_file(raster, pixels.getvalue())
        paths += [vector, raster]
    return paths


MARGINS = {"left": 0.65, "right": 0.15, "bottom": 0.5, "top": 0.35}
"""Around each panel, in inches. Fixed: to have them computed takes as long as all drawing."""


@contextmanager
def _axes(
    rows: int, columns: int, *, width: float, height: float = 2.6, **margins: float
) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure of equal panels in our style, without any window system; sizes in inches, margins included."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    edge = MARGINS | margins
    wide, high = max(width, 4.5 / columns), height
    with style():
        figure = Figure(figsize=(wide * columns, high * rows))
        inner_width, inner_height = wide - edge["left"] - edge["right"], high - edge["bottom"] - edge["top"]
        panels = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(
            left=edge["left"] / (wide * columns),
            right=1 - edge["right"] / (wide * columns),
            bottom=edge["bottom"] / (high * rows),
            top=1 - edge["top"] / (high * rows),
            wspace=(edge["left"] + edge["right"]) / inner_width,
            hspace=(edge["bottom"] + edge["top"]) / inner_height,
        )
        yield figure, list(panels.flat)
        for ax in panels.flat:  # after a logarithmic scale has set its own: dozens of marks that nobody reads
            ax.xaxis.set_minor_locator(NullLocator())


def _groups(cells: pd.DataFrame, keys: list[str]) -> Any:
    return cells.groupby(keys, sort=False)
