"""Figures that recur: the same runs printed twice with two values, and rows of other runs that are the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.finding import Finding, Severity, place

ENOUGH = 3
"""How many data sets two rows must share: two equal figures of two digits are no rare coincidence among so many."""

KINDS = {"accuracy": (1, 2, 4), "std": (11, 12, 13), "lr": (8, 9, 10)}
"""What the tables hold, by the column that holds it."""


def repeats() -> Iterator[Finding]:
    """Runs that two tables print with two accuracies, and rows of two methods that are equal throughout."""
    yield from _two_accuracies()
    for column, numbers in KINDS.items():
        yield from _equal_rows(column, numbers)


def _two_accuracies() -> Iterator[Finding]:
    """Accuracies of Table 4 that Table 1 prints too (SFT and LoRA r=8 are the same runs)."""
    first = paper.table(1).set_index(["model", "method", "dataset"])["accuracy"]
    for _, row in paper.table(4).iterrows():
        key = (row["model"], row["method"], row["dataset"])
        if key in first.index and first[key] != row["accuracy"]:
            sft = first[row["model"], "sft", row["dataset"]] == row["accuracy"]
            yield Finding(
                "repeat",
                place(4, row["model"], row["label"], row["dataset"]),
                f"{row['accuracy']}",
                f"{first[key]} in Table 1",
                round(row["accuracy"] - first[key], 1),
                Severity.NUMBER,
                f"{row['accuracy']} is SFT's figure" if sft else "which run is meant",
            )


def _equal_rows(column: str, numbers: tuple[int, ...]) -> Iterator[Finding]:
    """Rows of one model and two methods that are equal on every data set they share."""
    rows = pd.concat([paper.table(number).assign(number=number) for number in numbers])
    for model, group in rows.groupby("model", sort=False):
        wide = {
            key: part.set_index("dataset")[column]
            for key, part in group.groupby(["number", "label", "method"], sort=False)
        }
        for one, other in combinations(wide, 2):
            shared = [name for name in wide[one].index if name in wide[other].index]
            same = bool((wide[one][shared] == wide[other][shared]).all() and (wide[one][shared] > 0).all())
            if one[2] != other[2] and len(shared) >= ENOUGH and same:
                where = f"Table {one[0]} {one[1]} and Table {other[0]} {other[1]}, {names.model(str(model))}"
                figures = ", ".join(f"{value:g}" for value in wide[one][shared])
                text = f"{len(shared)} of {len(shared)} figures are equal: {', '.join(map(names.dataset, shared))}"
                note = "one of the two rows is the other's"
                yield Finding("repeat", where, figures, text, 0.0, Severity.NUMBER, note)
