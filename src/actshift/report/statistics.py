"""How sure a number is: intervals for a cell, tests between cells, and what a test set can show at all.

Accuracies and differences are in percent and percent points. N runs of a cell, M of the paper's, R rows of a split.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
Bits = NDArray[np.bool_]
"""Which rows of a split a run answered right, in the order of the split."""


@dataclass(frozen=True)
class Interval:
    """A lower and an upper bound."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> Interval | None:
    """The t interval of the mean: m -+ t_(N-1) s / sqrt(N); None below two runs."""
    return _t_interval(values, spread=1 / len(values) if values else 0.0, level=level)


def prediction_interval(values: Sequence[float], *, others: int, level: float = LEVEL) -> Interval | None:
    """Where the mean of `others` further runs of the same experiment falls: m -+ t_(N-1) s sqrt(1/N + 1/M).

    The paper's figure is such a mean. None below two runs of our own.
    """
    return _t_interval(values, spread=1 / len(values) + 1 / others if values else 0.0, level=level)


def _t_interval(values: Sequence[float], *, spread: float, level: float) -> Interval | None:
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf((1 + level) / 2, len(values) - 1)) * statistics.stdev(values) * math.sqrt(spread)
    mean = statistics.fmean(values)
    return Interval(mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """A paired difference of two methods over the same rows, in percent points, its interval and its p value."""

    difference: float
    interval: Interval
    p: float


def paired_bootstrap(
    ours: Sequence[Bits], reference: Sequence[Bits], *, draws: int = 2000, seed: int = 0, level: float = LEVEL
) -> Difference:
    """The difference of two methods over rows and seeds: its percentile interval and a two-sided p value.

    A draw takes R rows with replacement, the same for both methods, each row's share of right answers being over the
    runs; to that it adds what the seeds move a whole run by, t_(N-1) sqrt(s^2 / N), s^2 the variance between runs
    beyond what their single answers explain (drawing runs anew as well would count those twice; one run has none).
    p is twice the smaller share of draws on either side of zero, (k + 1) / (draws + 1). Errors: runs over different
    numbers of rows.
    """
    a_NR, b_NR = _stacked(ours), _stacked(reference)
    if a_NR.shape[1] != b_NR.shape[1]:
        raise ValueError(f"paired runs must answer the same rows, got {a_NR.shape[1]} and {b_NR.shape[1]}")
    rng = np.random.default_rng(seed)
    differences_D = _row_weights(a_NR.shape[1], draws, seed) @ (a_NR.mean(axis=0) - b_NR.mean(axis=0))
    for bits_NR in (a_NR, b_NR):
        if len(bits_NR) > 1:
            differences_D = differences_D + _between_runs(bits_NR) * rng.standard_t(len(bits_NR) - 1, size=draws)
    low, high = 100 * np.quantile(differences_D, [(1 - level) / 2, (1 + level) / 2])
    below, above = int((differences_D <= 0).sum()), int((differences_D >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    return Difference(100 * float(a_NR.mean() - b_NR.mean()), Interval(float(low), float(high)), p)


@lru_cache(maxsize=4)
def _row_weights(rows: int, draws: int, seed: int) -> NDArray[np.float64]:
    """How often each draw takes each row, as shares (D x R); the cells of a column of a table use the same draws."""
    rng = np.random.default_rng([seed, rows])
    weights_DR: NDArray[np.float64] = rng.multinomial(rows, np.full(rows, 1 / rows), size=draws) / rows
    return weights_DR


def _stacked(runs: Sequence[Bits]) -> NDArray[np.float64]:
    lengths = {len(run) for run in runs}
    if len(lengths) != 1:
        raise ValueError(f"the runs of a cell must answer the same rows, got {sorted(lengths)} rows")
    return np.stack(list(runs)).astype(np.float64)


def _between_runs(bits_NR: NDArray[np.float64]) -> float:
    """The standard error of a mean over runs that comes from whole runs differing, not from single answers."""
    runs, rows = bits_NR.shape
    between = bits_NR.mean(axis=1).var(ddof=1)
    answers = bits_NR.var(axis=0, ddof=1).mean() / rows
    return math.sqrt(max(between - answers, 0.0) / runs)


def mcnemar(ours: Bits, reference: Bits) -> float:
    """The exact two-sided p value that two runs answer equally well: binomial over the rows on which they differ."""
    from scipy.stats import binomtest

    only_ours, only_reference = int((ours & ~reference).sum()), int((~ours & reference).sum())
    if only_ours + only_reference == 0:
        return 1.0
    return float(binomtest(only_ours, only_ours + only_reference, 0.5).pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for how many there are, by Holm's step-down: max over the smaller ones of (k - i) p_i."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    for place, (name, p) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = largest
    return adjusted


def detectable(
    rows: int, *, accuracy: float, discordant: float = 0.2, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest difference (percent points) between two runs that a test set shows with this power.

    By McNemar's normal approximation on rows that two runs answer differently, a share `discordant` of them:
    (z_(1 - alpha/2) sqrt(d) + z_power sqrt(d - delta^2)) / sqrt(R) = delta. `accuracy` (percent) bounds the share: two
    runs of that accuracy cannot differ on more than 2 min(a, 1 - a) of the rows.
    """
    from scipy.stats import norm

    share = min(discordant, 2 * min(accuracy, 100 - accuracy) / 100) if 0 < accuracy < 100 else discordant
    first, second = float(norm.ppf(1 - alpha / 2)), float(norm.ppf(power))
    delta = 0.0
    for _ in range(100):  # a contraction: delta on the right changes it little
        delta = (first * math.sqrt(share) + second * math.sqrt(max(share - delta**2, 0.0))) / math.sqrt(rows)
    return 100 * min(delta, 1.0)
