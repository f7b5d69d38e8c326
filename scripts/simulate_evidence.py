"""How often the test behind a table's bold cells rejects: under a true null hypothesis, and under differences.

    python scripts/simulate_evidence.py --out docs/evidence_simulation.md

A table has columns (data sets), each with a reference and three other methods. Each row of a data set has a difficulty;
each method moves it at random, with mean zero under the null hypothesis; each run moves all rows of its method at once
(the seed deviation, in percent points of accuracy); each answer is then drawn. The test is the project's own
(`actshift.report.statistics`), seed variance pooled over a column, Holm over all differences of the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actshift.files import write_file
from actshift.report.markdown_text import table
from actshift.report.statistics import holm, paired_difference, seed_variance

ROWS = (100, 254, 1172, 3270)
DEVIATIONS = (0.0, 1.0, 2.0, 3.0)
DESIGNS = ((5, 1), (2, 2), (3, 3), (5, 5))
ACCURACIES = (0.6, 0.9)
COLUMNS, METHODS = 8, 3


@dataclass(frozen=True)
class Case:
    """A design: rows of a split, seed deviation and gap in points, runs of a method and of the reference, accuracy."""

    rows: int
    deviation: float
    runs: int
    reference_runs: int
    accuracy: float
    gap: float = 0.0


def draw_column(case: Case, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """The answers of the reference and of the other methods, each (runs, rows)."""
    easy_R = rng.beta(2 * case.accuracy, 2 * (1 - case.accuracy), size=case.rows)
    found = []
    for method in range(1 + METHODS):
        runs = case.runs if method else case.reference_runs
        moved_R = easy_R + rng.uniform(-0.15, 0.15, size=case.rows) - (case.gap / 100 if method else 0.0)
        whole_N1 = rng.normal(0.0, case.deviation / 100, size=(runs, 1))
        found.append(rng.random((runs, case.rows)) < moved_R + whole_N1)
    return found


def p_values(case: Case, rng: np.random.Generator) -> list[float]:
    """The p values of one table's differences."""
    found = []
    for _ in range(COLUMNS):
        reference, *others = draw_column(case, rng)
        seeds = seed_variance([list(runs) for runs in (reference, *others)])
        assert seeds is not None
        found += [paired_difference(list(runs), list(reference), seeds=seeds).p for runs in others]
    return found


def rates(case: Case, *, tables: int, seed: int) -> tuple[float, float, float]:
    """Shares in percent: cells below 5%, tables with a bold cell, and cells that are bold after Holm."""
    rng = np.random.default_rng([seed, case.rows, round(10 * case.deviation), case.runs, case.reference_runs])
    cells = bold = tables_with = 0
    for _ in range(tables):
        found = p_values(case, rng)
        adjusted = holm({str(place): p for place, p in enumerate(found)})
        below = sum(p < 0.05 for p in adjusted.values())
        cells, bold, tables_with = cells + sum(p < 0.05 for p in found), bold + below, tables_with + (below > 0)
    differences = tables * COLUMNS * METHODS
    return 100 * cells / differences, 100 * tables_with / tables, 100 * bold / differences


def null_rows(*, tables: int, seed: int) -> Iterator[tuple[str, ...]]:
    for rows, (runs, reference), accuracy in product(ROWS, DESIGNS, ACCURACIES):
        cells = [rates(Case(rows, each, runs, reference, accuracy), tables=tables, seed=seed) for each in DEVIATIONS]
        numbers = [f"{cell:.1f} / {whole:.1f}" for cell, whole, _ in cells]
        yield f"{rows:,}", f"{runs} against {reference}", f"{100 * accuracy:.0f}", *numbers


def power_rows(*, tables: int, seed: int) -> Iterator[tuple[str, ...]]:
    for rows, (runs, reference) in product(ROWS, DESIGNS):
        cases = [Case(rows, 1.0, runs, reference, 0.75, gap) for gap in (2.0, 5.0, 10.0, 40.0)]
        numbers = [f"{rates(case, tables=tables, seed=seed)[2]:.0f}" for case in cases]
        yield f"{rows:,}", f"{runs} against {reference}", *numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    heads = [f"seed deviation {each:g}" for each in DEVIATIONS]
    null = table(("Rows", "Runs", "Accuracy", *heads), null_rows(tables=options.tables, seed=options.seed))
    gaps = [f"gap {gap} points" for gap in (2, 5, 10, 40)]
    power = table(("Rows", "Runs", *gaps), power_rows(tables=max(options.tables // 8, 1), seed=options.seed))
    size = f"{options.tables} tables of {COLUMNS * METHODS} differences, seed {options.seed}"
    text = (
        "# How often the test rejects\n\n"
        f"Written by `python scripts/simulate_evidence.py --out docs/evidence_simulation.md` ({size}).\n\n"
        "## No method differs\n\nPercent of cells with p < 0.05 / percent of tables with a bold cell.\n\n"
        f"{null}\n\n## Methods differ\n\nPercent of cells that are bold after Holm, at an accuracy of 75% and a seed "
        f"deviation of one point.\n\n{power}\n"
    )
    write_file(options.out, text)


if __name__ == "__main__":
    main()
