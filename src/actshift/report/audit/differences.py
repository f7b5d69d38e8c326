"""Printed differences to SFT, and their printed averages, against the printed accuracies (Tables 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from actshift.report.audit.finding import HALF, TWO_HALVES, Finding, Severity, listed, place, with_sft


def differences() -> Iterator[Finding]:
    """Differences that are not those of the printed accuracies, to one decimal.

    Two accuracies that were rounded after the subtraction explain one unit of the last digit and no more. A wrong
    difference implies another accuracy of SFT; where several rows imply the same one, it is named.
    """
    rows = pd.concat([with_sft(number).assign(number=number) for number in (1, 2)])
    rows["computed"] = (rows["accuracy"] - rows["sft"]).round(1)
    rows["implied"] = (rows["accuracy"] - rows["delta_vs_sft"]).round(1)
    wrong: Any = rows[(rows["delta_vs_sft"] - rows["computed"]).abs() > HALF]
    for _, row in wrong.iterrows():
        size = round(row["delta_vs_sft"] - row["computed"], 1)
        yield Finding(
            "difference",
            place(row["number"], row["model"], row["label"], row["dataset"]),
            f"{row['delta_vs_sft']:+.1f}",
            f"{row['accuracy']} - {row['sft']} = {row['computed']:+.1f}",
            size,
            Severity.ROUNDING if abs(size) <= TWO_HALVES else Severity.NUMBER,
            "; ".join([*_sign(row), _implied(row, wrong)]),
        )


def _sign(row: pd.Series) -> list[str]:
    other = row["delta_vs_sft"] * row["computed"] < 0
    return ["the sign of the difference is another"] if other else []


def _implied(row: pd.Series, wrong: pd.DataFrame) -> str:
    """The accuracy of SFT that a wrong difference implies, and which other wrong differences imply it."""
    beside = wrong[wrong[["model", "dataset", "implied"]].eq(row[["model", "dataset", "implied"]]).all(axis=1)]
    others = [label for label in beside["label"] if label != row["label"]]
    return f"implies {row['implied']} for SFT" + (f", as {listed(others)} {_do(others)}" if others else "")


def _do(labels: list[str]) -> str:
    return "does" if len(labels) == 1 else "do"


def averages() -> Iterator[Finding]:
    """Average differences that are not the mean of the differences of the printed accuracies.

    A mean of six one-decimal differences is exact to rounding of its own: only more than half a unit counts. Where the
    printed differences have the printed mean, the average was made of the wrong ones among them.
    """
    for number in (1, 2):
        groups: Any = with_sft(number).groupby(["model", "label"], sort=False)
        means = {
            key: ((group["accuracy"] - group["sft"]).mean(), group["delta_vs_sft"].mean(), group["avg_delta"].iloc[0])
            for key, group in groups
        }
        for (model, label), values in means.items():
            if abs(values[2] - values[0]) > HALF:
                yield _average(place(number, model, label), values, order=_order_changes(means, model))


def _average(where: str, values: tuple[float, float, float], *, order: bool) -> Finding:
    computed, of_printed, printed = values
    size = round(printed - computed, 2)
    inherited = abs(printed - of_printed) <= HALF
    notes = ["made of wrong differences"] if inherited else ["nor the mean of the printed differences"]
    notes += ["the order of the model's methods is another"] if order else []
    severity = Severity.CLAIM if order else Severity.NUMBER if inherited else Severity.ROUNDING
    if not inherited and abs(size) > TWO_HALVES + HALF:
        severity = Severity.NUMBER
    arithmetic = f"{computed:+.2f} from the accuracies, {of_printed:+.2f} from the printed differences"
    return Finding("average", where, f"{printed:+.1f}", arithmetic, size, severity, "; ".join(notes))


def _order_changes(means: Mapping[tuple[str, str], tuple[float, float, float]], model: str) -> bool:
    """Whether a model's methods stand in another order by the printed averages; equal ones by name."""
    of_model = {label: values for (name, label), values in means.items() if name == model}
    orders = [sorted(of_model, key=lambda label: (-round(of_model[label][at], 1), label)) for at in (0, 2)]
    return orders[0] != orders[1]
