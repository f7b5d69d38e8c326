"""Figures: what they show, where it stands, and that a method looks alike in all panels."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from synthetic_sweep import COUNTS, finished, planned

from actshift.report import figures, frame
from actshift.report.panels import CHARACTER, Axis, Curve, _placed, small_multiples


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, Any]:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"])
    return manifest, selection, finished(manifest, COUNTS)


def texts(figure: Any) -> list[str]:
    """What stands on a figure, besides the legend."""
    return [text.get_text() for text in figure.texts]


def legend(figure: Any) -> dict[str, str]:
    """The colour of each name."""
    (box,) = figure.legends
    names = [text.get_text() for text in box.get_texts()]
    return dict(zip(names, (to_hex(handle.get_color()) for handle in box.legend_handles), strict=True))


def lines(figure: Any, color: str) -> list[Any]:
    """Lines of a colour that are drawn, as arrays of points in inches (x, y)."""
    return [line.get_xydata() for line in drawn(figure, Line2D) if to_hex(line.get_markeredgecolor()) == color]


def drawn(figure: Any, kind: type) -> list[Any]:
    return [artist for artist in figure.artists if isinstance(artist, kind)]


def test_figures_are_made_where_there_is_something_to_show(made: tuple[Any, Any, Any], tmp_path: Path) -> None:
    manifest, selection, records = made
    cells = frame.cells(manifest, records, selection)
    drawn = figures.all_figures(cells, selection, frame.loss_curves(manifest, records))
    assert sorted(drawn) == ["accuracy_by_parameters", "gap_to_paper", "learning_rates"]
    written = figures.write(drawn, tmp_path, sweep="t")
    assert len(written) == 6 and all(path.stat().st_size > 1000 for path in written)
    (gap,) = cells.query("method == 'post_block' and dataset == 'boolq'")["gap"]
    assert f"{gap:+.1f}" in figures.svg(drawn["gap_to_paper"])
    assert figures.all_figures(frame.cells(manifest, [], selection), None, frame.loss_curves(manifest, [])) == {}


def test_the_front_holds_only_what_no_smaller_method_beats() -> None:
    points = [(0.003, 70.0, "a"), (0.04, 75.0, "b"), (0.4, 74.0, "c"), (100.0, 76.0, "d")]
    assert list(figures.front(points)) == [(0.003, 70.0), (0.04, 75.0), (100.0, 76.0)]


def test_a_curve_is_where_its_numbers_are() -> None:
    curves = [
        Curve("up", "left", "a", [1.0, 10.0, 100.0], [0.0, 50.0, 100.0], ringed=[2]),
        Curve("up", "right", "a", [1.0, 100.0], [20.0, 40.0]),
        Curve("down", "left", "b", [1.0, 100.0], [3.0, 1.0], band=([2.0, 0.0], [4.0, 2.0])),
    ]
    figure = small_multiples(curves, x_label="rate", y_label="score", width=3.0, log=True)
    width, height = figure.get_size_inches()
    colors = legend(figure)
    assert list(colors) == ["a", "b"] and len(set(colors.values())) == 2
    line, ring = lines(figure, colors["a"])
    first, second = line[:3], line[4:6]
    assert np.isnan(line[3]).all(), "panels are apart"
    assert first[1] == pytest.approx((first[0] + first[2]) / 2), "ten lies midway between one and a hundred"
    assert (second[:, 0] > first[:, 0].max()).all(), "the second column is to the right"
    assert ring[0] == pytest.approx(first[2])
    (below,) = lines(figure, colors["b"])
    assert (below[:2, 1] < first[:, 1].min()).all() and below[0, 1] > below[1, 1], "the second row is below"
    points = np.concatenate([first, second, below[:2]])
    assert (points > 0).all() and (points < (width, height)).all()
    (band,) = (to_hex(patch.get_facecolor()) for patch in drawn(figure, Polygon))
    assert band == colors["b"]
    shown = texts(figure)
    assert {"up, left", "up, right", "down, left"} < set(shown)
    assert shown.count("rate") == 1 and shown.count("score") == 2, "axes are named at the outer panels"
    assert {"10⁰", "10¹", "10²"} < set(shown)


def test_bars_the_grey_line_and_percents_are_named_and_where_their_numbers_are() -> None:
    curves = [
        Curve("", "m", "a", [0.1], [50.0], bars=([40.0], [70.0])),
        Curve("", "m", "b", [100.0], [80.0]),
        Curve("", "m", "", [0.1, 100.0], [50.0, 80.0]),
    ]
    figure = small_multiples(curves, x_label="share (%)", y_label="score", width=3.0, log=True, grey="the front")
    assert list(legend(figure)) == ["a", "b", "the front"]
    assert {"0.1", "1", "10", "100"} < set(texts(figure)), "percents are plain numbers"
    bar, mark = lines(figure, legend(figure)["a"])
    low, high = bar[0, 1], bar[1, 1]
    assert (mark[0, 1] - low) / (high - low) == pytest.approx(1 / 3)
    assert bar[0, 0] == bar[1, 0] == mark[0, 0]


def test_panels_of_a_row_have_one_range_and_marks_at_one_place_are_all_seen() -> None:
    curves = [
        Curve("up", "left", "a", [1.0, 2.0], [0.0, 0.0]),
        Curve("up", "left", "b", [1.0, 2.0], [0.0, 0.0]),
        Curve("up", "right", "a", [1.0, 2.0], [0.0, 100.0]),
    ]
    figure = small_multiples(curves, x_label="x", y_label="y", width=3.0)
    (first,) = lines(figure, legend(figure)["a"])
    assert first[0, 1] == pytest.approx(first[3, 1]), "zero is at one height in both panels"
    sizes = [line.get_markersize() for line in drawn(figure, Line2D) if line.get_label() in ("a", "b")]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 2


def test_ticks_are_not_printed_over_one_another() -> None:
    crowded = Axis(0.0, 0.5, 0.0, 1.0, log=False)
    shown = list(_placed(crowded))
    assert 1 < len(shown) < len(crowded.ticks())
    for (text, place), (other, after) in pairwise(shown):
        assert after - place >= CHARACTER * (len(text) + len(other)) / 2 - 1e-9


def test_a_method_has_one_colour_in_all_panels() -> None:
    rows = [
        (model, "listops", method) for model in ("m", "n") for method in ("sft", "lora_r8") if model + method != "msft"
    ]
    frame_of = pd.DataFrame(
        [(*row, seed, step, 2.0 + seed - step) for row in rows for seed in (0, 1) for step in (1, 2)],
        columns=["model", "dataset", "method", "seed", "step", "loss"],
    )
    figure = figures.loss_curves(frame_of)
    assert figure is not None
    (line,) = lines(figure, legend(figure)["LoRA"])
    assert len(line) == 6 and np.isnan(line[2]).all(), "a panel's two steps each, with a gap behind"
    assert len(drawn(figure, Polygon)) == 3, "a band for each line"


def test_the_chosen_rates_have_a_ring(made: tuple[Any, Any, Any]) -> None:
    figure = figures.learning_rates(made[1])
    assert figure is not None
    rings = [line for line in drawn(figure, Line2D) if line.get_markerfacecolor() == "none"]
    assert sum(np.isfinite(line.get_xdata()).sum() for line in rings) == len(made[1].choices)


@pytest.mark.parametrize(
    ("values", "log", "expected"),
    [
        ([0, 100], False, ["0", "20", "40", "60", "80", "100"]),
        ([0.31, 0.34], False, ["0.31", "0.315", "0.32", "0.325", "0.33", "0.335", "0.34"]),
        ([1e-5, 5e-3], True, ["10⁻⁵", "10⁻⁴", "10⁻³"]),
        ([2e-3, 8e-3], True, ["0.002", "0.005"]),
    ],
)
def test_ticks_are_round_and_within(values: list[float], log: bool, expected: list[str]) -> None:
    axis = Axis.over(values, start=1.0, length=2.0, log=log)
    ticks = axis.ticks()
    assert list(ticks) == expected
    places = axis.inches(list(ticks.values()))
    assert places.min() >= 1 and places.max() <= 3


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [math.nan], []])
def test_an_axis_over_next_to_nothing_can_be_drawn(values: list[float]) -> None:
    axis = Axis.over(values, start=0.0, length=1.0)
    assert axis.low < axis.high and axis.ticks()


def test_drawings_are_the_same_twice(made: tuple[Any, Any, Any]) -> None:
    first, second = (figures.learning_rates(made[1]) for _ in range(2))
    assert first is not None and second is not None
    assert figures.svg(first) == figures.svg(second)


def test_ranks_are_drawn_by_kind_of_method() -> None:
    rows = [
        ("m", "post_block_r1", 60.0),
        ("m", "post_block", 65.0),
        ("m", "post_block_nonlinear", 66.0),
        ("m", "sft", 70),
    ]
    cells = pd.DataFrame(rows, columns=["model", "method", "mean"]).assign(std=1.0)
    figure = figures.accuracy_by_rank(cells)
    assert figure is not None
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["linear", "nonlinear"]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["1", "8"]
    assert figures.accuracy_by_rank(cells.query("method == 'post_block'")) is None


def test_of_two_methods_with_as_many_parameters_the_better_one_is_on_the_front() -> None:
    points = [(0.1, 5.0, "a"), (0.05, 0.5, "b"), (0.05, 9.0, "c"), (0.1, 70.0, "d"), (100.0, 60.0, "e")]
    assert list(figures.front(points)) == [(0.05, 9.0), (0.1, 70.0)]
