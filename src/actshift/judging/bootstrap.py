"""How sure a win rate is: instructions drawn anew with replacement, the length-controlled fit repeated on each draw.

Legend: N instructions, B draws. A draw counts each instruction some number of times; the gamed rows stay as they are,
for they are the same in every table, and C stays that of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actshift.errors import ActshiftError
from actshift.judging.judgments import Floats, Judgments
from actshift.judging.length_control import Gamed, features, fit, lc_win_rate, rows_of

DRAWS, SEED, LEVEL = 1000, 0, 0.95


@dataclass(frozen=True)
class Spread:
    """A standard error and a percentile interval over draws, in percent or percent points."""

    error: float
    low: float
    high: float


def spread(values_B: Floats, *, level: float = LEVEL) -> Spread:
    """The sd (B - 1) of draws and the interval that holds the middle `level` of them; draws that are NaN are left out.

    Errors: fewer than two draws.
    """
    known = values_B[~np.isnan(values_B)]
    if len(known) < 2:
        raise ActshiftError(f"{len(known)} bootstrap draws give no standard error: at least 2 are needed, set --draws")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Spread(float(known.std(ddof=1)), float(low), float(high))


def draws(count: int, *, number: int = DRAWS, seed: int = SEED) -> NDArray[np.float64]:
    """counts_BN: how often each of `count` instructions is drawn. The same seed draws the same for every model."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), size=number).astype(np.float64)


def win_rates(judgments: Judgments, counts_BN: Floats) -> Floats:
    """The win rate (percent) of each draw, over its judged rows; NaN of a draw without any."""
    weights_BN = counts_BN[:, judgments.judged_N]
    with np.errstate(invalid="ignore"):
        found: Floats = 100 * (weights_BN @ judgments.y_N[judgments.judged_N]) / weights_BN.sum(axis=1)
    return found


def lc_win_rates(
    judgments: Judgments, difficulty_N: Floats, gamed: Gamed | None, counts_BN: Floats, *, c: float | None
) -> Floats:
    """The length-controlled win rate (percent) of each draw, fitted anew at `c`; 50 of the reference itself."""
    if c is None:
        return np.full(len(counts_BN), 50.0)
    start = fit(rows_of(judgments, features(judgments, difficulty_N), gamed), c)
    found = np.empty(len(counts_BN))
    for place, counts_N in enumerate(counts_BN):
        x_NK = features(judgments, difficulty_N, counts_N)
        w = fit(rows_of(judgments, x_NK, gamed, counts_N), c, start)
        found[place] = lc_win_rate(w, difficulty_N, counts_N)
    return found


def aligned(ours: Judgments, other: Judgments) -> Judgments:
    """The other model's judgments in the order of ours.

    Errors: other instructions, another judge or another reference.
    """
    for field in ("annotator", "reference"):
        mine, theirs = getattr(ours, field), getattr(other, field)
        if mine != theirs:
            raise ActshiftError(
                f"the {field} of {ours.model} is {mine}, that of {other.model} is {theirs}: such numbers never share a "
                "table. Give files of one judge and one reference."
            )
    alone = set(ours.instructions) ^ set(other.instructions)
    if alone:
        raise ActshiftError(
            f"{ours.model} and {other.model} cannot be compared: {len(alone)} instructions are judged for one of them "
            "alone. Give files over the same instructions."
        )
    return other.ordered(ours.instructions)
