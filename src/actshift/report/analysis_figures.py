"""Figures of analyses, each a function of a frame in the style of all figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.report import names as display
from actshift.report.panels import Curve, small_multiples, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SITES = {"post_block": "block output", "post_mlp": "MLP output", "pre_mlp": "MLP input", "attn_out": "attention output"}


def overlap_maps(maps: pd.DataFrame) -> Figure:
    """Figure 3: absolute inner products of the leading directions, a heat map a layer and, where there is a fine-tuned
    model, a second row of what it changes; one scale for all."""
    from matplotlib.figure import Figure

    kinds, layers = maps["compared"].unique(), maps["layer"].unique()
    with style():
        figure = Figure(figsize=(2.6 * len(layers) + 0.9, 2.7 * len(kinds) + 0.3), layout="constrained")
        grid = figure.subplots(len(kinds), len(layers), squeeze=False)
        for row, kind in zip(grid, kinds, strict=True):
            for ax, layer in zip(row, layers, strict=True):
                group = maps[maps["compared"].eq(kind) & maps["layer"].eq(layer)]
                values = group.drop(columns=["compared", "layer"]).to_numpy(dtype=float)
                image = ax.imshow(values, cmap="cividis", vmin=0, vmax=1)
                ax.set(title=f"layer {layer}, R of {RESIDUALS[str(kind)]}")
                ax.grid(False)
            row[0].set_ylabel("directions of R Y' (adapter)")
        for ax in grid[-1]:
            ax.set_xlabel("directions of R F' (down_proj)")
        figure.colorbar(image, ax=list(grid.flat), label="absolute inner product", shrink=0.8)
    return figure


def overlap_by_layer(frame: pd.DataFrame) -> Figure:
    """Overlap of the leading subspaces by layer, beside its value for random ones: of the products in the first step
    and, where runs were stopped early, of the matrices that they trained."""
    curves = []
    key: Any
    for trained, group in frame.groupby(frame["compared"].eq("trained"), sort=False):
        title = "trained W2 and B of down_proj" if trained else "R Y' and R F', first step"
        keys = ["compared", "method", "steps"]
        for key, part in group.groupby(keys, sort=False, dropna=False):
            by_layer = part.groupby("layer")["overlap"].mean()
            curves.append(Curve("", title, _label(*key), by_layer.index.tolist(), by_layer.tolist()))
        random = group.groupby("layer")["random"].first()
        curves.append(Curve("", title, "", random.index.tolist(), random.tolist()))
    width = 3.6 if len({curve.column for curve in curves}) > 1 else 4.5
    return small_multiples(
        curves, x_label="layer", y_label="overlap of subspaces", width=width, grey="random subspaces"
    )


RESIDUALS = {"gradient": "the gradient", "oracle": "the tuned model"}


def _label(compared: str, method: str, steps: float) -> str:
    """What the legend calls a line of `overlap_by_layer`."""
    if compared == "gradient":
        return "R: minus the gradient"
    if compared == "oracle":
        return f"R: what {display.method(method)} changes"
    return f"after {steps:.0f} step{'' if steps == 1 else 's'}" if steps == steps else "trained to the end"


def oracle_sites(frame: pd.DataFrame) -> Figure:
    """The share of the divergence that is left when one site of one layer has the tuned model's values, by layer."""
    return _by_layer(frame, "kl_left", "site", y_label="KL divergence left (share)", names=SITES)


def oracle_maps(frame: pd.DataFrame) -> Figure:
    """The share of the shift's squared norm that linear maps of the base's hidden state explain, by layer."""
    return _by_layer(frame, "explained", "map", y_label="shift explained (share)", names={})


def oracle_spectrum(frame: pd.DataFrame) -> Figure:
    """The share of the shifts' squared norm in their first directions, by layer."""
    return _by_layer(frame, "spectrum", "map", y_label="squared norm of shifts (share)", names={})


def divergence_by_token(frame: pd.DataFrame) -> Figure:
    """KL divergence from the fine-tuned model along its continuations, with 95% bands over prompts."""
    curves = []
    for name, group in frame.groupby("model", sort=False):
        shown = group.dropna(subset=["low"])
        band = (shown["low"].clip(lower=0.0).tolist(), shown["high"].tolist())
        x, y = shown["token"].astype(int).tolist(), shown["kl"].tolist()
        curves.append(Curve("", "", display.method(str(name)), x, y, band=band))
    return small_multiples(curves, x_label="token of the continuation", y_label="KL divergence (nats)", width=6.0)


def _by_layer(frame: pd.DataFrame, measure: str, line: str, *, y_label: str, names: Mapping[str, str]) -> Figure:
    shown = frame[frame["layer"].notna() & frame["measure"].eq(measure)].sort_values("layer", kind="stable")
    curves = [
        Curve("", "", names.get(str(label), str(label)), group["layer"].astype(int).tolist(), group["value"].tolist())
        for label, group in shown.groupby(line, sort=False)
    ]
    return small_multiples(curves, x_label="layer", y_label=y_label, width=4.5)
