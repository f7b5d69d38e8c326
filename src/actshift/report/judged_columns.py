"""A judge's statistics as columns beside a sweep's cells, under the names of `actshift winrate --csv`.

Rates, errors and intervals are percent. With one judged run in a cell every column is that run's. With several, rates
and lengths are means over runs, counts and dollars are sums, and `..._std` is the deviation over runs (n - 1); what
belongs to one fit or one set of instructions, as errors, intervals, the penalty and weights do, is absent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from actshift.judging.records import JudgedRecord

NAN = math.nan
Value = Callable[["JudgedRecord"], Any]


def _lc(name: str) -> Value:
    return lambda record: NAN if record.lc is None else record.lc[name]


def _lc_spread(name: str) -> Value:
    return lambda record: NAN if record.lc is None else record.lc["bootstrap"][name]


def _win(name: str) -> Value:
    return lambda record: record.win.get(name, NAN)


def _spread(name: str) -> Value:
    return lambda record: record.win_spread.get(name, NAN)


def _place(name: str) -> Value:
    return lambda record: record.by_position.get(name, NAN)


TEXTS: Mapping[str, Value] = {
    "judge": lambda record: record.judge,
    "annotator": lambda record: record.annotator,
    "reference": lambda record: record.reference,
    "judge_identity": lambda record: record.judge_identity,
    "gamed_rows": lambda record: "" if record.lc is None else record.lc["gamed"],
}
MEANS: Mapping[str, Value] = {
    "length_controlled_winrate": _lc("win_rate"),
    "win_rate": _win("win_rate"),
    "discrete_win_rate": _win("discrete_win_rate"),
    "win_rate_first": _place("first"),
    "win_rate_second": _place("second"),
    "avg_length": _win("avg_length"),
}
OF_ONE: Mapping[str, Value] = {
    "lc_standard_error": _lc("upstream_error"),
    "lc_bootstrap_error": _lc_spread("error"),
    "lc_low": _lc_spread("low"),
    "lc_high": _lc_spread("high"),
    "lc_least_over_c": _lc("low"),
    "lc_largest_over_c": _lc("high"),
    "c": _lc("c"),
    "standard_error": _win("standard_error"),
    "bootstrap_error": _spread("error"),
    "win_rate_low": _spread("low"),
    "win_rate_high": _spread("high"),
}
SUMS: Mapping[str, Value] = {
    "n_wins": _win("n_wins"),
    "n_wins_base": _win("n_wins_base"),
    "n_draws": _win("n_draws"),
    "n_total": _win("n_total"),
    "unjudged": _win("unjudged"),
    "win_rate_n_first": _place("n_first"),
    "win_rate_n_second": _place("n_second"),
    "instructions": lambda record: record.instructions,
    "lost_instructions": lambda record: record.lost,
    "dollars": lambda record: record.dollars,
}
DEVIATIONS = ("length_controlled_winrate", "win_rate")
"""The means that have their deviation over runs beside them, as `<name>_std`."""


def with_judged(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with a judge's columns after theirs; as they are where nobody judged."""
    found = {record.identity: record for group in cells.attrs.get("judged", {}).values() for record in group}
    if not found:
        return cells
    rows = [
        _columns([found[identity] for identity in identities.split() if identity in found])
        for identities in cells["identities"]
    ]
    return pd.concat([cells, pd.DataFrame(rows, index=cells.index)], axis=1)


def _columns(records: Sequence[JudgedRecord]) -> dict[str, Any]:
    """A judge's columns of one cell, of its judged runs in the order of seeds."""
    columns: dict[str, Any] = {"n_judged": len(records)}
    columns |= {name: " ".join(sorted({str(value(each)) for each in records})) for name, value in TEXTS.items()}
    for name, value in MEANS.items():
        values = [_number(value(each)) for each in records]
        columns[name] = statistics.fmean(values) if values else NAN
        if name in DEVIATIONS:
            columns[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else NAN
    one = records[0] if len(records) == 1 else None
    columns |= {name: NAN if one is None else _number(value(one)) for name, value in OF_ONE.items()}
    weights = one.lc["w_K"] if one is not None and one.lc is not None else ()
    columns["weights"] = " ".join(repr(float(weight)) for weight in weights)
    return columns | {name: _sum([value(each) for each in records]) for name, value in SUMS.items()}


def _number(value: Any) -> float:
    """A number; NaN of null, which stands in a record for what is not known."""
    return NAN if value is None else float(value)


def _sum(values: Sequence[Any]) -> Any:
    """Counts stay whole numbers; absent where there is nothing to count."""
    return sum(values) if values else NAN
