r"""Length-controlled win rates: what a model's win rate would be if its answers were as long as the reference's.

Legend: N instructions, G gamed rows (answers of the reference, asked to be concise or verbose), K = 3 features.
Model rows x = [tanh z, difficulty, 1] with weight 1, z = (length of the reference - length of the model) / sd; gamed
rows x = [tanh z, difficulty, 0] with weight 0.1. The fit minimizes

    |w|_1 + C sum_i s_i [log(1 + exp(x_i w)) - y_i x_i w]

over judged rows, and LC = 100 mean over all N of sigmoid(w_2 difficulty + w_3). Source: arXiv 2404.04475 and
`length_controlled_v1` of alpaca_eval, which fits the same with liblinear to a tolerance of 1e-4; here it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from actshift.errors import ActshiftError
from actshift.judging.judgments import Floats, Judgments

PENALTIES: tuple[float, ...] = tuple(float(c) for c in np.logspace(-4, 4, 10))
"""The values of C (the weight of the data against the L1 norm) that are chosen from."""

GAMED_WEIGHT = 0.1
FOLDS = 5
RANGE_FROM = 2.78
"""The LC range is taken over C from here on: no smaller one was chosen for a published model."""

_STEPS, _TOLERANCE = 100, 1e-10


@dataclass(frozen=True)
class Gamed:
    """The gamed rows: features x_GK (the third is 0), and y_G, the judge's probability that they beat the reference."""

    x_GK: Floats
    y_G: Floats
    source: str


@dataclass(frozen=True)
class Rows:
    """What is fitted: gamed rows first, then the judged rows of the model. `groups_R` numbers them for the folds."""

    x_RK: Floats
    y_R: Floats
    s_R: Floats


def features(judgments: Judgments, difficulty_N: Floats, counts_N: Floats | None = None) -> Floats:
    """x_NK of a model's rows; the sd of the length differences (n - 1) is over all of them, `counts_N` times each."""
    gap_N = judgments.reference_length_N - judgments.model_length_N
    counts_N = np.ones(len(gap_N)) if counts_N is None else counts_N
    mean = np.average(gap_N, weights=counts_N)
    deviation = (float(counts_N @ np.square(gap_N - mean)) / (counts_N.sum() - 1)) ** 0.5
    # The reference against itself has no differences at all.
    z_N = gap_N / deviation if deviation > 0 else np.zeros(len(gap_N))
    return np.stack([np.tanh(z_N), difficulty_N, np.ones(len(gap_N))], axis=1)


def rows_of(judgments: Judgments, x_NK: Floats, gamed: Gamed | None, counts_N: Floats | None = None) -> Rows:
    """Gamed rows with their weight, then judged rows with weight 1 (`counts_N` of a resample)."""
    judged_N = judgments.judged_N
    s_N = np.ones(len(x_NK)) if counts_N is None else counts_N
    x, y, s = x_NK[judged_N], judgments.y_N[judged_N], s_N[judged_N]
    if gamed is None:
        return Rows(x, y, s)
    weights = np.full(len(gamed.y_G), GAMED_WEIGHT)
    return Rows(np.concatenate([gamed.x_GK, x]), np.concatenate([gamed.y_G, y]), np.concatenate([weights, s]))


def fit(rows: Rows, c: float, start_K: Floats | None = None) -> Floats:
    """w_K at the minimum, by proximal Newton steps: the loss is replaced by its parabola, and that lasso is solved.

    Errors: a fit that does not converge, which no data of finite size should bring about.
    """
    w = np.zeros(rows.x_RK.shape[1]) if start_K is None else start_K.copy()
    value = _objective(rows, c, w)
    for _ in range(_STEPS):
        p_R = _sigmoid(rows.x_RK @ w)
        slope = c * rows.x_RK.T @ (rows.s_R * (p_R - rows.y_R))
        curve = c * (rows.x_RK.T * (rows.s_R * p_R * (1 - p_R))) @ rows.x_RK
        curve += (1e-10 * np.trace(curve) + 1e-300) * np.eye(len(w))  # features that are all 0 have no slope
        step = _lasso(curve, slope - curve @ w, w) - w
        if np.abs(step).max() <= _TOLERANCE * (1 + np.abs(w).max()):
            return w + step
        scale, most = 1.0, value + 1e-12 * (1 + abs(value))  # near the minimum a descent is below rounding
        while (new := _objective(rows, c, w + scale * step)) > most and scale > 1e-10:
            scale /= 2
        w, value = w + scale * step, new
    raise ActshiftError(f"the length-controlled fit with C = {c:g} does not converge on these judgments")


def _objective(rows: Rows, c: float, w: Floats) -> float:
    return float(np.abs(w).sum()) - c * _log_likelihood(rows, w)


def _log_likelihood(rows: Rows, w: Floats) -> float:
    score_R = rows.x_RK @ w
    return float(rows.s_R @ (rows.y_R * score_R - np.logaddexp(0, score_R)))


def _lasso(curve_KK: Floats, linear_K: Floats, guess_K: Floats) -> Floats:
    """The minimum of w curve w / 2 + linear w + |w|_1: for each pattern of signs in closed form, the best of them.

    Three coordinates have 27 patterns, that of `guess_K` is tried first. Features that are nearly alike slow nothing.
    """
    best, lowest = np.zeros(len(linear_K)), 0.0
    for signs in (tuple(np.sign(guess_K)), *product((-1.0, 0.0, 1.0), repeat=len(linear_K))):
        signs_K = np.array(signs)
        on = signs_K != 0
        w = np.zeros(len(linear_K))
        w[on] = np.linalg.solve(curve_KK[np.ix_(on, on)], -linear_K[on] - signs_K[on])
        if (w * signs_K < 0).any():
            continue
        slope = curve_KK @ w + linear_K
        if (np.abs(slope[~on]) <= 1).all():  # the conditions of the minimum, and it is the only one
            return w
        value = float(w @ curve_KK @ w / 2 + linear_K @ w + np.abs(w).sum())
        if value < lowest:
            best, lowest = w, value
    return best


def _sigmoid(score: Floats) -> Floats:
    positive: Floats = np.exp(-np.logaddexp(0, -score))
    return positive


def lc_win_rate(w_K: Floats, difficulty_N: Floats, counts_N: Floats | None = None) -> float:
    """LC in percent: 100 mean sigmoid(w_2 difficulty + w_3), over all instructions, unjudged ones among them."""
    return 100 * float(np.average(_sigmoid(w_K[1] * difficulty_N + w_K[2]), weights=counts_N))


def folds(count: int) -> NDArray[np.int_]:
    """The fold of each of `count` rows: row i is in fold (count - 1 - i) mod 5."""
    return (count - 1 - np.arange(count)) % FOLDS


def chosen_penalty(rows: Rows, penalties: Sequence[float] = PENALTIES) -> float:
    """C by cross-validation over rows: the largest mean over folds of sum_i s_i [log likelihood] / held-out rows.

    Upstream's scores of neighbouring C differ by as little as 1e-8, below liblinear's tolerance, so that its choice can
    be another one; the LC range says what hangs on it.
    """
    fold_R = folds(len(rows.y_R))
    scores = np.zeros(len(penalties))
    for fold in range(FOLDS):
        kept, held = _part(rows, fold_R != fold), _part(rows, fold_R == fold)
        w = None
        for place, c in enumerate(penalties):
            w = fit(kept, c, w)
            scores[place] += _log_likelihood(held, w) / len(held.y_R)
    return float(penalties[int(np.argmax(scores))])


def _part(rows: Rows, where_R: NDArray[np.bool_]) -> Rows:
    return Rows(rows.x_RK[where_R], rows.y_R[where_R], rows.s_R[where_R])


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate in percent with what made it.

    `upstream_error` is upstream's `lc_standard_error`, 100 sd(fitted probabilities) / sqrt(N): a spread over
    instructions, not a sampling error. `low` and `high` are the least and the largest LC over C from 2.78 on.
    `c` is None of the reference against itself, which is not fitted.
    """

    win_rate: float
    c: float | None
    w_K: tuple[float, ...]
    upstream_error: float
    low: float
    high: float
    gamed: str


def length_controlled(
    judgments: Judgments, difficulty_N: Floats, gamed: Gamed | None, *, c: float | None = None
) -> LengthControlled:
    """The length-controlled win rate at a given C, or at that of cross-validation; 50 of the reference itself."""
    source = "none" if gamed is None else gamed.source
    if judgments.model == judgments.reference:
        return LengthControlled(50.0, c, (0.0, 0.0, 0.0), 0.0, 50.0, 50.0, source)
    rows = rows_of(judgments, features(judgments, difficulty_N), gamed)
    c = chosen_penalty(rows) if c is None else c
    w_K = fit(rows, c)
    others = [lc_win_rate(fit(rows, other), difficulty_N) for other in PENALTIES if other > RANGE_FROM * 0.99]
    found = lc_win_rate(w_K, difficulty_N)
    spread = 100 * float(_sigmoid(w_K[1] * difficulty_N + w_K[2]).std(ddof=1)) / len(difficulty_N) ** 0.5
    weights = tuple(float(value) for value in w_K)
    return LengthControlled(found, c, weights, spread, min(others), max(others), source)
