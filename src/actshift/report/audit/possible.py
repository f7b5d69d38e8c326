"""Which values runs on so many rows can give: accuracies of one run or five, and the deviation of five.

One run on n rows scores k/n; five of them average to k/5n. Their deviation is 100/n times the root of S/5 or S/4, where
S = sum x^2 - (sum x)^2/5 over five whole numbers x: S takes no value between 0 and 4/5, so that no deviation above 0 is
smaller than 0.4 x 100/n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import combinations_with_replacement
from math import floor
from typing import Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.deviations import as_printed
from actshift.report.audit.finding import Finding, Severity, place, readings, unit

RUNS = 5
SPREAD = 10
"""Five whole numbers are tried up to this far apart; wider intervals of S than 4/5 need no trial."""


@dataclass(frozen=True)
class TestSet:
    """How many of a data set's printed values its test set of one protocol can give."""

    dataset: str
    protocol: str
    rows: int
    single: tuple[int, int]
    """Accuracies of single runs (SFT): possible ones, and all."""
    means: tuple[int, int]
    deviations: tuple[int, int]
    """Those alone that some size of test set can give."""
    chance: float
    """The share of all accuracies from 0.0 to 100.0 that one run on so many rows can give."""

    @property
    def compatible(self) -> bool:
        """Whether every value is possible."""
        return all(can == there for can, there in (self.single, self.means, self.deviations))


def accuracy_possible(text: str, rows: int, *, runs: int = 1) -> bool:
    """Whether the mean of so many runs on so many rows can be printed as `text`, rounded or cut."""
    total = rows * runs
    near = floor(Decimal(text) * total / 100)
    counts = range(max(near - 1 - total // 1000, 0), min(near + 2 + total // 1000, total) + 1)
    return any(readings(Decimal(100 * count) / total, text) for count in counts)


def deviation_possible(text: str, rows: int) -> bool:
    """Whether five runs on so many rows can have the printed deviation: of a sample or of a population, rounded or cut.

    Of their accuracies as they are, or rounded to one decimal first, which puts them on a grid of 1,000.
    """
    printed, step = Decimal(text), unit(text)
    low, high = max(float(printed - step / 2), 0.0), float(printed + step)
    return any(_between(low * grid / 100, high * grid / 100) for grid in (rows, 1000))


def _between(low: float, high: float) -> bool:
    """Whether five whole numbers can have a deviation in an interval. S has no gap wider than 4/5 (see `scatters`)."""
    for divisor in (RUNS, RUNS - 1):
        least, most = divisor * low**2, divisor * high**2
        if most - least > 0.8 or any(least <= s / RUNS <= most for s in scatters()):
            return True
    return False


@cache
def scatters() -> tuple[int, ...]:
    """5 S for five whole numbers that are not far apart, in order: 0, 4, 6, 10, ..."""
    near = ((0, *rest) for rest in combinations_with_replacement(range(SPREAD + 1), RUNS - 1))
    return tuple(sorted({RUNS * sum(x * x for x in each) - sum(each) ** 2 for each in near}))


def smallest_deviation(rows: int) -> float:
    """The smallest deviation above 0 of five runs on so many rows, in percent points (that of a population)."""
    return 100 / rows * (scatters()[1] / RUNS / RUNS) ** 0.5


def impossible(tests: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Values that no run gives on any of the test sets; `tests` has their rows by data set and protocol."""
    single: Any = _values(1).query("method == 'sft'")
    spread: Any = as_printed().query("method != 'sft'")
    for row in single.itertuples():
        sizes = tests.get(str(row.dataset), {})
        if sizes and not any(accuracy_possible(row.text, rows) for rows in sizes.values()):
            where = place(1, row.model, row.label, row.dataset)
            around = "; ".join(_around(row.text, rows) for rows in sorted(set(sizes.values())))
            note = "SFT is one run: its accuracy is a whole number of rows"
            yield Finding("impossible", where, row.text, around, _miss(row.text, sizes), Severity.NUMBER, note)
    for row in spread.itertuples():
        sizes = tests.get(str(row.dataset), {})
        if sizes and not any(deviation_possible(row.printed, rows) for rows in sizes.values()):
            yield _deviation(row, max(sizes.values()))


def _deviation(row: Any, rows: int) -> Finding:
    least, printed = smallest_deviation(rows), Decimal(row.printed)
    points = str(printed.scaleb(2))
    return Finding(
        "impossible",
        place(row.table, row.model, row.label, row.dataset),
        row.printed,
        f"five runs on {rows:,} rows that are not all equal deviate by {least:.4f} at least",
        round(float(printed) - least, 4),
        Severity.NUMBER,
        f"{points} points, if it is a share of one" if deviation_possible(points, rows) else "",
    )


def _around(text: str, rows: int) -> str:
    below = floor(Decimal(text) * rows / 100)
    return ", ".join(f"{count}/{rows} = {100 * count / rows:.2f}" for count in (below, below + 1))


def _miss(text: str, sizes: Mapping[str, int]) -> float:
    near: list[float] = [100 * round(float(text) * rows / 100) / rows for rows in sizes.values()]
    return round(float(text) - min(near, key=lambda value: abs(float(text) - value)), 2)


def test_sets(tests: Mapping[str, Mapping[str, int]]) -> list[TestSet]:
    """For every data set and protocol, how many of the printed values its test set can give."""
    accuracies = pd.concat([_values(number) for number in (1, 2)])
    found = []
    for dataset in accuracies["dataset"].unique():
        of_set = accuracies[accuracies["dataset"] == dataset]
        single = of_set.loc[of_set["method"] == "sft", "text"]
        means = of_set.loc[of_set["method"] != "sft", "text"]
        sizes = tests.get(dataset, {})
        spread = [text for text in _deviations(dataset) if any(deviation_possible(text, n) for n in sizes.values())]
        for protocol, rows in sizes.items():
            found.append(
                TestSet(
                    dataset,
                    protocol,
                    rows,
                    (sum(accuracy_possible(text, rows) for text in single), len(single)),
                    (sum(accuracy_possible(text, rows, runs=RUNS) for text in means), len(means)),
                    (sum(deviation_possible(text, rows) for text in spread), len(spread)),
                    chance(rows),
                )
            )
    return found


@cache
def chance(rows: int) -> float:
    """The share of the accuracies 0.0 to 100.0 that one run on so many rows can give, rounded."""
    return len({floor(1000 * count / rows + 0.5) for count in range(rows + 1)}) / 1001


def verdict(sets: list[TestSet]) -> str:
    """Which test sets of one data set its printed values are compatible with."""
    fit = [f"{each.protocol} ({each.rows:,})" for each in sets if each.compatible]
    return " or ".join(dict.fromkeys(fit)) if fit else "neither"


def _values(number: int) -> pd.DataFrame:
    table = paper.table(number)
    return table.assign(text=table["accuracy"].map("{:.1f}".format))


def _deviations(dataset: str) -> list[str]:
    frame = as_printed()
    return list(frame.loc[(frame["dataset"] == dataset) & (frame["method"] != "sft"), "printed"])


def named(each: TestSet) -> tuple[str, ...]:
    """A row of the table of test sets."""
    parts = (
        f"{can} of {there}" if there else "none printed" for can, there in (each.single, each.means, each.deviations)
    )
    return (names.dataset(each.dataset), each.protocol, f"{each.rows:,}", *parts, f"{100 * each.chance:.0f}%")
