"""Win rates of recorded judgments as CSV and Markdown."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from actshift.judging.bootstrap import Spread
from actshift.judging.summary import Comparison, Summary
from actshift.report.markdown_text import table as markdown_table

COLUMNS = (
    "Model",
    "LC (%)",
    "95%",
    "LC over C",
    "Win rate (%)",
    "SE",
    "Discrete (%)",
    "Wins",
    "Losses",
    "Draws",
    "Unjudged",
    "Shown first (%)",
    "Shown second (%)",
    "Length",
)
COMPARED = ("Difference", "Win rate", "95%", "LC", "95%")
ABSENT = "–"


def legend(rows: Sequence[Summary]) -> str:
    """What stands in the columns, and whose judgments these are."""
    first = rows[0]
    text = (
        f"Judge: {first.judgments.annotator}; reference: {first.judgments.reference}; "
        f"{len(first.judgments.instructions):,} instructions. SE as upstream computes it. Shown first, shown second: "
        "the win rate where the judge saw the model's answer before, and after, the reference's. Length: mean "
        "characters."
    )
    if first.lc is None:
        return f"{text} No length control: give the folder with its data, --data."
    rows_from = {"none": "none", "stand-ins": "stand-ins with the published rows' features and sums"}
    return (
        f"{text} LC: length-controlled win rate, 95% by {len(first.draws):,} bootstrap draws of instructions; LC over "
        f"C: the least and the largest over penalties C from 2.78 on. Gamed rows: "
        f"{rows_from.get(first.lc.gamed, first.lc.gamed)}."
    )


def texts(row: Summary) -> tuple[str, ...]:
    """A line of the table."""
    win, lc = row.win, (ABSENT, ABSENT, ABSENT)
    if row.lc is not None:
        lc = f"{row.lc.win_rate:.2f}", _interval(row.lc_spread), f"{row.lc.low:.2f} to {row.lc.high:.2f}"
    counts = (f"{count:,}" for count in (win.n_wins, win.n_wins_base, win.n_draws, win.unjudged))
    rates = f"{win.win_rate:.2f}", f"{win.standard_error:.2f}", f"{win.discrete_win_rate:.2f}"
    position = f"{row.position.first:.2f}", f"{row.position.second:.2f}"
    return row.judgments.model, *lc, *rates, *counts, *position, f"{win.avg_length:,}"


def compared_texts(row: Comparison) -> tuple[str, ...]:
    """A line of the table of differences."""
    lc = ABSENT if row.lc is None else f"{row.lc:+.2f}"
    win = f"{row.win:+.2f}", _interval(row.win_spread)
    return f"{row.model} less {row.other}", *win, lc, _interval(row.lc_spread)


def _interval(spread: Spread | None) -> str:
    return ABSENT if spread is None else f"{spread.low:.2f} to {spread.high:.2f}"


def markdown(rows: Sequence[Summary], differences: Sequence[Comparison] = ()) -> str:
    """The tables as Markdown."""
    parts = [markdown_table(COLUMNS, map(texts, rows), right=COLUMNS[1:])]
    if differences:
        parts.append(markdown_table(COMPARED, map(compared_texts, differences), right=COMPARED[1:]))
    return "\n\n".join([*parts, legend(rows)]) + "\n"


def csv(rows: Sequence[Summary]) -> str:
    """The table as CSV in full precision, upstream's names for upstream's columns; what is absent is empty."""
    lines = [_fields(row) for row in rows]
    text = io.StringIO()
    writer = csv_module.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _fields(row: Summary) -> Mapping[str, object]:
    judged, spread, lc, lc_spread = row.judgments, row.spread, row.lc, row.lc_spread
    fields: dict[str, object] = {"model": judged.model, "reference": judged.reference, "annotator": judged.annotator}
    fields |= asdict(row.win)
    fields |= {"win_rate_low": spread.low, "win_rate_high": spread.high, "bootstrap_error": spread.error}
    fields |= {f"win_rate_{name}": value for name, value in asdict(row.position).items()}
    names = ("length_controlled_winrate", "lc_standard_error", "lc_bootstrap_error", "lc_low", "lc_high")
    values: tuple[object, ...] = ("",) * len(names)
    rest: dict[str, object] = dict.fromkeys(("lc_least_over_c", "lc_largest_over_c", "c", "weights", "gamed_rows"), "")
    if lc is not None and lc_spread is not None:
        values = lc.win_rate, lc.upstream_error, lc_spread.error, lc_spread.low, lc_spread.high
        weights = " ".join(repr(weight) for weight in lc.w_K)
        rest = dict(zip(rest, (lc.low, lc.high, lc.c, weights, lc.gamed), strict=True))
    return fields | dict(zip(names, values, strict=True)) | rest
