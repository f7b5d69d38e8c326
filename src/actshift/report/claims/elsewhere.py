"""The rules of claims that are not about accuracies: win rates of Table 3, statements of the theory, analyses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.claims.estimates import Check, Condition, Estimate, Item, NotThere, Verdict
from actshift.report.claims.rules import condition

Arguments = Mapping[str, Any]


def win_rates(arguments: Arguments) -> Check:
    """Table 3: a win rate less that of `other`, in percent points or, with `standard_errors`, in those of `other`.

    The note has each difference in standard errors of a difference, which is what noise alone moves it by.
    """
    rows: Any = paper.table(3).set_index("method")
    other = rows.loc[arguments["other"]]
    errors = arguments.get("standard_errors")
    items, notes = [], []
    for method in arguments["methods"]:
        gap = round(float(rows.loc[method, "lc_win_rate"] - other["lc_win_rate"]), 2)
        items.append(Item(names.method(method), Estimate(gap, 0.0)))
        notes.append(abs(gap) / math.hypot(rows.loc[method, "standard_error"], other["standard_error"]))
    bound = None if errors is None else errors * float(other["standard_error"])
    wanted = condition(arguments) if bound is None else Condition(-bound, bound)
    shown = ", ".join(f"{note:.1f}" for note in notes)
    return Check(tuple(items), wanted, note=f"{shown} standard errors of a difference (of two independent rates)")


def theory(arguments: Arguments, record: Mapping[str, Any] | None) -> tuple[Verdict, str, str]:
    """Verdict, what was found and a note, from the theory ledger: it must hold, if under a condition it is noted."""
    if record is None:
        raise NotThere("needs the theory ledger: actshift analyze theory")
    statements = {each["name"]: each for each in record["statements"]}
    missing = [name for name in arguments["statements"] if name not in statements]
    if missing:
        raise NotThere(f"needs a theory ledger with {', '.join(missing)}: actshift analyze theory")
    chosen = [statements[name] for name in arguments["statements"]]
    found = "; ".join(f"{each['name']}: {each['verdict']}" for each in chosen)
    notes = {f"if {each['condition']}" for each in chosen if each["condition"]}
    notes |= {f"instead: {each['corrected']}" for each in chosen if each["corrected"]}
    fails = any(each["verdict"] == "does not hold as printed" for each in chosen)
    return Verdict.FAILS if fails else Verdict.HOLDS, found, "; ".join(sorted(notes))


def analysis(arguments: Arguments, frame: pd.DataFrame) -> Check:
    """A column of an analysis' frame, layer by layer, in the `rows` that have these values."""
    rows = arguments.get("rows", {})
    if not {*rows, arguments["column"], "layer"} <= set(frame.columns):
        raise NotThere(f"needs an analysis with the columns {', '.join([*rows, arguments['column'], 'layer'])}")
    for column, value in rows.items():
        frame = frame[frame[column] == value]
    values = frame.groupby("layer")[arguments["column"]].mean().dropna()
    if values.empty:
        raise NotThere(f"needs an analysis with {' '.join(map(str, rows.values()))} in {arguments['column']}")
    items = tuple(Item(f"layer {layer}", Estimate(float(value), 0.0)) for layer, value in values.items())
    return Check(items, condition(arguments), arguments["quantifier"])
