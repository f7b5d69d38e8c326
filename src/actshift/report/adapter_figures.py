"""Figures of trained adapters (Figures 2, 5 and 6 of the paper), each a function of an analysis' frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.report import names
from actshift.report.figures import front
from actshift.report.panels import Curve, small_multiples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGAINST = {"mlp": "LoRA's change of the MLP's output", "down_proj": "LoRA's change by down_proj alone"}


def mlp_shares(frame: pd.DataFrame) -> Figure:
    """Figure 2: the MLP's share of the block output and of what training changes in it, by layer; seeds as a band."""
    shown = frame[frame["tokens"].eq("all")]
    base = shown.drop_duplicates("layer")
    curves = [_curve("", "", "block output", base, "mlp_share")]
    for method, group in shown[shown["method"].fillna("").ne("")].groupby("method", sort=False):
        curves.append(_curve("", "", f"what {names.method(str(method))} changes", group, "change_share"))
    return small_multiples(curves, x_label="layer", y_label="the MLP's share (mean)", width=4.5)


def cosines_by_layer(frame: pd.DataFrame) -> Figure:
    """Figure 5 by layer: the mean absolute cosine of adapter shift and LoRA shift; the range over seeds as a band."""
    shown = frame[frame["tokens"].eq("all")]
    curves = [
        _curve("", AGAINST[str(against)], names.method(str(method)), group, "mean_abs")
        for (against, method), group in shown.groupby(["against", "method"], sort=False)
    ]
    return small_multiples(curves, x_label="layer", y_label="mean |cosine|", width=3.6)


def cosine_histograms(pooled: pd.DataFrame) -> Figure:
    """Figure 5: the distribution of the cosines over all tokens, layers and seeds."""
    curves = []
    for (against, method), group in pooled.groupby(["against", "method"], sort=False):
        middle = ((group["low"] + group["high"]) / 2).tolist()
        curves.append(
            Curve("", AGAINST[str(against)], names.method(str(method)), middle, (100 * group["share"]).tolist())
        )
    return small_multiples(curves, x_label="cosine", y_label="tokens (%)", width=3.6, markers=False)


def norms_by_layer(frame: pd.DataFrame) -> Figure:
    """Figure 6: spectral norms by layer, means over seeds with their range as a band."""
    curves = [
        _curve("", title, names.method(str(method)), group, column)
        for column, title in (("norm", "W2"), ("product", "W2 W1"))
        for method, group in frame.groupby("method", sort=False)
    ]
    return small_multiples(curves, x_label="layer", y_label="spectral norm", width=3.6)


def retention_fronts(frame: pd.DataFrame) -> Figure:
    """Accuracy against what it costs: nats a token on the text, and numbers that train (log 10), means over seeds.

    The grey line goes through the methods that no other beats in both.
    """
    means = (
        frame[frame["method"].ne("base")].groupby("method", sort=False)[["trained", "nll_change", "accuracy"]].mean()
    )
    costs = {
        "loss on the text (nats a token)": means["nll_change"],
        "numbers that train (log 10)": means["trained"].map(math.log10),
    }
    curves = []
    for title, cost in costs.items():
        points = list(zip(cost.tolist(), means["accuracy"].tolist(), strict=True))
        curves += [
            Curve("", title, names.method(str(method)), [x], [y])
            for method, (x, y) in zip(means.index, points, strict=True)
        ]
        xs, ys = zip(*front(points), strict=True)
        curves.append(Curve("", title, "", xs, ys))
    return small_multiples(curves, x_label="cost", y_label="accuracy (%)", width=3.6, grey="no other is better in both")


def _curve(row: str, column: str, label: str, group: pd.DataFrame, value: str) -> Curve:
    """The mean over seeds by layer, with the smallest and the largest as a band where there are several."""
    by_layer: Any = group.groupby("layer")[value]
    low, high, mean = (getattr(by_layer, how)() for how in ("min", "max", "mean"))
    band = (low.tolist(), high.tolist()) if by_layer.size().max() > 1 else None
    return Curve(row, column, label, mean.index.tolist(), mean.tolist(), band=band)
