"""A sentence of the text as a statement that is computed from the tables, and the tables in the shape that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.finding import Severity

OURS_TINY = ["post_block_vector", "post_block_r1"]
OTHERS_TINY = ["lofit", "jola"]


@dataclass(frozen=True)
class Claim:
    """One statement of the text: whether the tables bear it out in its most favourable reading, and what they say."""

    where: str
    text: str
    computed: str
    holds: bool
    size: float = 0.0
    """By how much the tables miss it, in the unit of the claim; 0 where it holds or has no size."""
    note: str = ""
    severity: Severity = Severity.CLAIM
    """What it changes where it does not hold."""


def averages(number: int, *, printed: bool = True) -> Any:
    """Average differences to SFT: rows models, columns methods; as printed, or from the printed accuracies."""
    table = paper.table(number)
    if printed:
        return table.pivot_table(index="model", columns="method", values="avg_delta", sort=False)
    sft = paper.table(1).query("method == 'sft'").set_index(["model", "dataset"])["accuracy"].rename("sft")
    joined = table.join(sft, on=["model", "dataset"])
    joined["delta"] = joined["accuracy"] - joined["sft"]
    return joined.pivot_table(index="model", columns="method", values="delta", sort=False)


def accuracies(number: int) -> Any:
    """Accuracies: rows models and data sets, columns methods."""
    return paper.table(number).pivot_table(index=["model", "dataset"], columns="method", values="accuracy", sort=False)


def by_model(values: Any, *, digits: int = 1) -> str:
    """A figure for each model in a row of text, with signs."""
    return ", ".join(f"{names.model(str(model))} {value:+.{digits}f}" for model, value in values.items())


def cell(key: Any) -> str:
    """A model and a data set in text."""
    model, dataset = key
    return f"{names.model(str(model))}, {names.dataset(str(dataset))}"
