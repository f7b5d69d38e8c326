"""Tables on a terminal that are drawn from data frames: apart from the others, because pandas takes time to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from actshift.planning.manifests import Manifest
from actshift.report import audit, claims, names, params
from actshift.report.layout import Bold, layout


def sweep_table(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> Group:
    """A sweep's table, laid out as in every other format."""
    page = layout(cells, manifest, variant=variant)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(page.columns):
        table.add_column(Text(column), no_wrap=index == 0)
    for model, block in page.blocks:
        table.add_row(Text(model, style="underline"))
        for row in block:
            # Text, not str: rich would read "[paper 86.2]" as markup.
            table.add_row(*(Text(text, style="bold" if isinstance(text, Bold) else "") for text in row))
        table.add_section()
    return Group(Text(page.title), *map(Text, page.facts), table, *map(Text, page.notes))


def frame_table(frame: pd.DataFrame) -> Table:
    """A data frame as it is, numbers to the right; what is missing is left empty."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[column])
        table.add_column(Text(str(column)), justify="right" if numeric else "left", no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*(Text("" if pd.isna(value) else _written(value)) for value in row))
    return table


def _written(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def params_table(rows: pd.DataFrame) -> Group:
    """Trainable parameters by model and method, from `report.params.frame`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in params.COLUMNS:
        table.add_column(name, justify="left" if name in ("Model", "Method", "Difference") else "right")
    for model, block in rows.groupby("model", sort=False):
        for index, row in enumerate(block.itertuples()):
            texts = params.texts(row)
            head = names.model(str(model)) if index == 0 else f"{row.total:,}" if index == 1 else ""
            table.add_row(head, *texts, style="bold" if "≠" in texts[-1] else None)
        table.add_section()
    return Group(table, *map(Text, params.LEGEND), *map(Text, params.refusals(rows)))


def audit_table(findings: Sequence[audit.Finding]) -> Table:
    """What does not follow from one another in the paper's numbers."""
    table = Table(box=None, pad_edge=False)
    for column in ("check", *audit.COLUMNS):
        table.add_column(column, overflow="fold")
    for each in findings:
        table.add_row(each.check, *audit.texts(each))
    return table


VERDICT_STYLES = {
    claims.Verdict.HOLDS.value: "green",
    claims.Verdict.FAILS.value: "red",
    claims.Verdict.OPEN.value: "dim",
}


def claims_table(judgments: Sequence[claims.Judgment]) -> Table:
    """The claims ledger: a line a claim, the verdict on the paper's numbers beside those on ours."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=False)
    for column in ("claim", *claims.HEADINGS):
        table.add_column(column, overflow="fold")
    for line in claims.by_claim(judgments):
        where, text, *verdicts, measured = claims.texts(line)
        shown = [Text(verdict, style=VERDICT_STYLES.get(verdict, "")) for verdict in verdicts]
        table.add_row(line.claim.name, where, Text(text), *shown, Text(measured))
    return table


def claim_lines(judgments: Sequence[claims.Judgment]) -> Group:
    """One claim with all that its verdicts rest on."""
    claim = judgments[0].claim
    lines = [f"{claim.text} ({claim.where})", *([f"Reading: {claim.reading}"] if claim.reading else [])]
    for each in judgments:
        lines.append(f"{each.evidence}: {each.verdict}")
        lines += [f"  {text}" for text in (each.estimate, each.note, " ".join(each.runs)) if text]
    return Group(*map(Text, lines))


def theory_table(record: Mapping[str, Any]) -> Table:
    """The paper's statements with their verdicts: one line each."""
    table = Table(box=None, pad_edge=False)
    for column in ("statement", "place", "verdict", "condition, or what holds instead"):
        table.add_column(column, overflow="fold")
    for each in record["statements"]:
        table.add_row(each["name"], each["place"], each["verdict"], each["condition"] or each["corrected"] or "")
    return table
