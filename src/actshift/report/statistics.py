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
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * statistics.stdev(values) * math.sqrt(spread)
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
    (found,) = paired_bootstraps([(ours, reference)], draws=draws, seed=seed, level=level)
    return found


def paired_bootstraps(
    pairs: Sequence[tuple[Sequence[Bits], Sequence[Bits]]],
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> list[Difference]:
    """`paired_bootstrap` of many pairs: those over equally many rows are drawn in one product of matrices."""
    stacked = [(_stacked(ours), _stacked(reference)) for ours, reference in pairs]
    by_rows: dict[int, list[int]] = {}
    for place, (a_NR, b_NR) in enumerate(stacked):
        if a_NR.shape[1] != b_NR.shape[1]:
            raise ValueError(f"paired runs must answer the same rows, got {a_NR.shape[1]} and {b_NR.shape[1]}")
        by_rows.setdefault(a_NR.shape[1], []).append(place)
    found: dict[int, Difference] = {}
    for rows, places in by_rows.items():
        # Whole numbers, so that the sums are exact in whatever order a machine takes them.
        gaps_PR = np.stack([_gaps(*stacked[place]) for place in places])
        for place, drawn_D in zip(places, gaps_PR @ _row_counts(rows, draws, seed).T, strict=True):
            a_NR, b_NR = stacked[place]
            found[place] = _difference(a_NR, b_NR, drawn_D / (rows * len(a_NR) * len(b_NR)), seed=seed, level=level)
    return [found[place] for place in range(len(pairs))]


def _difference(
    a_NR: NDArray[np.float64], b_NR: NDArray[np.float64], drawn_D: NDArray[np.float64], *, seed: int, level: float
) -> Difference:
    """What the draws over rows say once the seeds are added."""
    rng, draws = np.random.default_rng(seed), len(drawn_D)
    for bits_NR in (a_NR, b_NR):
        if len(bits_NR) > 1:
            drawn_D = drawn_D + _between_runs(bits_NR) * rng.standard_t(len(bits_NR) - 1, size=draws)
    low, high = 100 * np.quantile(drawn_D, [(1 - level) / 2, (1 + level) / 2])
    below, above = int((drawn_D <= 0).sum()), int((drawn_D >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    return Difference(100 * float(a_NR.mean() - b_NR.mean()), Interval(float(low), float(high)), p)


def _gaps(a_NR: NDArray[np.float64], b_NR: NDArray[np.float64]) -> NDArray[np.float64]:
    """The difference of each row's shares of right answers, times both numbers of runs."""
    gaps_R: NDArray[np.float64] = a_NR.sum(axis=0) * len(b_NR) - b_NR.sum(axis=0) * len(a_NR)
    return gaps_R


@lru_cache(maxsize=4)
def _row_counts(rows: int, draws: int, seed: int) -> NDArray[np.float64]:
    """How often each draw takes each row (D x R); the cells of a column of a table use the same draws."""
    rng = np.random.default_rng([seed, rows])
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(np.float64)


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
    from scipy.special import bdtr

    only_ours, only_reference = int((ours & ~reference).sum()), int((~ours & reference).sum())
    if only_ours + only_reference == 0:
        return 1.0
    # Symmetric at 1/2: twice the smaller tail, which counts the middle twice where both are equally many.
    tail = bdtr(min(only_ours, only_reference), only_ours + only_reference, 0.5)
    return min(1.0, 2 * float(tail))


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
    from scipy.special import ndtri

    share = min(discordant, 2 * min(accuracy, 100 - accuracy) / 100) if 0 < accuracy < 100 else discordant
    first, second = float(ndtri(1 - alpha / 2)), float(ndtri(power))
    delta = 0.0
    for _ in range(100):  # a contraction: delta on the right changes it little
        delta = (first * math.sqrt(share) + second * math.sqrt(max(share - delta**2, 0.0))) / math.sqrt(rows)
    return 100 * min(delta, 1.0)
