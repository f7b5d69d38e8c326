"""The beginning of the page: of each table what was run, what it says, what is missing, and warnings by kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from actshift.planning.manifests import Manifest
from actshift.planning.selection import Selection
from actshift.report import names
from actshift.report.evidence import SIGNIFICANT
from actshift.store.records import Record


@dataclass(frozen=True)
class Summary:
    """What a reader should know of a table before its numbers, in sentences."""

    ran: str
    says: tuple[str, ...]
    missing: str
    """Empty where nothing is missing."""


@dataclass(frozen=True)
class Warnings:
    """All warnings of one kind: what they mean, and the cells (and what is special about each) that have it."""

    kind: str
    places: tuple[str, ...]


def summary(cells: pd.DataFrame, manifest: Manifest) -> Summary:
    """The summary of a table from the frame that the table itself is made of."""
    shown = cells[cells["status"].ne("excluded")]
    runs, planned = int(shown["n_finished"].sum()), int(shown["n_planned"].sum())
    unfinished = int((shown["n_finished"] < shown["n_planned"]).sum())
    axes = (("model", shown["model"]), ("method", shown["method"]), ("data set", shown["dataset"]))
    counts = ", ".join(_counted(values.nunique(), word) for word, values in axes)
    left = f"{planned - runs} of {planned} test runs, in {_counted(unfinished, 'cell')}" if unfinished else ""
    ran = f"{runs} of {planned} test runs: {counts}, seeds {_seeds(shown)}"
    return Summary(ran, tuple(_sayings(shown, manifest)), left)


def _sayings(cells: pd.DataFrame, manifest: Manifest) -> Iterator[str]:
    """A sentence a model: its best methods, and how many cells differ from the reference beyond chance."""
    reference = names.method(manifest.reference)
    for model, group in cells.groupby("model", sort=False):
        done = group.groupby("method", sort=False).filter(lambda rows: rows["status"].eq("done").all())
        if done.empty:
            yield f"{names.model(str(model))}: no method has finished all data sets yet."
            continue
        means = done.groupby("method", sort=False)["mean"].mean().sort_values(ascending=False, kind="stable")
        best = f"{names.method(str(means.index[0]))} has the highest mean, {means.iloc[0]:.1f}%"
        second = f", before {names.method(str(means.index[1]))} with {means.iloc[1]:.1f}%" if len(means) > 1 else ""
        yield f"{names.model(str(model))}: {best}{second}. {_differences(done, reference)}"


def _differences(cells: pd.DataFrame, reference: str) -> str:
    tested = cells[cells["p_holm"].notna()]
    if tested.empty:
        return "No difference could be tested."
    beyond = tested[tested["p_holm"] < SIGNIFICANT]
    above, below = int((beyond["delta"] > 0).sum()), int((beyond["delta"] < 0).sum())
    rest = len(tested) - above - below
    return (
        f"Against {reference}, of {_counted(len(tested), 'cell')} {above} are above and {below} below beyond chance "
        f"(Holm's p < {SIGNIFICANT:g}); {rest} cannot be told apart."
    )


def warnings_by_kind(selection: Selection | None, records: Iterable[Record]) -> list[Warnings]:
    """What a reader must know about choices and final runs: each kind once, with the cells that have it."""
    choices = selection.choices if selection else ()
    final = [f"{r.cell}, seed {r.seed}" for r in records if r.metrics["diverged"]]
    kinds = {
        "The chosen rate is at an edge of its grid; the best may lie beyond": [
            f"{choice.cell} ({choice.edge})" for choice in choices if choice.edge
        ],
        "Several candidates share the best validation accuracy": [
            f"{choice.cell} ({', '.join(choice.tie)})" for choice in choices if choice.tie
        ],
        "Runs diverged on validation": [
            f"{choice.cell} ({', '.join(choice.diverged)})" for choice in choices if choice.diverged
        ],
        "The rate was chosen with runs missing": [str(choice.cell) for choice in choices if choice.incomplete],
        "The final run diverged": final,
    }
    return [Warnings(kind, tuple(places)) for kind, places in kinds.items() if places]


def _seeds(cells: pd.DataFrame) -> str:
    found = sorted({seed for seeds in cells["seeds"] for seed in seeds})
    return ", ".join(map(str, found)) or "none yet"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
