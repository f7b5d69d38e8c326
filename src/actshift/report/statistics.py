"""How sure a number is: intervals for a cell, tests between cells, and what a test set can show at all.

Accuracies and differences are in percent and percent points. N runs of a cell, M of the paper's, R rows of a split.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    """The t interval of the mean, within 0 to 100: m -+ t_(N-1) s / sqrt(N); None below two runs."""
    return _t_interval(values, spread=1 / len(values) if values else 0.0, level=level)


def prediction_interval(values: Sequence[float], *, others: int, level: float = LEVEL) -> Interval | None:
    """Where the mean of `others` further runs of the same experiment falls: m -+ t_(N-1) s sqrt(1/N + 1/M).

    The paper's figure is such a mean. The interval stays within 0 to 100; None below two runs of our own.
    """
    return _t_interval(values, spread=1 / len(values) + 1 / others if values else 0.0, level=level)


def _t_interval(values: Sequence[float], *, spread: float, level: float) -> Interval | None:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * statistics.stdev(values) * math.sqrt(spread)
    mean = statistics.fmean(values)
    return Interval(max(mean - half, 0.0), min(mean + half, 100.0))


@dataclass(frozen=True)
class SeedVariance:
    """The variance of a run's accuracy (as a share) that comes from its seed as a whole, and its degrees of freedom.

    `between` is the variance between runs of one method, of which `answers` is explained by single answers that differ
    from run to run; the rest, where there is any, moves a whole run up or down.
    """

    between: float
    answers: float
    degrees: int

    @property
    def of_run(self) -> float:
        return max(self.between - self.answers, 0.0)


def seed_variance(groups: Sequence[Sequence[Bits]]) -> SeedVariance | None:
    """The seed variance pooled over groups of runs, one group a method, each of N runs over the same R rows.

    between: sum of (N - 1) var(run accuracies) / sum of (N - 1); answers: the same of mean_r var_i(answer) / R. Methods
    are taken to have one seed variance, so that a method with one run borrows that of the others. None where no group
    has two runs.
    """
    degrees = between = answers = 0.0
    for runs in groups:
        if len(runs) > 1:
            bits_NR = _stacked(runs)
            weight = len(runs) - 1
            degrees += weight
            between += weight * float(bits_NR.mean(axis=1).var(ddof=1))
            answers += weight * float(bits_NR.var(axis=0, ddof=1).mean()) / bits_NR.shape[1]
    return SeedVariance(between / degrees, answers / degrees, int(degrees)) if degrees else None


@dataclass(frozen=True)
class Difference:
    """A paired difference of two methods over the same rows, in percent points, its interval and its p value."""

    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of accuracies (a share), its variance, and Satterthwaite's degrees of freedom of that variance."""

    value: float
    variance: float
    degrees: float

    def __sub__(self, other: Estimate) -> Estimate:
        """The difference of two estimates over other rows and other runs."""
        return mean_estimate([self, Estimate(-other.value, other.variance, other.degrees)], scale=1.0)

    def difference(self, *, level: float = LEVEL, bound: float = 1.0) -> Difference:
        """In percent points, with its t interval within -+ `bound` (a share) and its two-sided p value."""
        from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

        half = float(stdtrit(self.degrees, (1 + level) / 2)) * math.sqrt(self.variance)
        p = min(1.0, 2 * float(stdtr(self.degrees, -abs(self.value) / math.sqrt(self.variance))))
        low, high = max(self.value - half, -bound), min(self.value + half, bound)
        return Difference(100 * self.value, Interval(100 * low, 100 * high), p)


def mean_estimate(estimates: Sequence[Estimate], *, scale: float | None = None) -> Estimate:
    """The mean of independent estimates, or their sum times `scale`: V = sum V_i, df = V^2 / sum (V_i^2 / df_i)."""
    scale = 1 / len(estimates) if scale is None else scale
    variance = sum(each.variance for each in estimates)
    degrees = variance**2 / sum(each.variance**2 / each.degrees for each in estimates)
    return Estimate(scale * sum(each.value for each in estimates), scale**2 * variance, degrees)


def paired_difference(
    ours: Sequence[Bits], reference: Sequence[Bits], *, seeds: SeedVariance, level: float = LEVEL
) -> Difference:
    """The difference of two methods over the same rows: `contrast_estimate` with the weights 1 and -1."""
    return contrast_estimate([(1.0, ours), (-1.0, reference)], seeds=seeds).difference(level=level)


def contrast_estimate(parts: Sequence[tuple[float, Sequence[Bits]]], *, seeds: SeedVariance) -> Estimate:
    """A weighted sum of methods' accuracies over rows and seeds, neither counted in draws.

    D = mean_r g_r, where g_r is the weighted sum of the row's shares of right answers over the N_i runs of each method.
    V = (sum_r (g_r - D)^2 + sum_i w_i^2 / 2) / R^2 + sum_i (w_i^2 / N_i) s^2, with s^2 the variance of whole runs in
    `seeds`. Of a difference, sum_i w_i^2 / 2 is 1: half a discordant row on each side (Agresti and Min, 2005): without
    it, rows that all agree would leave no doubt. t = D / sqrt(V) with Satterthwaite's degrees of freedom, V^2 /
    (rows^2 / (R - 1) + seeds^2 / nu), in which the part of the seeds is taken at twice its estimate (at most V),
    answers included: an estimate that is low by chance would otherwise narrow the test and claim many degrees of
    freedom at once, and 2 against 2 runs would reject 8% of true null hypotheses (docs/evidence.md).
    Errors: runs over different numbers of rows.
    """
    stacked = [(weight, _stacked(runs)) for weight, runs in parts]
    sizes = list(dict.fromkeys(bits_NR.shape[1] for _, bits_NR in stacked))
    if len(sizes) > 1:
        raise ValueError(f"paired runs must answer the same rows, got {' and '.join(map(str, sizes))}")
    (rows,) = sizes
    gaps_R = sum(weight * bits_NR.mean(axis=0) for weight, bits_NR in stacked)
    gap = float(np.mean(gaps_R))
    of_rows = (float(np.square(gaps_R - gap).sum()) + sum(weight**2 for weight, _ in stacked) / 2) / rows**2
    runs = sum(weight**2 / len(bits_NR) for weight, bits_NR in stacked)
    variance = of_rows + runs * seeds.of_run
    doubtful = min(2 * runs * seeds.between, variance)
    degrees = variance**2 / (of_rows**2 / max(rows - 1, 1) + doubtful**2 / seeds.degrees)
    return Estimate(gap, variance, degrees)


def _stacked(runs: Sequence[Bits]) -> NDArray[np.float64]:
    lengths = {len(run) for run in runs}
    if len(lengths) != 1:
        raise ValueError(f"the runs of a cell must answer the same rows, got {sorted(lengths)} rows")
    return np.stack(list(runs)).astype(np.float64)


def mcnemar(ours: Bits, reference: Bits) -> float:
    """The exact two-sided p value that two runs answer equally well: binomial over the rows on which they differ."""
    from scipy.special import bdtr

    only_ours, only_reference = int((ours & ~reference).sum()), int((~ours & reference).sum())
    if only_ours + only_reference == 0:
        return 1.0
    # Symmetric at 1/2: twice the smaller tail, which counts the middle twice where both are equally many.
    tail = bdtr(min(only_ours, only_reference), only_ours + only_reference, 0.5)
    return min(1.0, 2 * float(tail))


def holm(p_values: Mapping[str, float], *, family: int | None = None) -> dict[str, float]:
    """p values adjusted by Holm's step-down: max over the smaller ones of (family - i) p_i.

    `family` is how many comparisons were planned, all of those given where it is None. With the planned number an
    adjusted value never grows because another comparison is finished. Errors: more p values than planned.
    """
    family = len(p_values) if family is None else family
    if len(p_values) > family:
        raise ValueError(f"{len(p_values)} comparisons, but only {family} were planned")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        largest = max(largest, min(1.0, (family - rank) * p))
        adjusted[name] = largest
    return adjusted


def detectable(
    rows: int, *, accuracy: float, discordant: float = 0.2, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest difference (percent points) between two runs that a test set shows with this power.

    By McNemar's normal approximation on rows that two runs answer differently, a share `discordant` of them:
    (z_(1 - alpha/2) sqrt(d) + z_power sqrt(d - delta^2)) / sqrt(R) = delta. `accuracy` (percent) bounds the share: two
    runs of that accuracy cannot differ on more than 2 min(a, 1 - a) of the rows. A difference of delta needs at least
    that share of discordant rows, so d is never below delta.
    """
    from scipy.special import ndtri

    share = min(discordant, 2 * min(accuracy, 100 - accuracy) / 100) if 0 < accuracy < 100 else discordant
    first, second = float(ndtri(1 - alpha / 2)), float(ndtri(power))
    delta = 0.0
    for _ in range(100):  # a contraction: delta on the right changes it little
        share = max(share, delta)
        delta = (first * math.sqrt(share) + second * math.sqrt(max(share - delta**2, 0.0))) / math.sqrt(rows)
    return 100 * min(delta, 1.0)


def significant_digits(value: float) -> float:
    """A number to six significant digits, which is the same on every machine.

    Beyond these, machines may differ in a sum's order. What lies halfway between two numbers of six digits is found to
    do so by twelve first: a difference in the sixteenth would decide otherwise.
    """
    return float(f"{float(f'{value:.12g}'):.6g}")
