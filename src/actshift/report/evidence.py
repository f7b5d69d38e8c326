"""The evidence behind each cell: intervals, tests against the reference method, and what its test set can show.

Everything is in percent or percent points. What cannot be computed yet is empty, and `evidence_gap` says why.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from actshift.report.origins import objective_name
from actshift.report.statistics import (
    Bits,
    SeedVariance,
    detectable,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    prediction_interval,
    seed_variance,
    significant_digits,
)

if TYPE_CHECKING:
    from actshift.store.records import Record

NUMBERS = [
    "ci_low",
    "ci_high",
    "prediction_low",
    "prediction_high",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "p_mcnemar",
    "detectable",
]
TEXTS = ["paper_inside", "objective", "precision", "hardware", "scoring", "evidence_gap"]
PAPER_RUNS = {"sft": 1}
"""How many runs stand behind a figure of the paper (Appendix F.3); five where a method is not listed."""
SIGNIFICANT = 0.05
ROUNDING = 0.05
"""Half a unit of the last digit that the paper prints, in percent points."""


def answers(record: Record) -> Bits | None:
    """Which rows a run answered right, from the record's packed bits; None where it keeps none."""
    packed = record.metrics.get("answers")
    if not packed:
        return None
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), dtype=np.uint8))
    return bits[: record.metrics["rows"]].astype(bool)


def with_evidence(cells: pd.DataFrame, found: Mapping[str, Record], *, reference: str) -> pd.DataFrame:
    """The frame with a column for each of `NUMBERS` and `TEXTS`.

    `p` is that of the paired difference to the reference method, with the seed variance pooled over the column (one
    model and data set); `p_holm` is the same adjusted over all differences that the table plans; `p_mcnemar` is the
    median over pairs of runs of the same seed (over all pairs where the reference has one run).
    """
    runs = {index: [found[name] for name in str(names).split()] for index, names in cells["identities"].items()}
    base = {
        (row.model, row.dataset, row.protocol): runs[row.Index]
        for row in cells.itertuples()
        if row.method == reference and row.status == "done"
    }
    rows = [_evidence(row, runs[row.Index]) for row in cells.itertuples()]
    pooled = _seed_variances(cells, runs)
    for index, row in enumerate(cells.itertuples()):
        column = row.model, row.dataset, row.protocol
        pair = _pair(row, runs[row.Index], base.get(column), reference=reference)
        seeds = pooled.get(str(column))
        if not isinstance(pair, str) and seeds is None:
            pair = "no method of this column has two runs: the variance over seeds is unknown"
        if isinstance(pair, str):
            rows[index]["evidence_gap"] = rows[index]["evidence_gap"] or pair
        elif seeds is not None:
            rows[index] |= _tests(*pair, seeds=seeds)
    table = pd.DataFrame(rows, index=cells.index, columns=[*NUMBERS, *TEXTS])
    planned = int((cells["method"].ne(reference) & cells["status"].ne("excluded")).sum())
    adjusted = holm({str(index): float(p) for index, p in table["p"].dropna().items()}, family=planned)
    table["p_holm"] = [adjusted.get(str(index), np.nan) for index in table.index]
    table = table.astype(dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(TEXTS, "str"))
    return cells.join(_rounded(table))


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Six significant digits of p values and six decimals of the rest: beyond, machines may differ in a sum's order."""
    p_values = ["p", "p_holm", "p_mcnemar"]
    digits = table[p_values].map(significant_digits)
    return table.round(6).assign(**{name: digits[name] for name in p_values})


def _evidence(row: Any, runs: Sequence[Record]) -> dict[str, Any]:
    """What a cell's own runs say."""
    values = [float(value) for value in row.values]
    facts: dict[str, Any] = dict.fromkeys(NUMBERS, np.nan) | dict.fromkeys(TEXTS, "")
    if not runs:
        return facts | {"evidence_gap": row.excluded or "no finished run"}
    facts["objective"] = " ".join(sorted({objective_name(run) for run in runs}))
    for name in ("precision", "hardware", "scoring"):
        facts[name] = " ".join(sorted({str(run.provenance.get(name, "")) for run in runs} - {""}))
    interval = mean_interval(values)
    if interval is not None:
        facts |= {"ci_low": interval.low, "ci_high": interval.high}
    predicted = prediction_interval(values, others=PAPER_RUNS.get(row.method, 5))
    if predicted is not None:
        facts |= {"prediction_low": predicted.low, "prediction_high": predicted.high}
        if not np.isnan(row.paper_accuracy):
            low, high = predicted.low - ROUNDING, predicted.high + ROUNDING
            facts["paper_inside"] = "yes" if low <= row.paper_accuracy <= high else "no"
    facts["detectable"] = detectable(runs[0].metrics["rows"], accuracy=statistics.fmean(values))
    return facts


def _pair(
    row: Any, runs: Sequence[Record], base: Sequence[Record] | None, *, reference: str
) -> tuple[list[Bits], list[Bits]] | str:
    """The answers of a cell's runs and of the reference's, or the reason why there is nothing to compare."""
    if row.method == reference:
        return "" if len(runs) > 1 else "one run: no interval"
    if row.status != "done":
        return f"{row.n_finished} of {row.n_planned} runs finished"
    if base is None:
        return f"{reference} is not finished"
    ours, theirs = ([answers(run) for run in side] for side in (runs, base))
    if any(bits is None for bits in (*ours, *theirs)):
        return "records without answers by row"
    if len({_test_rows(run) for run in (*runs, *base)}) > 1:
        return "the runs were scored on different rows"
    return [bits for bits in ours if bits is not None], [bits for bits in theirs if bits is not None]


def _seed_variances(cells: pd.DataFrame, runs: Mapping[Any, Sequence[Record]]) -> dict[str, SeedVariance]:
    """The seed variance of each column that has one: over its methods, those with runs over the same rows."""
    columns: dict[str, list[list[Bits]]] = {}
    for row in cells.itertuples():
        bits = [answers(run) for run in runs[row.Index]]
        found = [each for each in bits if each is not None]
        if len(found) > 1 and len({len(each) for each in found}) == 1:
            columns.setdefault(str((row.model, row.dataset, row.protocol)), []).append(found)
    pooled = {column: seed_variance(groups) for column, groups in columns.items()}
    return {column: variance for column, variance in pooled.items() if variance is not None}


def _tests(ours: Sequence[Bits], theirs: Sequence[Bits], *, seeds: SeedVariance) -> dict[str, Any]:
    """The comparison with the reference."""
    found = paired_difference(ours, theirs, seeds=seeds)
    same = len(ours) == len(theirs)
    pairs = list(zip(ours, theirs, strict=True)) if same else [(one, other) for one in ours for other in theirs]
    return {
        "difference_low": found.interval.low,
        "difference_high": found.interval.high,
        "p": found.p,
        "p_mcnemar": statistics.median(mcnemar(one, other) for one, other in pairs),
    }


def _test_rows(run: Record) -> tuple[int, str]:
    """What was scored: as many rows, of this content."""
    return run.metrics["rows"], str((run.provenance.get("data") or {}).get("test", ""))
