"""What a finding is, and how a printed figure is read: to how many digits, and whether a number rounds to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from enum import StrEnum

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names

HALF = 0.05 + 1e-9
"""Half a unit of the last printed digit of an accuracy: what rounding alone may explain, in percent points."""
TWO_HALVES = 2 * HALF
"""The most by which a difference of two rounded accuracies may miss the rounded difference of the two."""


class Severity(StrEnum):
    """What a finding changes for a reader, from nothing to a sentence of the text."""

    TYPO = "typo"
    ROUNDING = "rounding"
    NUMBER = "changes a number"
    CLAIM = "changes a claim"


@dataclass(frozen=True)
class Finding:
    """One place where the paper's numbers do not agree. `size` is printed less computed, in the unit of the place."""

    check: str
    where: str
    printed: str
    arithmetic: str
    size: float
    severity: Severity
    note: str = ""
    """What follows from it, or where it may come from; empty where nothing does."""


def unit(text: str) -> Decimal:
    """One unit of the last printed digit: 0.01 for "8.0e-1" and "4.86", 10 for "9,430" (zeros at its end filled up).

    A whole number that ends on zeros is taken as rounded to the last digit that is none: "2,000" is 2 thousand.
    """
    number = Decimal(text.replace(",", ""))
    if "." not in text and "e" not in text:
        number = number.normalize()
    return Decimal(1).scaleb(int(number.as_tuple().exponent))


def readings(value: Decimal, text: str) -> set[str]:
    """How a number may have become the printed figure: "rounded" (half up or half even), "cut", both or neither.

    Above 0 a cut figure is the largest on its grid that is not above the value.
    """
    step, printed = unit(text), Decimal(text.replace(",", ""))
    found = set()
    if abs(value - printed) <= step / 2:
        found.add("rounded")
    if (value / step).to_integral_value(ROUND_FLOOR) * step == printed:
        found.add("cut")
    return found


def rounded(value: Decimal, step: Decimal) -> Decimal:
    """A number rounded half up to a multiple of `step`."""
    return (value / step).to_integral_value(ROUND_HALF_UP) * step


def place(table: int | str, model: str, label: str, dataset: str = "") -> str:
    """Where a number stands, as every finding says it."""
    parts = [f"Table {table}", names.model(model), label, *([names.dataset(dataset)] if dataset else [])]
    return ", ".join(parts)


def with_sft(number: int) -> pd.DataFrame:
    """A table's rows without SFT, beside `sft`: its accuracy on the same model and data set, which Table 1 prints."""
    sft = paper.table(1).query("method == 'sft'").set_index(["model", "dataset"])["accuracy"].rename("sft")
    return paper.table(number).query("method != 'sft'").join(sft, on=["model", "dataset"])


def listed(values: Sequence[object]) -> str:
    """Values in a row of text: "a, b and c"."""
    texts = [str(value) for value in values]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
