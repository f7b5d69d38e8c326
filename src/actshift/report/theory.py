"""The theory ledger as a page: verdicts first, then each statement with its checks and counterexample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from actshift.analysis.theory.statements import FAILS, HOLDS, UNDER
from actshift.report.markdown_text import table
from actshift.schema.analysis import TheoryConfig
from actshift.schema.building import built

COUNTED = {HOLDS: "hold", UNDER: "hold under a condition", FAILS: "do not hold as printed"}
LONGEST = 12
"""Arrays with more numbers than this are told by their shape; the JSON beside the page has them."""


def markdown(record: Mapping[str, Any], checks: pd.DataFrame) -> str:
    """The page of a ledger's record and frame of checks."""
    statements = record["statements"]
    verdicts = [each["verdict"] for each in statements]
    head = ", ".join(f"{verdicts.count(verdict)} {words}" for verdict, words in COUNTED.items())
    analysis = built(TheoryConfig, record["config"])
    effort = (
        f"{analysis.draws} draws of each family of examples in float64, seed {analysis.seed}; worst cases by "
        f"{analysis.search.restarts} climbs of {analysis.search.steps} steps from each family."
    )
    parts = ["# The theory, statement by statement", f"{len(statements)} statements: {head}.", effort, _summary(record)]
    for each in statements:
        parts += _section(each, checks[checks["statement"].eq(each["name"])])
    return "\n\n".join(parts) + "\n"


def _summary(record: Mapping[str, Any]) -> str:
    rows = [
        (
            each["place"],
            f"`{each['name']}`",
            each["verdict"],
            each["condition"] or "",
            each["corrected"] or "",
            "" if each["tightness"] is None else f"{each['tightness']:.4g}",
        )
        for each in record["statements"]
    ]
    return table(("place", "statement", "verdict", "condition", "what holds instead", "largest left / right"), rows)


def _section(statement: Mapping[str, Any], checks: pd.DataFrame) -> Iterator[str]:
    yield f"## {statement['name']}"
    yield f"{statement['place']}: {statement['says']}."
    instead = "".join(
        f" {word}: {statement[key]}."
        for word, key in (("Under", "condition"), ("Corrected", "corrected"))
        if statement[key]
    )
    yield f"**{statement['verdict']}**.{instead}"
    columns = ["role", "form", "family", "draws", "within", "worst", "limit", "holds"]
    rows = [[_cell(row[column]) for column in columns] for _, row in checks.iterrows()]
    yield table(columns, rows, right=("draws", "within", "worst", "limit"))
    if statement["counterexample"] is not None:
        yield _counterexample(statement["counterexample"])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)


def _counterexample(found: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} = {_array(value)}" for name, value in found["example"].items())
    return f"Smallest counterexample found ({found['value']:.4g} against {found['limit']:.4g}): {shown}."


def _array(value: Any) -> str:
    if isinstance(value, str):
        return value
    flat = [number for row in value for number in (row if isinstance(row, list) else [row])]
    if len(flat) > LONGEST:
        size = f"{len(value)} x {len(value[0])}" if isinstance(value[0], list) else str(len(value))
        return f"({size})"
    rows = value if isinstance(value[0], list) else [value]
    return "[" + "; ".join(" ".join(f"{number:.4g}" for number in row) for row in rows) + "]"
