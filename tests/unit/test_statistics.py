"""Statistics against known truth: coverage over simulated tables, and scipy where it has the same test."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from actshift.report.statistics import (
    Bits,
    Interval,
    SeedVariance,
    detectable,
    holm,
    mcnemar,
    mean_interval,
    paired_difference,
    prediction_interval,
    seed_variance,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from simulate_evidence import Case, rates

TABLES = 2000


def test_the_t_interval_covers_the_mean_in_95_of_100_tables() -> None:
    rng = np.random.default_rng(1)
    inside = sum(70.0 in mean_interval(rng.normal(70, 1.5, 5).tolist()) for _ in range(TABLES))  # type: ignore[operator]
    assert 0.93 <= inside / TABLES <= 0.97


@pytest.mark.parametrize("others", [1, 5])
def test_the_prediction_interval_covers_another_groups_mean(others: int) -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(TABLES):
        interval = prediction_interval(rng.normal(70, 1.5, 5).tolist(), others=others)
        assert interval is not None
        inside += float(rng.normal(70, 1.5, others).mean()) in interval
    assert 0.93 <= inside / TABLES <= 0.97


def test_the_t_interval_is_scipys() -> None:
    values = [70.1, 71.4, 69.2, 70.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values) == Interval(pytest.approx(low), pytest.approx(high))  # type: ignore[arg-type]
    assert mean_interval([70.0]) is None and prediction_interval([], others=5) is None


def drawn(rng: np.random.Generator, *, runs: int, rows: int, luck: float, skill: float, hard: Any) -> list[Bits]:
    """Runs over rows of some difficulty; whole runs have more or less `luck`, in logits."""
    logits = skill + hard + luck * rng.normal(0, 1, (runs, 1))
    return list(rng.random((runs, rows)) < 1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize("luck", [0.0, 0.2])
@pytest.mark.parametrize("design", [(5, 1), (2, 2), (5, 5)])
def test_the_interval_of_a_difference_covers_the_truth(luck: float, design: tuple[int, int]) -> None:
    """In a column of four methods that differ, over rows of unequal difficulty."""
    rng = np.random.default_rng(3)
    rows, inside, skills = 200, 0, (0.6, 0.9, 0.7, 0.8)
    grid = rng.normal(0, np.sqrt(1 + luck**2), 10**6)
    share = [100 * float((1 / (1 + np.exp(-(skill + grid)))).mean()) for skill in skills]
    for _ in range(400):
        hard = rng.normal(0, 1, rows)
        runs = [
            drawn(rng, runs=design[place == 0], rows=rows, luck=luck, skill=skill, hard=hard)
            for place, skill in enumerate(skills)
        ]
        seeds = seed_variance(runs)
        assert seeds is not None
        for place in (1, 2, 3):
            found = paired_difference(runs[place], runs[0], seeds=seeds)
            inside += share[place] - share[0] in found.interval
    assert inside / 1200 >= 0.935


def test_a_gap_of_40_points_is_found_in_a_family_of_96() -> None:
    """At the smallest test set of the paper's tables, five runs against one."""
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 1, 254)
    runs = [
        drawn(rng, runs=n, rows=254, luck=0.1, skill=skill, hard=hard) for n, skill in ((1, 1.5), (5, -0.5), (5, 1.4))
    ]
    seeds = seed_variance(runs)
    assert seeds is not None
    p = paired_difference(runs[1], runs[0], seeds=seeds).p
    assert holm({"cell": p}, family=96)["cell"] < 0.001


def test_a_difference_by_hand() -> None:
    """Four rows, two runs a side: g = (1, 0.5, -0.5, 0), D = 0.25; no run differs as a whole."""
    ours = [np.array([True, True, False, True]), np.array([True, False, False, True])]
    theirs = [np.array([False, False, True, True]), np.array([False, False, False, True])]
    seeds = SeedVariance(between=0.01, answers=0.02, degrees=6)
    found = paired_difference(ours, theirs, seeds=seeds)
    variance = (0.75**2 + 0.25**2 + 0.75**2 + 0.25**2 + 1) / 16
    degrees = variance**2 / (variance**2 / 3 + (2 * 0.01) ** 2 / 6)
    assert found.difference == pytest.approx(25)
    assert found.p == pytest.approx(2 * stats.t.sf(0.25 / np.sqrt(variance), degrees))
    half = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    assert found.interval == Interval(
        pytest.approx(max(-100, 25 - 100 * half)), pytest.approx(min(100, 25 + 100 * half))
    )


def test_the_seed_variance_by_hand() -> None:
    one = [np.array([True, True, False, False]), np.array([True, False, False, False])]  # 0.5 and 0.25
    other = [np.array([True] * 4), np.array([True] * 4), np.array([False] * 4)]
    lone = [np.array([True] * 4)]
    found = seed_variance([one, other, lone])
    assert found is not None and found.degrees == 3
    assert found.between == pytest.approx((0.03125 + 2 * (1 / 3)) / 3)
    assert found.answers == pytest.approx((0.125 / 4 + 2 * (1 / 3) / 4) / 3)
    assert found.of_run == pytest.approx(found.between - found.answers)
    assert seed_variance([lone]) is None


def test_runs_over_other_rows_are_refused() -> None:
    rng = np.random.default_rng(5)
    a, b = [rng.random(50) < 0.9 for _ in range(3)], [rng.random(50) < 0.2 for _ in range(3)]
    seeds = SeedVariance(0.0, 0.0, 4)
    assert paired_difference(a, b, seeds=seeds).p < 1e-9
    assert paired_difference(a, a, seeds=seeds).p == 1.0
    with pytest.raises(ValueError, match="same rows, got 50 and 49"):
        paired_difference(a, [run[1:] for run in b], seeds=seeds)


@pytest.mark.parametrize(
    ("rows", "deviation", "runs", "reference"), [(254, 3.0, 5, 1), (254, 2.0, 2, 2), (1172, 1.0, 3, 3)]
)
def test_a_true_null_hypothesis_is_rejected_in_5_of_100_cells_and_tables(
    rows: int, deviation: float, runs: int, reference: int
) -> None:
    """A slice of what `scripts/simulate_evidence.py` writes to docs/."""
    cell, whole, _ = rates(Case(rows, deviation, runs, reference, 0.75), tables=150, seed=7)
    assert cell <= 6.0 and whole <= 9.0  # 5, and more than two standard errors of 3,600 cells and 150 tables


def test_intervals_of_an_accuracy_stay_within_0_and_100() -> None:
    near = [99.0, 100.0, 99.5]
    for interval in (mean_interval(near), prediction_interval(near, others=1)):
        assert interval is not None and interval.high == 100.0 and interval.low < 99
    low = mean_interval([0.0, 1.0])
    assert low is not None and low.low == 0.0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_mcnemar_is_the_binomial_test_of_the_rows_that_differ(only_a: int, only_b: int, same: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True] * same)
    b = np.array([False] * only_a + [True] * only_b + [True] * same)
    expected = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected) and mcnemar(b, a) == pytest.approx(mcnemar(a, b))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_the_raw_value_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    raw = {str(place): value for place, value in enumerate(values)}
    adjusted = holm(raw)
    for name, p in raw.items():
        assert p <= adjusted[name] <= min(1.0, len(raw) * p) + 1e-12
    ordered = sorted(raw, key=lambda name: raw[name])
    assert [adjusted[name] for name in ordered] == sorted(adjusted[name] for name in ordered)


def test_a_finished_comparison_never_makes_another_less_sure() -> None:
    """Holm over the planned number: a p value that comes in cannot raise the adjusted value of one that was there."""
    rng = np.random.default_rng(8)
    for _ in range(200):
        values = {str(place): float(p) for place, p in enumerate(rng.random(6) ** 4)}
        before = holm(dict(list(values.items())[:5]), family=9)
        after = holm(values, family=9)
        assert all(after[name] <= before[name] + 1e-12 for name in before)
    with pytest.raises(ValueError, match="only 1 were planned"):
        holm({"a": 0.1, "b": 0.2}, family=1)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_what_a_test_set_can_show() -> None:
    """A difference of the size that is said to be detectable is found in about 80 of 100 pairs of runs."""
    rng = np.random.default_rng(6)
    rows, share = 1000, 0.2
    delta = detectable(rows, accuracy=60, discordant=share) / 100
    found = 0
    for _ in range(600):
        kind = rng.choice(4, size=rows, p=[(share + delta) / 2, (share - delta) / 2, 0.4, 0.6 - share])
        found += mcnemar(np.isin(kind, [0, 2]), np.isin(kind, [1, 2])) < 0.05
    assert 0.74 <= found / 600 <= 0.86
    assert detectable(254, accuracy=36) > 5, "AQuA's 254 rows cannot show one point"
    assert detectable(3270, accuracy=88) < detectable(654, accuracy=88)


def test_a_detectable_difference_has_the_discordant_rows_that_it_needs() -> None:
    """Of 100 rows at 99%, two runs can differ on 2 by chance; 5 points need 5."""
    found = detectable(100, accuracy=99)
    assert 4 < found < 12
    # With d = delta the formula holds: every discordant row points the same way.
    delta = found / 100
    assert (1.959964 * np.sqrt(delta) + 0.841621 * np.sqrt(delta - delta**2)) / 10 == pytest.approx(delta, rel=1e-4)
