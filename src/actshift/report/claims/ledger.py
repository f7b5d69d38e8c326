"""The claims ledger: every claim of the paper with a verdict on its printed numbers, and one on each of our sweeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.paper.claims import Claim, claims
from actshift.paper.printed import table_number
from actshift.report import names
from actshift.report.claims import elsewhere
from actshift.report.claims.accuracies import Accuracies, Measured, OverSeeds, Printed
from actshift.report.claims.estimates import Check, Item, NotThere, Verdict
from actshift.report.claims.rules import RULES, models_of

if TYPE_CHECKING:
    from actshift.planning.manifests import Manifest
    from actshift.store.records import Record

PAPER = "paper"
SEEDS = "paper, by Tables 11-13"
TABLES = {str(number): number for number in names.DEVIATIONS}
"""The tables of accuracies that the paper prints, by the name that a claim has for each."""
ON_DIFFERENCES = ("average", "cells", "largest", "pronounced", "deviations")
"""The rules that compare what has a deviation over seeds."""
SHOWN = 6
"""How many items an estimate names; of more it gives counts and the range."""


@dataclass(frozen=True)
class Judgment:
    """The verdict on a claim from one body of numbers: `evidence` is PAPER, SEEDS, a sweep, or an analysis of a model.

    `estimate` is what was compared, with 95% intervals where runs stand behind it; `note` what an open verdict needs or
    what else the numbers show; `runs` the identities of the runs, of which there are none behind printed numbers.
    """

    claim: Claim
    evidence: str
    verdict: Verdict
    estimate: str
    note: str = ""
    runs: tuple[str, ...] = ()


def printed(theory: Mapping[str, Any] | None = None) -> list[Judgment]:
    """One judgment a claim, on the printed numbers; on statements of the theory from the record of their ledger."""
    tables = {name: Printed(number) for name, number in TABLES.items()}
    return [_on_paper(claim, tables, theory) for claim in claims()]


def over_seeds() -> list[Judgment]:
    """One judgment a claim about accuracies of Tables 1, 2 and 4, with the deviations of Tables 11 to 13."""
    found = []
    for claim in claims():
        if claim.rule in ON_DIFFERENCES and claim.table in TABLES:
            table = OverSeeds(TABLES[claim.table])
            check = RULES[claim.rule](table, claim.arguments)
            note = "; ".join(filter(None, (check.note, table.note)))
            found.append(Judgment(claim, SEEDS, check.verdict(), _shown(check), note))
    return found


def _on_paper(claim: Claim, tables: Mapping[str, Accuracies], theory: Mapping[str, Any] | None) -> Judgment:
    try:
        if claim.rule == "theory":
            verdict, found, note = elsewhere.theory(claim.arguments, theory)
            return Judgment(claim, PAPER, verdict, found, note)
        if claim.rule == "win_rates":
            return _judged(claim, PAPER, elsewhere.win_rates(claim.arguments))
        if claim.rule == "analysis":
            raise NotThere(f"Figure {claim.arguments['figure']} is a picture: the paper prints no numbers of it")
        if claim.table not in tables:
            raise NotThere(
                f"Figure {claim.table.removeprefix('figure')} is a picture: the paper prints no numbers of it"
            )
        return _judged(claim, PAPER, RULES[claim.rule](tables[claim.table], claim.arguments))
    except NotThere as reason:
        return Judgment(claim, PAPER, Verdict.OPEN, "", str(reason))


def measured(cells: pd.DataFrame, manifest: Manifest, records: Iterable[Record]) -> list[Judgment]:
    """One judgment a claim about the table that a sweep repeats, on its finished cells; none before any is."""
    if not cells["n_finished"].gt(0).any():
        return []
    number = table_number(manifest.table)
    names = {manifest.sweep} | ({str(number)} if number else set())
    table = Measured(cells, {record.identity: record for record in records})
    return [_on_sweep(claim, manifest.sweep, table) for claim in claims() if claim.table in names]


def _on_sweep(claim: Claim, sweep: str, table: Accuracies) -> Judgment:
    arguments = claim.arguments
    sides = (arguments.get(name, []) for name in ("methods", "others", "method", "other"))
    methods = [name for side in sides for name in ([side] if isinstance(side, str) else side)]
    try:
        for model in models_of(table, arguments):
            if model not in table.models:
                table.accuracy(model, table.datasets[0], methods[0])  # says which model is not there
        runs = table.runs(models_of(table, arguments), arguments.get("datasets") or table.datasets, methods)
        return _judged(claim, sweep, RULES[claim.rule](table, arguments), runs=runs)
    except NotThere as reason:
        return Judgment(claim, sweep, Verdict.OPEN, "", str(reason))


def analysed(folder: Path) -> list[Judgment]:
    """One judgment a claim and model, of those that an analysis decides, from its files in a folder."""
    found = []
    for claim in claims():
        if claim.rule == "analysis":
            for path in sorted(folder.glob(f"{claim.arguments['analysis']}-*.csv")):
                if "_" not in path.stem:  # NAME-MODEL_PART.csv is another frame of the same analysis
                    found.append(_on_analysis(claim, path))
    return found


def _on_analysis(claim: Claim, path: Path) -> Judgment:
    try:
        return _judged(claim, path.stem, elsewhere.analysis(claim.arguments, pd.read_csv(path)))
    except NotThere as reason:
        return Judgment(claim, path.stem, Verdict.OPEN, "", str(reason))


def _judged(claim: Claim, evidence: str, check: Check, *, runs: Sequence[str] = ()) -> Judgment:
    verdict = check.verdict()
    wanting = check.wanting() if verdict is Verdict.OPEN else ""
    note = "; ".join(filter(None, (wanting, check.note)))
    return Judgment(claim, evidence, verdict, _shown(check), note, tuple(runs))


def _shown(check: Check) -> str:
    """The items with their values and intervals; of many, in how many the condition holds, and their range."""
    count = check.decided().count(Verdict.HOLDS)
    if len(check.items) > SHOWN:
        values = sorted(check.items, key=lambda item: item.estimate.value)
        ends = f"{_value(values[0])} ({values[0].label}) to {_value(values[-1])} ({values[-1].label})"
        return f"in {count} of {len(check.items)}; {ends}"
    counted = f"in {count} of {len(check.items)}: " if check.quantifier == "most" else ""
    return counted + ", ".join(f"{item.label} {_value(item)}" for item in check.items)


def _value(item: Item) -> str:
    estimate = item.estimate
    write: Callable[[float], str] = "{:+.2f}".format if abs(estimate.value) < 1000 else "{:+.0f}".format
    if not estimate.runs:
        return write(estimate.value) if estimate.value < 0 or estimate.half else f"{estimate.value:.3g}"
    return f"{estimate.value:+.1f} [{estimate.value - estimate.half:+.1f}, {estimate.value + estimate.half:+.1f}]"
