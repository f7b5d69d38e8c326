"""Printed shares of trainable parameters against those of the modules (Tables 1 to 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pandas as pd

from actshift.report import names
from actshift.report.audit.finding import Finding, Severity, readings


def shares(computed: pd.DataFrame) -> Iterator[Finding]:
    """Shares that the modules do not have, under the one way to shorten them (rounded or cut) that fits more shares.

    `computed` is the frame of `actshift params`: `model`, `method`, `share_pct`, and `paper_pct` and `paper_table`
    where the paper prints a share. A share that fits the other way only is a finding of rounding.
    """
    rows = [_read(row) for row in _printed(computed).itertuples()]
    way, fits = rule(rows), fitting(rows)
    for row, text, ways in rows:
        if way not in ways:
            other = next(iter(ways), None)
            yield Finding(
                "share",
                f"Table {row.paper_table}, {names.model(row.model)}, {names.method(row.method)}",
                f"{text}%",
                f"{_plain(row.trainable)} of {_plain(row.total)} = {row.share_pct:.4g}%",
                round(row.paper_pct - row.share_pct, 6),
                Severity.ROUNDING if other else Severity.NUMBER,
                f"{other}; of {len(rows)} shares {fits[way]} are right when {way}, {fits[other]} when {other}"
                if other
                else "",
            )


def rule(rows: Sequence[tuple[Any, str, set[str]]]) -> str:
    """The way of shortening that fits more of the shares; "rounded" where both fit as many."""
    fits = fitting(rows)
    return max(("rounded", "cut"), key=lambda way: fits[way])


def fitting(rows: Sequence[tuple[Any, str, set[str]]]) -> Counter[str]:
    """How many of the shares fit when rounded, and when cut."""
    return Counter(way for *_, ways in rows for way in ways)


def _printed(computed: pd.DataFrame) -> pd.DataFrame:
    return computed[computed["paper_pct"].notna() & computed["share_pct"].notna() & (computed["method"] != "sft")]


def _read(row: Any) -> tuple[Any, str, set[str]]:
    text = f"{row.paper_pct:.6f}".rstrip("0")
    return row, text, readings(Decimal(repr(float(row.share_pct))), text)


def _plain(number: Any) -> str:
    return f"{int(number):,}"
