"""Figures of analyses, each a function of a frame in the style of all figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

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


def oracle_by_layer(frame: pd.DataFrame) -> Figure:
    """What overwriting one site in one layer leaves of the divergence, and what linear maps explain, by layer."""
    one = frame[frame["layer"].notna()]
    curves = []
    for measure, column, name in (("kl_left", "site", "KL left (share)"), ("explained", "map", "explained (share)")):
        for label, group in one[one["measure"].eq(measure)].groupby(column, sort=False):
            group = group.sort_values("layer")
            shown = SITES.get(str(label), f"map: {label}")
            curves.append(Curve("", name, shown, group["layer"].tolist(), group["value"].tolist()))
    return small_multiples(curves, x_label="layer", y_label="share", width=3.4)
