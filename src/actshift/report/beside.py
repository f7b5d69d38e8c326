"""Sweeps beside each other: the same models, methods and data sets, trained in another way.

One row a model, method and data set, and of each sweep the mean accuracy in percent; of the second and later ones the
difference to the first with its 95% interval, paired over test rows (`actshift.report.statistics.paired_difference`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.errors import ActshiftError
from actshift.report import names
from actshift.report.evidence import answers
from actshift.report.markdown_text import table
from actshift.report.origins import origin_facts, refuse_mixed_rows, refuse_mixed_scoring
from actshift.report.statistics import paired_difference, seed_variance

if TYPE_CHECKING:
    from actshift.planning.manifests import Manifest
    from actshift.store.records import Record

KEYS = ["model", "method", "dataset"]
NUMBERS = ["mean", "std", "runs", "difference", "low", "high"]


def beside(manifests: Sequence[Manifest], records: Sequence[Record]) -> pd.DataFrame:
    """The frame: a row a cell of the first sweep that every other has too, columns ``<sweep>.<number>``.

    A difference is NaN until both sides have two runs, over the same rows. Errors: sweeps with no cell in common,
    sweeps that were scored on other rows or in another way.
    """
    found = {record.identity: record for record in records if record.split == "test"}
    runs = [_runs(manifest, found) for manifest in manifests]
    refuse_mixed_scoring(record for own in runs for cell in own.values() for record in cell)
    cells = [key for key in runs[0] if all(key in own for own in runs)]
    if not cells:
        raise ActshiftError(
            f"{' and '.join(each.sweep for each in manifests)} have no model, method and data set in common: there is "
            "nothing to set side by side."
        )
    rows = []
    for key in cells:
        first = runs[0][key]
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        for manifest, own in zip(manifests, runs, strict=True):
            facts = _facts(own[key], None if own is runs[0] else first)
            row |= {f"{manifest.sweep}.{name}": facts.get(name, math.nan) for name in NUMBERS}
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["origins"] = {
        manifest.sweep: origin_facts([record for cell in own.values() for record in cell])
        for manifest, own in zip(manifests, runs, strict=True)
    }
    return frame


def _runs(manifest: Manifest, found: Mapping[str, Record]) -> dict[tuple[str, str, str], list[Record]]:
    """The finished test runs of each cell of a sweep, by seed."""
    cells: dict[tuple[str, str, str], list[Record]] = {
        (planned.cell.model, planned.cell.method, planned.cell.dataset): [] for planned in manifest.cells
    }
    for run in sorted(manifest.runs, key=lambda run: run.seed):
        if run.split == "test" and run.identity in found:
            cells[run.cell.model, run.cell.method, run.cell.dataset].append(found[run.identity])
    refuse_mixed_rows(record for cell in cells.values() for record in cell)
    return cells


def _facts(own: Sequence[Record], first: Sequence[Record] | None) -> dict[str, float]:
    values = [float(record.metrics["accuracy"]) for record in own]
    if not values:
        return {"runs": 0}
    facts = {"runs": len(values), "mean": statistics.fmean(values)}
    if len(values) > 1:
        facts["std"] = statistics.stdev(values)
    if first is None:
        return facts
    sides = [[bits for record in side if (bits := answers(record)) is not None] for side in (own, first)]
    rows = {str(record.provenance.get("data", {}).get("test")) for record in (*own, *first)}
    variance = seed_variance([side for side in sides if len(side) > 1])
    if len(rows) > 1:
        raise ActshiftError("sweeps that were scored on different test rows cannot be set side by side.")
    if min(map(len, sides)) < 2 or variance is None:
        return facts
    difference = paired_difference(*sides, seeds=variance)
    return facts | {
        "difference": statistics.fmean(values) - statistics.fmean(float(each.metrics["accuracy"]) for each in first),
        "low": difference.interval.low,
        "high": difference.interval.high,
    }


def markdown(frame: pd.DataFrame, manifests: Sequence[Manifest]) -> str:
    """The frame as a Markdown page."""
    header = ["Model", "Method", "Data set"]
    for number, manifest in enumerate(manifests):
        header += [manifest.title, *([f"less {manifests[0].title}"] if number else [])]
    lines = []
    for row in frame.to_dict("records"):
        line = [names.model(row["model"]), names.method(row["method"]), names.dataset(row["dataset"])]
        for number, manifest in enumerate(manifests):
            own = {name: row[f"{manifest.sweep}.{name}"] for name in NUMBERS}
            line += [_mean(own), *([_difference(own)] if number else [])]
        lines.append(tuple(line))
    facts = [
        "A cell is accuracy in percent ± standard deviation over seeds; an interval is at 95%, paired over test rows.",
        *(f"{sweep}: {fact}" for sweep, found in frame.attrs["origins"].items() for fact in found),
    ]
    title = "# " + " beside ".join(manifest.sweep for manifest in manifests)
    return "\n\n".join([title, "\n".join(f"- {fact}" for fact in facts), table(header, lines, padded=True)]) + "\n"


def _mean(own: Mapping[str, float]) -> str:
    if not own["runs"]:
        return "–"
    deviation = "" if math.isnan(own["std"]) else f" ±{own['std']:.1f}"
    return f"{own['mean']:.1f}{deviation} ({int(own['runs'])})"


def _difference(own: Mapping[str, float]) -> str:
    return "–" if math.isnan(own["difference"]) else f"{own['difference']:+.1f} [{own['low']:+.1f}, {own['high']:+.1f}]"
