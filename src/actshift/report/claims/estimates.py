"""What a rule compares: estimates with their doubt, and conditions on them. Percent or percent points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the numbers say of a claim."""

    HOLDS = "borne out"
    FAILS = "not borne out"
    OPEN = "cannot be told"


class NotThere(Exception):
    """Numbers that a rule needs and that do not exist; the message says which, and what would make them."""


@dataclass(frozen=True)
class Estimate:
    """A number and the half width of its interval, of which the part `seeds` shrinks with more runs.

    half^2 = rows^2 + seeds^2: what the test rows leave in doubt stays, however many runs there are. `runs` is the
    smallest number of runs of a cell in it; 0 where it is a printed number, whose half width is that of rounding.
    """

    value: float
    half: float
    seeds: float = 0.0
    runs: int = 0

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, self.half, self.seeds, self.runs)

    def needed(self, bound: float) -> int | None:
        """How many runs a cell would tell this estimate from a bound, were it exact; None where rows do not suffice."""
        distance = abs(self.value - bound)
        left = distance**2 - (self.half**2 - self.seeds**2)
        return None if left <= 0 else math.ceil(self.runs * self.seeds**2 / left)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of estimates that do not depend on one another: half widths add up in squares."""
    return Estimate(
        math.fsum(each.value for each in estimates) / len(estimates),
        math.hypot(*(each.half for each in estimates)) / len(estimates),
        math.hypot(*(each.seeds for each in estimates)) / len(estimates),
        min(each.runs for each in estimates),
    )


def difference(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two estimates that do not depend on one another."""
    seeds = math.hypot(one.seeds, other.seeds)
    return Estimate(one.value - other.value, math.hypot(one.half, other.half), seeds, min(one.runs, other.runs))


@dataclass(frozen=True)
class Condition:
    """``low <= x <= high``, or with `strict` ``low < x``; with `magnitude` of the size of x."""

    low: float = -math.inf
    high: float = math.inf
    strict: bool = False
    magnitude: bool = False

    def holds(self, value: float) -> bool:
        size = abs(value) if self.magnitude else value
        # Differences of decimals miss them by the last bit.
        return size > self.low + 1e-9 if self.strict else self.low - 1e-9 <= size <= self.high + 1e-9

    def decide(self, estimate: Estimate) -> Verdict:
        """Whether the whole interval fulfils it, none of it does, or neither.

        A printed number is taken as printed unless rounding leaves the condition open: then its value decides.
        """
        if estimate.runs == 0:
            return Verdict.HOLDS if self.holds(estimate.value) else Verdict.FAILS
        ends = estimate.value - estimate.half, estimate.value + estimate.half
        inside = [self.holds(end) for end in ends]
        within = (bound for bound in self.bounds() if ends[0] < bound < ends[1])
        if any(True for _ in within) or inside[0] != inside[1]:
            return Verdict.OPEN
        return Verdict.HOLDS if inside[0] else Verdict.FAILS

    def bounds(self) -> list[float]:
        """Every value at which it begins or ceases to hold."""
        ends = [end for end in (self.low, self.high) if math.isfinite(end)]
        return [*ends, *(-end for end in ends)] if self.magnitude else ends

    def nearest(self, value: float) -> float:
        """The bound that lies nearest to a value."""
        return min(self.bounds(), key=lambda bound: abs(bound - value))


@dataclass(frozen=True)
class Item:
    """One estimate of a rule, and what it is of."""

    label: str
    estimate: Estimate


@dataclass(frozen=True)
class Check:
    """What a rule asks: whether a condition holds for every item, any of them, or most (more than half)."""

    items: tuple[Item, ...]
    condition: Condition
    quantifier: str = "every"
    note: str = ""

    def decided(self) -> list[Verdict]:
        return [self.condition.decide(item.estimate) for item in self.items]

    def verdict(self) -> Verdict:
        """The verdict, open where it hangs on an open item."""
        found, total = self.decided(), len(self.items)
        holds, fails = found.count(Verdict.HOLDS), found.count(Verdict.FAILS)
        needed = {"every": total, "any": 1, "most": total // 2 + 1}[self.quantifier]
        if holds >= needed:
            return Verdict.HOLDS
        return Verdict.FAILS if total - fails < needed else Verdict.OPEN

    def wanting(self) -> str:
        """What an open verdict needs: runs of a cell where more of them can decide it, test rows where they cannot."""
        pairs = zip(self.items, self.decided(), strict=True)
        doubtful = [item.estimate for item, verdict in pairs if verdict is Verdict.OPEN]
        numbers = [each.needed(self.condition.nearest(each.value)) for each in doubtful]
        if not numbers:
            return ""
        if None in numbers:
            return "needs more test rows"
        return f"needs {max(number for number in numbers if number is not None):,} runs a cell"
