"""Standard deviations that two tables print for the same runs, and those of runs that have none (Tables 11 to 13)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.finding import Finding, Severity, place, readings, unit


def as_printed() -> pd.DataFrame:
    """The deviations, `printed` their text: `table`, `model`, `method` (our name), `label`, `dataset`."""
    frame = paper.as_printed("deviations")
    return frame.assign(label=frame["method"], method=frame["method"].map(paper.METHODS))


def deviations() -> Iterator[Finding]:
    """Two figures for the deviation of the same runs, where the finer one does not give the coarser.

    The tables round: where a pair fits when it is cut and other pairs only when they are rounded, it is a slip of
    rounding; where neither fits, one of the two figures is another run's or a typing error.
    """
    both: Any = pairs()
    for row in both.itertuples():
        if "rounded" not in row.ways:
            yield Finding(
                "deviation",
                f"Tables {row.coarse_table} and {row.fine_table}, {names.model(row.model)}, {row.label}, "
                f"{names.dataset(row.dataset)}",
                row.coarse,
                f"{row.fine} in Table {row.fine_table}",
                float(Decimal(row.coarse) - Decimal(row.fine)),
                Severity.ROUNDING if row.ways else Severity.NUMBER,
                "cut, where its neighbours are rounded" if row.ways else "neither rounded nor cut: two figures of one",
            )
    yield from _of_single_runs()


def pairs() -> pd.DataFrame:
    """Every deviation that two tables print: `coarse` and `fine` as text, their tables, and `ways` (see `readings`)."""
    frame = as_printed()
    both = frame.merge(frame, on=["model", "method", "dataset"], suffixes=("", "_other"))
    both = both[both["table"] < both["table_other"]]
    rows = []
    row: Any
    for row in both.itertuples():
        one, other = (row.printed, row.table), (row.printed_other, row.table_other)
        (fine, fine_table), (coarse, coarse_table) = sorted((one, other), key=lambda each: unit(each[0]))
        ways = readings(Decimal(fine), coarse)
        rows.append((row.model, row.label, row.dataset, coarse, coarse_table, fine, fine_table, ways))
    columns = ["model", "label", "dataset", "coarse", "coarse_table", "fine", "fine_table", "ways"]
    return pd.DataFrame(rows, columns=columns)


def _of_single_runs() -> Iterator[Finding]:
    """SFT is one run (Appendix F.3: "not applicable"), and the tables print a deviation for it all the same."""
    single = as_printed().query("method == 'sft'")
    for (table, label), rows in single.groupby(["table", "label"], sort=False):
        text = f"{label} is a single run (Appendix F.3), which has no deviation"
        figures = f"{len(rows)} deviations of {', '.join(sorted(set(rows['printed'])))}"
        note = "the text says: not applicable; 0.0 is what five equal runs have"
        yield Finding("deviation", f"Table {table}, {label}", figures, text, 0.0, Severity.TYPO, note)


def constants(answers: dict[str, dict[str, dict[str, int]]]) -> Iterator[Finding]:
    """Cells whose five runs agree exactly (deviation 0.0): whether one answer to every question gives the accuracy.

    `answers` counts, by data set and protocol, how often each answer is right in the test split. It is a finding where
    a constant answer gives the printed accuracy on another test split than the paper's, and on the paper's none does.
    """
    table: Any = pd.concat([paper.table(1), paper.table(2)]).set_index(["model", "method", "dataset"])
    still: Any = as_printed().query("method != 'sft' and printed == '0.0'")
    for row in still.itertuples():
        accuracy = f"{table.loc[(row.model, row.method, row.dataset), 'accuracy']:.1f}"
        shares = {
            protocol: {answer: (count, sum(counts.values())) for answer, count in counts.items()}
            for protocol, counts in answers.get(str(row.dataset), {}).items()
        }
        fits = {protocol: _fits(kinds, accuracy) for protocol, kinds in shares.items()}
        if fits.get("released") and not fits.get("paper"):
            count, rows = fits["released"][0]
            others = " or ".join(f"{100 * k / n:.2f}% ({k} of {n})" for k, n in shares["paper"].values())
            yield Finding(
                "test set",
                place(f"1 and Table {row.table}", row.model, row.label, row.dataset),
                f"{accuracy} with deviation {row.printed}",
                f"one answer always: {count} of {rows} = {100 * count / rows:.2f}% on the released code's half, and "
                f"{others} on the whole split",
                0.0,
                Severity.CLAIM,
                "as if all five runs gave one answer to every row of the released code's half",
            )


def _fits(kinds: dict[str, tuple[int, int]], accuracy: str) -> list[tuple[int, int]]:
    return [(k, n) for k, n in kinds.values() if "rounded" in readings(Decimal(100 * k) / n, accuracy)]
