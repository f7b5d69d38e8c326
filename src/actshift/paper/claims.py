"""The paper's claims as data: sentences with the rules that decide them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "claims.toml"


@dataclass(frozen=True)
class Claim:
    """One sentence: where it stands, what it says, how it is read, and the rule that decides it with its arguments.

    `reading` is empty where the words leave nothing open.
    """

    name: str
    where: str
    text: str
    rule: str
    arguments: Mapping[str, Any]
    reading: str = ""

    @property
    def table(self) -> str:
        """The table of accuracies that it is about ("1", "figure4"); empty where it is about something else."""
        return str(self.arguments.get("table", ""))


@cache
def claims() -> tuple[Claim, ...]:
    """Every claim, in the order of the text."""
    found = []
    for entry in tomllib.loads(FILE.read_text(encoding="utf-8"))["claim"]:
        fields = {name: entry.pop(name, "") for name in ("name", "where", "text", "rule", "reading")}
        found.append(Claim(**fields, arguments=entry))
    return tuple(found)
