"""Figures of analyses, each a function of a frame in the style of all figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from actshift.report import names as display
from actshift.report.panels import Curve, small_multiples, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SITES = {"post_block": "block output", "post_mlp": "MLP output", "pre_mlp": "MLP input", "attn_out": "attention output"}


def overlap_maps(maps: pd.DataFrame) -> Figure:
    """Figure 3: absolute inner products of the leading directions, a heat map a layer, and one scale for all."""
    from matplotlib.figure import Figure

    shown = list(maps.groupby("layer", sort=False))
    with style():
        figure = Figure(figsize=(2.6 * len(shown) + 0.9, 3.0), layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        for ax, (layer, group) in zip(axes, shown, strict=True):
            image = ax.imshow(group.drop(columns="layer").to_numpy(), cmap="cividis", vmin=0, vmax=1)
            ax.set(title=f"layer {layer}", xlabel="directions of R F' (down_proj)")
            ax.grid(False)
        axes[0].set_ylabel("directions of R Y' (adapter)")
        figure.colorbar(image, ax=list(axes), label="absolute inner product", shrink=0.8)
    return figure


def overlap_by_layer(frame: pd.DataFrame) -> Figure:
    """Overlap of the leading subspaces by layer, beside its value for random subspaces."""
    layers = frame["layer"].tolist()
    curves = [
        Curve("", "", "measured", layers, frame["overlap"].tolist()),
        Curve("", "", "random subspaces", layers, frame["random"].tolist()),
    ]
    return small_multiples(curves, x_label="layer", y_label="overlap of subspaces", width=4.5)


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
