"""The findings as a Markdown document, a frame and lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields

import pandas as pd

from actshift.report.audit import possible
from actshift.report.audit.finding import Finding, Severity
from actshift.report.markdown_text import table as markdown_table

COLUMNS = ("where", "printed", "arithmetic", "off by", "severity", "note")

INTRODUCTION = """\
Written by `actshift audit --out docs`: where what the paper prints (arXiv 2603.00425v1) does not follow from what it
prints elsewhere, from the modules that a method trains, or from the data sets on the hub. Nothing is corrected: tables
compare with the printed numbers as they are. What the text claims of them is judged in [claims.md](claims.md).

Severities: **typo**, a figure or a name that nothing else rests on; **rounding**, the last digit; **changes a number**
that a reader would take from the paper; **changes a claim** of its text. *Off by* is printed less computed, in the
unit of the place."""

HEADINGS = {
    "difference": "Differences to SFT that are not those of the accuracies",
    "average": "Averages of the differences",
    "rate": "Learning rates outside the searched grids",
    "deviation": "Standard deviations",
    "impossible": "Values that no runs on so many rows give",
    "test set": "Test splits",
    "repeat": "Figures that recur",
    "coverage": "What the tables leave out",
    "reference": "Figures that are referred to",
    "share": "Shares of trained parameters",
    "size": "Sizes of data sets (Table 6)",
}
"""Every check there is, in the order of the document."""

SIZES_NOTE = """\
An accuracy of one run on n rows is k/n, of five runs k/5n; a standard deviation of five such accuracies takes only some
values. *Compatible* is a test set that can give every printed value, rounded or cut; deviations that no size gives are
findings above and are left out here. *By chance* is the share of all one-decimal accuracies that one run on so many
rows can give: where it is 100%, single runs tell nothing."""


def frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """The findings, a row each."""
    return pd.DataFrame([vars(finding) for finding in findings], columns=[field.name for field in fields(Finding)])


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings each check has."""
    return dict(Counter(finding.check for finding in findings))


def summary(findings: Sequence[Finding]) -> str:
    """How many findings there are: in all, of each severity and of each check."""
    grades = Counter(finding.severity for finding in findings)
    of_grade = ", ".join(f"{grades[grade]} {grade}" for grade in Severity if grades[grade])
    of_check = ", ".join(f"{number} {check}" for check, number in counts(findings).items())
    return f"{len(findings)} findings ({of_grade}): {of_check}"


def texts(finding: Finding) -> tuple[str, ...]:
    """A finding's texts, one for each of `COLUMNS`."""
    size = f"{finding.size:g}" if finding.size else ""
    return finding.where, finding.printed, finding.arithmetic, size, finding.severity.value, finding.note


def markdown(findings: Sequence[Finding], *, sets: Sequence[possible.TestSet] = ()) -> str:
    """The document: findings, a table a check, then which test sets the values fit."""
    lines = ["# The paper's numbers against themselves", "", INTRODUCTION, "", f"{summary(findings)}.", ""]
    for check, heading in HEADINGS.items():
        rows = [texts(each) for each in findings if each.check == check]
        lines += [f"## {heading}", "", markdown_table(COLUMNS, rows), ""] if rows else []
    if sets:
        lines += ["## Which test set the printed values fit", "", SIZES_NOTE, "", test_set_table(sets), ""]
    return "\n".join(lines)


def test_set_table(sets: Sequence[possible.TestSet]) -> str:
    """The possible values of each test set, and the verdict of each data set."""
    columns = ("data set", "protocol", "rows", "single runs", "means of five", "deviations", "by chance", "compatible")
    verdicts: Mapping[str, str] = {
        name: possible.verdict([each for each in sets if each.dataset == name]) for name in {s.dataset for s in sets}
    }
    rows = [(*possible.named(each), verdicts[each.dataset]) for each in sets]
    return markdown_table(columns, rows)
