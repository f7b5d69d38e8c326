"""Printed sizes of splits (Table 6: train, test, validation) against the data sets on the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import combinations

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.finding import Finding, Severity, readings

UNLABELLED = {"winogrande": {"test": 1767}}
"""Splits of the hub whose answers are empty, with their rows: no config reads them."""

STANDS_FOR = {"boolq": {"test": "validation"}}
"""BoolQ has no test split on the hub: by Appendix F.1 its second split is the test set."""


def sizes(rows: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Sizes that are not the hub's, nor those rounded to the printed zeros; `rows` by data set and hub split.

    A size that is the sum of two splits is named. A printed test split without answers can score nothing.
    """
    for row in paper.as_printed("sizes").to_dict("records"):
        dataset = row["dataset"]
        there = {**rows.get(dataset, {}), **UNLABELLED.get(dataset, {})} if dataset in rows else {}
        for split in ("train", "test", "validation"):
            actual = there.get(STANDS_FOR.get(dataset, {}).get(split, split))
            if actual is None or not row[split]:
                continue
            if not readings(Decimal(actual), row[split]) & {"rounded"}:
                yield _wrong(dataset, split, row[split], there)
            if split in UNLABELLED.get(dataset, {}):
                where = f"Table 6, {names.dataset(dataset)}, {split}"
                note = 'an accuracy on the "default test split" of Appendix F.1 cannot be had'
                text = f"{actual:,} rows on the hub, none of them with an answer"
                yield Finding("test set", where, row[split], text, 0.0, Severity.CLAIM, note)


def _wrong(dataset: str, split: str, printed: str, there: Mapping[str, int]) -> Finding:
    sums = [
        f"{there[one]:,} ({one}) + {there[other]:,} ({other}) = {there[one] + there[other]:,}"
        for one, other in combinations(there, 2)
        if "rounded" in readings(Decimal(there[one] + there[other]), printed)
    ]
    alike = [name for name, count in there.items() if "rounded" in readings(Decimal(count), printed)]
    notes = [f"the sum of two splits: {text}" for text in sums] + [f"the size of its {name} split" for name in alike]
    size = int(printed.replace(",", "")) - there[split]
    where = f"Table 6, {names.dataset(dataset)}, {split}"
    return Finding("size", where, printed, f"{there[split]:,} on the hub", size, Severity.NUMBER, "; ".join(notes))
