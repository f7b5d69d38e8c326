"""What a field of the schema may be beside its type: declared with the field, checked by one walk of a config."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, cast

from omegaconf import MISSING

from actshift.errors import impossible, unknown

CHOICES, BOUNDS = "choices", "bounds"
"""The entries of a field's metadata."""


@dataclass(frozen=True)
class Bounds:
    """The values that a number may have. `least` and `most` are allowed, `above` and `below` are not."""

    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float | None = None

    def allow(self, value: float) -> bool:
        """Whether a number is finite and within the bounds."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        if self.below is None and self.most is None:
            return f"at least {self.least}" if self.above is None else "a positive number"
        if self.below is not None and self.below > 1:
            return f"at least {self.least} and less than {self.below:,}"
        low = f"[{self.least}" if self.above is None else f"({self.above}"
        high = f"{self.most}]" if self.below is None else f"{self.below})"
        what = "a share" if self.least in (0, None) and 1 in (self.most, self.below) else "a number"
        return f"{what} in {low}, {high}"


def choice(*names: str | None, default: Any = MISSING) -> Any:
    """A field whose value is one of some names; None among them stands for null."""
    return field(default=default, metadata={CHOICES: names})


def number(
    default: Any = MISSING,
    *,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Any:
    """A field whose value is a finite number within bounds, or null where its type allows null."""
    return field(default=default, metadata={BOUNDS: Bounds(least, above, below, most)})


def refuse_impossible(node: Any, key: str = "") -> None:
    """Refuse a value that is none of its field's choices or out of its bounds, in a dataclass or in those below it."""
    for name, about in _checked(cast(Any, type(node))):
        value, where = getattr(node, name), f"{key}{name}"
        if CHOICES in about and value not in about[CHOICES]:
            names = ["null" if choice is None else choice for choice in about[CHOICES]]
            raise unknown(where, "null" if value is None else value, names, where=f"{where}=<name> or conf/")
        if BOUNDS in about and value is not None and not about[BOUNDS].allow(value):
            raise impossible(where, value, str(about[BOUNDS]))
        for inner, below in _dataclasses(value, where):
            refuse_impossible(inner, f"{below}.")


def _dataclasses(value: Any, key: str) -> Iterator[tuple[Any, str]]:
    if is_dataclass(value):
        yield value, key
    elif isinstance(value, dict):
        yield from ((inner, f"{key}.{name}") for name, inner in value.items() if is_dataclass(inner))


@cache
def _checked(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((entry.name, entry.metadata) for entry in fields(kind))
