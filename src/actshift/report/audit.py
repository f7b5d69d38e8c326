"""The paper's printed numbers held against themselves, and against what can be computed without a run.

A finding is a place where what is printed does not follow from what is printed elsewhere, or from the models and data
sets. The printed numbers are never corrected: tables compare with them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.markdown_text import table as markdown_table
from actshift.report.paper_claims import claims

STEP = 0.05 + 1e-9
"""Half a unit of the last printed digit of an accuracy: what rounding alone may explain, in percent points."""
COLUMNS = ("where", "printed", "recomputed", "size", "changes")


@dataclass(frozen=True)
class Finding:
    """One place where the paper's numbers do not agree. `size` is printed less recomputed, in the unit of the place."""

    check: str
    where: str
    printed: str
    recomputed: str
    size: float
    conclusion: str
    """What it changes for a reader: empty where nothing follows from it."""


def audit(*, shares: pd.DataFrame | None = None, rows: Mapping[str, Mapping[str, int]] | None = None) -> list[Finding]:
    """Every finding, by check and in the order of the paper.

    `shares` is the frame of `actshift params` (computed shares of parameters), `rows` the row counts of the real data
    sets by hub split; a check whose input is absent is left out.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [differences, averages, rates, deviations, joint_sft, claims_found]
    found = [finding for check in checks for finding in check()]
    if shares is not None:
        found += share_findings(shares)
    if rows is not None:
        found += size_findings(rows)
    return found


def differences() -> Iterator[Finding]:
    """Printed differences to SFT against the printed accuracies, to one decimal (Tables 1 and 2)."""
    for number, row in _compared():
        computed = round(row["accuracy"] - row["sft"], 1)
        if abs(row["delta_vs_sft"] - computed) > STEP:
            sign = (row["delta_vs_sft"] > 0) != (computed > 0)
            yield Finding(
                "difference",
                _where(number, row),
                f"{row['delta_vs_sft']:+.1f}",
                f"{row['accuracy']} - {row['sft']} = {computed:+.1f}",
                round(row["delta_vs_sft"] - computed, 1),
                "the sign of the difference" if sign and computed else "",
            )


def averages() -> Iterator[Finding]:
    """Printed average differences against the mean of the differences of the printed accuracies (Tables 1 and 2).

    A mean of six one-decimal differences is exact to rounding of its own: only more than half a unit counts.
    """
    for number in (1, 2):
        groups: Any = _with_sft(number).groupby(["model", "label"], sort=False)
        means = {
            key: ((group["accuracy"] - group["sft"]).mean(), group["delta_vs_sft"].mean(), group["avg_delta"].iloc[0])
            for key, group in groups
        }
        for (model, label), (computed, from_printed, printed) in means.items():
            if abs(printed - computed) <= STEP:
                continue
            rank = {key: _rank(means, key, place) for key, place in (("printed", 2), ("computed", 0))}
            order = rank["printed"][model] != rank["computed"][model]
            yield Finding(
                "average",
                f"Table {number}, {names.model(model)}, {label}",
                f"{printed:+.1f}",
                f"{computed:+.2f} from accuracies, {from_printed:+.2f} from printed differences",
                round(printed - computed, 2),
                "the order of the model's methods" if order else "",
            )


def rates() -> Iterator[Finding]:
    """Chosen learning rates (Tables 8 to 10) against the printed grids (Appendix F.2)."""
    grids = paper.learning_rate_grids().groupby(["scale", "family"])["lr"].agg(list)
    for number in (8, 9, 10):
        for _, row in paper.table(number).iterrows():
            scale = row["model"].rsplit("-", 1)[-1]
            family = {8: "steering_r8", 9: "steering_r1_vector", 10: "joint"}[number]
            grid = grids.get((scale, family))
            where = f"Table {number}, {names.model(row['model'])}, {row['label']}, {names.dataset(row['dataset'])}"
            if grid is None:
                yield Finding("rate", where, f"{row['lr']:g}", "no grid is printed for this size", 0.0, "")
            elif row["lr"] not in grid:
                shown = ", ".join(f"{lr:g}" for lr in grid)
                nearest = min(grid, key=lambda lr, chosen=row["lr"]: abs(lr - chosen))  # type: ignore[misc]
                size = float(f"{row['lr'] - nearest:.3g}")
                yield Finding("rate", where, f"{row['lr']:g}", f"not in the grid {shown}", size, "what was searched")


def deviations() -> Iterator[Finding]:
    """Standard deviations that two tables print for the same method and data set, or that repeat between methods.

    The same runs stand in Tables 11 and 13 (LoRA), so these must agree; a figure that recurs exactly where the runs
    differ is worth a look and no more.
    """
    tables = {number: paper.table(number) for number in (11, 12, 13)}
    for first, second in ((11, 12), (11, 13), (12, 13)):
        both = tables[first].merge(tables[second], on=["model", "method", "dataset"], suffixes=("", "_other"))
        for _, row in both[~both.apply(_same_figure, axis=1)].iterrows():
            where = f"Tables {first} and {second}, {names.model(row['model'])}, {row['label']}"
            yield Finding(
                "deviation",
                f"{where}, {names.dataset(row['dataset'])}",
                f"{row['std']:g}",
                f"{row['std_other']:g} in Table {second}",
                round(row["std"] - row["std_other"], 3),
                "the same runs have two deviations",
            )
    yield from _repeated(tables)


def _same_figure(row: pd.Series) -> bool:
    """Whether two printed deviations are one figure, rounded to the digits that the coarser one prints."""
    digits = min(len(f"{value:g}".partition(".")[2]) for value in (row["std"], row["std_other"]))
    return bool(round(row["std"], digits) == round(row["std_other"], digits))


def _repeated(tables: Mapping[int, pd.DataFrame]) -> Iterator[Finding]:
    """Two methods of a model whose deviations are the same on every data set that both have (three at least)."""
    rows = pd.concat([table.assign(number=number) for number, table in tables.items()])
    for model, group in rows.groupby("model", sort=False):
        wide = {key: part.set_index("dataset")["std"] for key, part in group.groupby(["number", "label"], sort=False)}
        keys = list(wide)
        for place, one in enumerate(keys):
            for other in keys[place + 1 :]:
                shared = wide[one].index.intersection(wide[other].index)
                same = (wide[one][shared] == wide[other][shared]) & (wide[one][shared] > 0)
                methods = {part[1] for part in (one, other)}
                if len(methods) > 1 and len(shared) >= 3 and same.all():
                    where = f"Table {one[0]} {one[1]} and Table {other[0]} {other[1]}, {names.model(str(model))}"
                    figures = ", ".join(f"{value:g}" for value in wide[one][shared])
                    yield Finding("deviation", where, figures, "the same figures for another method", 0.0, "the spread")


def joint_sft() -> Iterator[Finding]:
    """Accuracies that Table 4 prints again against Table 1 (SFT and LoRA r=8 are the same runs)."""
    first = paper.table(1).set_index(["model", "method", "dataset"])["accuracy"]
    for _, row in paper.table(4).iterrows():
        key = (row["model"], row["method"], row["dataset"])
        if key in first.index and first[key] != row["accuracy"]:
            where = f"Table 4, {names.model(row['model'])}, {row['label']}, {names.dataset(row['dataset'])}"
            size = round(row["accuracy"] - first[key], 1)
            yield Finding("repeat", where, f"{row['accuracy']}", f"{first[key]} in Table 1", size, "which run is meant")


def claims_found() -> Iterator[Finding]:
    """Claims of the text against the tables."""
    for claim in claims():
        if not claim.holds:
            yield Finding("claim", claim.where, claim.text, claim.computed, claim.size, "the claim itself")


def share_findings(shares: pd.DataFrame) -> Iterator[Finding]:
    """Printed shares of trainable parameters against those of the modules (Tables 1 to 4)."""
    for _, row in shares[shares["agrees"].eq(False)].iterrows():
        yield Finding(
            "share",
            f"Table {row['paper_table']}, {names.model(row['model'])}, {names.method(row['method'])}",
            f"{row['paper_pct']:g}%",
            f"{row['share_pct']:.4f}%",
            round(row["paper_pct"] - row["share_pct"], 4),
            "",
        )


PRINTED_ROWS = {
    "winogrande": {"train": 9250, "validation": 1770, "test": 1270},
    "arc_challenge": {"train": 1120, "validation": 1170, "test": 299},
    "aqua": {"train": 97467, "validation": 254, "test": 254},
    "listops": {"train": 96000, "validation": 2000, "test": 2000},
}
"""Sizes of the splits as Appendix F prints them."""


UNREAD_ROWS = {"winogrande": {"test": 1767}}
"""Splits that exist on the hub and that no config reads: Winogrande's test has no labels."""


def size_findings(rows: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Printed sizes of splits against the data sets on the hub; `rows` by data set and hub split."""
    for dataset, printed in PRINTED_ROWS.items():
        there = {**rows.get(dataset, {}), **UNREAD_ROWS.get(dataset, {})} if dataset in rows else {}
        for split, count in printed.items():
            actual = there.get(split)
            if actual is not None and actual != count:
                swapped = [name for name, number in there.items() if name != split and abs(number - count) < 20]
                note = f"; {count:,} is nearly its {swapped[0]} split" if swapped else ""
                yield Finding(
                    "size",
                    f"Appendix F, {names.dataset(dataset)}, {split}",
                    f"{count:,}",
                    f"{actual:,}{note}",
                    count - actual,
                    "which rows were scored" if swapped else "",
                )


def frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """The findings, a row each."""
    return pd.DataFrame([vars(finding) for finding in findings], columns=[field.name for field in fields(Finding)])


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings each check has."""
    total: dict[str, int] = {}
    for finding in findings:
        total[finding.check] = total.get(finding.check, 0) + 1
    return total


def summary(findings: Sequence[Finding]) -> str:
    """How many findings there are, in all and of each check."""
    return f"{len(findings)} findings: " + ", ".join(f"{n} {check}" for check, n in counts(findings).items())


def markdown(findings: Sequence[Finding]) -> str:
    """The findings as a Markdown document, a table a check."""
    lines = ["# The paper's numbers against themselves", ""]
    lines += [summary(findings), ""]
    for check in counts(findings):
        rows = [texts(each) for each in findings if each.check == check]
        lines += [f"## {check}", "", markdown_table(COLUMNS, rows), ""]
    return "\n".join(lines)


def texts(finding: Finding) -> tuple[str, ...]:
    """A finding's texts, one for each of `COLUMNS`."""
    return finding.where, finding.printed, finding.recomputed, f"{finding.size:g}", finding.conclusion


def _with_sft(number: int) -> pd.DataFrame:
    """A table's rows beside the SFT accuracy of the same model and data set, which Table 1 prints for both."""
    sft = paper.table(1).query("method == 'sft'").set_index(["model", "dataset"])["accuracy"].rename("sft")
    return paper.table(number).query("method != 'sft'").join(sft, on=["model", "dataset"])


def _compared() -> Iterator[tuple[int, pd.Series]]:
    for number in (1, 2):
        for _, row in _with_sft(number).iterrows():
            yield number, row


def _where(number: int, row: pd.Series) -> str:
    return f"Table {number}, {names.model(row['model'])}, {row['label']}, {names.dataset(row['dataset'])}"


def _rank(means: Mapping[tuple[str, str], tuple[float, float, float]], key: str, place: int) -> dict[str, list[str]]:
    """Each model's methods from best to worst by one of the means; equal ones by name."""
    by_model: dict[str, list[tuple[float, str]]] = {}
    for (model, label), values in means.items():
        by_model.setdefault(model, []).append((-round(values[place], 1), label))
    return {model: [label for _, label in sorted(pairs)] for model, pairs in by_model.items()}
