"""How far two judges agree about the same answers of one model: N instructions that both have judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actshift.errors import ActshiftError
from actshift.judging.judgments import Floats, Judgments


@dataclass(frozen=True)
class Agreement:
    """Shares in percent over the `count` instructions that both judged; `difference` is in percent points.

    `same_side`: both prefer the same answer, or both neither. `kappa`: Cohen's, over the three sides. `pearson`: of the
    preferences; NaN where one judge gives all the same. `longer`: how often each judge prefers the longer answer, of
    those that differ in length. `first`: how often each prefers what it was shown first, by the instructions' coin.
    """

    judges: tuple[str, str]
    model: str
    count: int
    same_side: float
    kappa: float
    pearson: float
    difference: float
    win_rates: tuple[float, float]
    longer: tuple[float, float]
    first: tuple[float, float]


def agreement(one: Judgments, other: Judgments) -> Agreement:
    """The agreement of two files of judgments.

    Errors: another model or reference, other instructions or answers of other lengths, fewer than two judged by both.
    """
    for field in ("model", "reference"):
        if getattr(one, field) != getattr(other, field):
            raise ActshiftError(
                f"the {field} of one file is {getattr(one, field)}, of the other {getattr(other, field)}: two judges "
                "can only agree about the same answers."
            )
    if set(one.instructions) != set(other.instructions):
        raise ActshiftError("the two files judge other instructions: two judges can only agree about the same answers.")
    other = other.ordered(one.instructions)
    if not (one.model_length_N == other.model_length_N).all():
        raise ActshiftError("the two files judge other outputs of the model: their lengths differ.")
    both_N = one.judged_N & other.judged_N
    if both_N.sum() < 2:
        raise ActshiftError(f"{both_N.sum()} instructions are judged in both files; at least two are needed.")
    y_2N = np.stack([one.y_N[both_N], other.y_N[both_N]])
    sides_2N = np.sign(y_2N - 0.5)
    same = float((sides_2N[0] == sides_2N[1]).mean())
    chance = float(sum((sides_2N[0] == side).mean() * (sides_2N[1] == side).mean() for side in (-1, 0, 1)))
    varied = bool((y_2N.std(axis=1) > 0).all())
    longer_N = np.sign(one.model_length_N - one.reference_length_N)[both_N]
    first_N = np.where(one.first_N, 1.0, -1.0)[both_N]
    return Agreement(
        judges=(one.annotator, other.annotator),
        model=one.model,
        count=int(both_N.sum()),
        same_side=100 * same,
        kappa=1.0 if chance == 1 else (same - chance) / (1 - chance),
        pearson=float(np.asarray(np.corrcoef(y_2N))[0, 1]) if varied else float("nan"),
        difference=100 * float(y_2N[0].mean() - y_2N[1].mean()),
        win_rates=(100 * float(y_2N[0].mean()), 100 * float(y_2N[1].mean())),
        longer=(_preferring(sides_2N[0], longer_N), _preferring(sides_2N[1], longer_N)),
        first=(_preferring(sides_2N[0], first_N), _preferring(sides_2N[1], first_N)),
    )


def _preferring(sides_N: Floats, wanted_N: Floats) -> float:
    """Percent of decided rows with a wanted side in which the judge takes it; NaN without any."""
    counted_N = (sides_N != 0) & (wanted_N != 0)
    return 100 * float((sides_N == wanted_N)[counted_N].mean()) if counted_N.any() else float("nan")
