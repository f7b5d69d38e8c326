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
    way = rule(rows)
    for row, text, ways in rows:
        if way not in ways:
            other = next(iter(ways), None)
            yield Finding(
                "share",
                f"Table {row.paper_table}, {names.model(row.model)}, {names.method(row.method)}",
                f"{text}%",
                f"{_plain(row.trainable)} of {_plain(row.total)} = {row.share_pct:.5f}%",
                round(row.paper_pct - row.share_pct, 5),
                Severity.ROUNDING if other else Severity.NUMBER,
                f"{other}, where more of the shares are {way}" if other else "",
            )


def rule(rows: Sequence[tuple[Any, str, set[str]]]) -> str:
    """The way of shortening that fits more of the shares; "rounded" where both fit as many."""
    fits = Counter(way for *_, ways in rows for way in ways)
    return max(("rounded", "cut"), key=lambda way: fits[way])


def fitting(computed: pd.DataFrame) -> dict[str, int]:
    """How many printed shares there are, and how many of them fit when rounded, when cut, and in neither way."""
    rows = [_read(row) for row in _printed(computed).itertuples()]
    fits = Counter(way for *_, ways in rows for way in ways or {"neither"})
    return {"printed": len(rows), "rounded": fits["rounded"], "cut": fits["cut"], "neither": fits["neither"]}


def _printed(computed: pd.DataFrame) -> pd.DataFrame:
    return computed[computed["paper_pct"].notna() & computed["share_pct"].notna() & (computed["method"] != "sft")]


def _read(row: Any) -> tuple[Any, str, set[str]]:
    text = f"{row.paper_pct:.6f}".rstrip("0")
    return row, text, readings(Decimal(repr(float(row.share_pct))), text)


def _plain(number: Any) -> str:
    return f"{int(number):,}"
