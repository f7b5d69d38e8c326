"""What a statement of the theory is to the ledger: how it is drawn, measured and judged.

An `Example` is one instance of everything that a statement speaks of: arrays by their names, and words such as the name
of an activation. A `Form` measures an example with one number that must not exceed a limit; a verdict follows from the
forms alone (`verdict`), never from what somebody expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Example: TypeAlias = dict[str, "Array | str"]
Draw: TypeAlias = Callable[[np.random.Generator, "Sizes"], Example]
Measure: TypeAlias = Callable[[Example], float]

HOLDS, UNDER, FAILS = "holds", "holds under", "does not hold as printed"
VERDICTS = (HOLDS, UNDER, FAILS)

EQUALITY, BOUND, ORDER, EXISTS = "equality", "bound", "order", "exists"
LIMITS = {EQUALITY: 1e-8, BOUND: 1 + 1e-9, ORDER: 0.05, EXISTS: 0.999}
"""What a measure must not exceed, by its kind.

equality: the relative error of two sides. bound: left over right side. order: 2 less the slope of the remainder against
the step in log-log (or |slope - 2|). exists: 1 where what is said to exist, or to be impossible, is not so; else less.
"""


@dataclass(frozen=True)
class Sizes:
    """Sizes of an example: the model's width, the MLP's inner width, and the number of inputs (or tokens)."""

    width: int
    inner: int
    inputs: int


@dataclass(frozen=True)
class Form:
    """One reading of a statement: what it says, the number that measures it, and of which kind that number is."""

    says: str
    measure: Measure
    kind: str

    @property
    def limit(self) -> float:
        return LIMITS[self.kind]

    def holds(self, value: float) -> bool:
        """Whether a measured value is within the limit; what is not a number is not."""
        return bool(value <= self.limit)


@dataclass(frozen=True)
class Condition:
    """What a statement needs and does not say, and draws of which it is true."""

    says: str
    draws: Mapping[str, Draw]


@dataclass(frozen=True)
class Statement:
    """A statement of the paper, in our words.

    `draws` are the families of examples that the printed statement speaks of. `condition` restricts them, `corrected`
    is another form that must hold on all of them, and `also` are forms that tell more (a sharper bound, how far a
    claim reaches): they change no verdict. `searched` says that a search looks for the worst example of each bound.
    """

    name: str
    place: str
    says: str
    printed: Form
    draws: Mapping[str, Draw]
    condition: Condition | None = None
    corrected: Form | None = None
    also: tuple[Form, ...] = ()
    searched: bool = False
    smallest: tuple[Sizes, ...] = field(
        default=(Sizes(1, 1, 1), Sizes(1, 1, 2), Sizes(2, 1, 1), Sizes(2, 2, 2), Sizes(2, 2, 3), Sizes(3, 3, 4))
    )
    """Sizes at which a counterexample is looked for, the smallest first."""
    real: Mapping[str, Draw] = field(default_factory=dict)
    """Families from a model's weights and hidden states: drawn as the others, but neither searched nor simplified."""
    kept: tuple[str, ...] = ()
    """Arrays of a counterexample that stay as they were drawn: simpler ones would make it empty."""


@dataclass(frozen=True)
class Check:
    """A form on one family of examples: the worst value of all draws, and whether it is within the limit."""

    role: str  # printed | condition | corrected | also
    says: str
    kind: str
    family: str
    draws: int
    within: float | None
    """The share of the draws that are within the limit; a search has none."""
    worst: float
    limit: float
    holds: bool


@dataclass(frozen=True)
class Entry:
    """A statement with its checks and, where its printed form fails, the smallest counterexample found."""

    statement: Statement
    checks: tuple[Check, ...]
    counterexample: Mapping[str, object] | None

    @property
    def verdict(self) -> str:
        return verdict(self.checks)

    @property
    def corrected(self) -> str | None:
        """The corrected form, where there is one and it holds on every draw."""
        form = self.statement.corrected
        own = [check for check in self.checks if check.role == "corrected"]
        return form.says if form is not None and own and all(check.holds for check in own) else None


def verdict(checks: tuple[Check, ...]) -> str:
    """What checks amount to: `HOLDS`, `UNDER` (a condition on whose draws the printed form holds) or `FAILS`."""
    printed = [check.holds for check in checks if check.role == "printed"]
    conditional = [check.holds for check in checks if check.role == "condition"]
    if printed and all(printed):
        return HOLDS
    return UNDER if conditional and all(conditional) else FAILS
