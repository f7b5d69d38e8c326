"""Statistics against known truth: coverage over simulated tables, and scipy where it has the same test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from actshift.report.statistics import (
    Interval,
    detectable,
    holm,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    prediction_interval,
)

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


@pytest.mark.parametrize("luck", [0.0, 0.4])
def test_the_bootstrap_covers_the_true_difference(luck: float) -> None:
    """Rows of unequal difficulty that both methods share; whole runs of more or less `luck`, in logits."""
    rng = np.random.default_rng(3)
    rows, seeds, inside = 200, 5, 0
    grid = rng.normal(0, np.sqrt(1 + luck**2), 10**6)
    truth = 100 * float((1 / (1 + np.exp(-(0.9 + grid))) - 1 / (1 + np.exp(-(0.6 + grid)))).mean())
    for table in range(TABLES):
        difficulty = rng.normal(0, 1, rows)
        runs = []
        for skill in (0.9, 0.6):
            logits = skill + difficulty + luck * rng.normal(0, 1, (seeds, 1))
            runs.append(list(rng.random((seeds, rows)) < 1 / (1 + np.exp(-logits))))
        inside += truth in paired_bootstrap(*runs, draws=300, seed=table).interval
    assert 0.93 <= inside / TABLES <= 0.97


def test_the_bootstrap_finds_no_difference_where_there_is_none() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(300):
        runs = [rng.random(200) < 0.7 for _ in range(6)]
        found += paired_bootstrap(runs[:3], runs[3:], draws=400).p < 0.05
    assert found / 300 <= 0.07


def test_the_bootstrap_is_the_same_twice_and_refuses_unpaired_runs() -> None:
    rng = np.random.default_rng(5)
    a, b = [rng.random(50) < 0.9 for _ in range(3)], [rng.random(50) < 0.2 for _ in range(3)]
    first = paired_bootstrap(a, b)
    assert first == paired_bootstrap(a, b) and first.p < 0.01 and first.difference in first.interval
    with pytest.raises(ValueError, match="same rows, got 50 and 49"):
        paired_bootstrap(a, [run[1:] for run in b])


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
