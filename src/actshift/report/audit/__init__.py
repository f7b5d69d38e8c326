"""The paper's printed numbers held against themselves, and against what can be computed without a run.

A finding is a place where what is printed does not follow from what is printed elsewhere, or from the models and data
sets. The printed numbers are never corrected: tables compare with them as they are. One file a kind of finding. What
the text claims of its tables is judged in `actshift.report.claims`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from actshift.report.audit import deviations as _deviations
from actshift.report.audit import differences as _differences
from actshift.report.audit import possible as _possible
from actshift.report.audit import rates as _rates
from actshift.report.audit import repeats as _repeats
from actshift.report.audit import shares as _shares
from actshift.report.audit import sizes as _sizes
from actshift.report.audit import statements as _statements
from actshift.report.audit.document import COLUMNS, HEADINGS, counts, frame, markdown, summary, texts
from actshift.report.audit.finding import Finding, Severity

__all__ = [
    "ANSWERS",
    "COLUMNS",
    "HEADINGS",
    "Finding",
    "Severity",
    "audit",
    "counts",
    "frame",
    "markdown",
    "summary",
    "texts",
]

ANSWERS = {
    "winogrande": {"paper": {"1": 628, "2": 639}, "released": {"1": 312, "2": 322}},
}
"""How often each answer is right in the test split of each protocol; a test counts again on the hub's file."""


def audit(
    *,
    shares: pd.DataFrame | None = None,
    rows: Mapping[str, Mapping[str, int]] | None = None,
    tests: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Finding]:
    """Every finding, by check.

    `shares` is the frame of `actshift params` (computed shares of parameters), `rows` the row counts of the data sets
    by hub split, `tests` those of the test splits by data set and protocol; a check whose input is absent is left out.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        _differences.differences,
        _differences.averages,
        _rates.rates,
        _deviations.deviations,
        lambda: _deviations.constants(ANSWERS),
        _repeats.repeats,
        _statements.statements,
    ]
    found = [finding for check in checks for finding in check()]
    found += _possible.impossible(tests) if tests is not None else ()
    found += _shares.shares(shares) if shares is not None else ()
    found += _sizes.sizes(rows) if rows is not None else ()
    order = list(HEADINGS)
    return sorted(found, key=lambda finding: order.index(finding.check))
