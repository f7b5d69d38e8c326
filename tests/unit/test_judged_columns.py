"""A judge's columns in a table's CSV: one run's own, and what is left of several."""

from __future__ import annotations

import io
import math
from typing import Any

import pandas as pd
import pytest

from actshift.judging.records import JudgedRecord
from actshift.report import tidy_csv
from actshift.report.judged_columns import with_judged

LC = {"win_rate": 11.0, "upstream_error": 0.4, "low": 10.5, "high": 11.5, "c": 2.78, "w_K": [-1.0, 0.5, 0.25]}
WIN = {"win_rate": 9.0, "standard_error": 0.8, "n_wins": 60, "n_wins_base": 740, "n_draws": 5, "n_total": 805}
WIN |= {"discrete_win_rate": 7.76, "avg_length": 1200, "unjudged": 0}
PLACES = {"first": 4.0, "second": 14.0, "n_first": 400, "n_second": 405}
PUBLISHED = ("length_controlled_winrate", "lc_standard_error", "lc_bootstrap_error", "lc_low", "lc_high")
PUBLISHED += ("lc_least_over_c", "lc_largest_over_c", "c", "weights", "gamed_rows")


def record(identity: str, **change: Any) -> JudgedRecord:
    facts: dict[str, Any] = dict(identity=identity, judge="gpt", judge_identity="j", annotator="a", model="m")
    facts |= dict(reference="gpt4", outputs_sha256="0", instructions=805, lost=0, win=WIN, by_position=PLACES)
    lc = {**LC, "gamed": "stand-ins", "bootstrap": {"error": 0.9, "low": 9.0, "high": 13.0}}
    facts |= dict(win_spread={"error": 0.85, "low": 7.5, "high": 10.5}, lc=lc, dollars=1.5, created="now")
    return JudgedRecord(**{**facts, **change})


def csv_of(*records: JudgedRecord, identities: tuple[str, ...] = ("a", "b c", "")) -> pd.DataFrame:
    """The CSV, read again: the cells of the first run, of two runs, and without any."""
    empty = [()] * len(identities)
    cells = pd.DataFrame({"method": ["x", "y", "z"], "identities": identities, "values": empty, "seeds": empty})
    cells.attrs["judged"] = {("m", "x"): list(records[:1]), ("m", "y"): list(records[1:])}
    return pd.read_csv(io.StringIO(tidy_csv.sweep_table(cells)))


def test_one_run_s_columns_are_its_own() -> None:
    row = csv_of(record("a")).iloc[0]
    assert (row["n_judged"], row["judge"], row["annotator"], row["reference"]) == (1, "gpt", "a", "gpt4")
    found = [row[name] for name in PUBLISHED]
    assert found == [11.0, 0.4, 0.9, 9.0, 13.0, 10.5, 11.5, 2.78, "-1.0 0.5 0.25", "stand-ins"]
    assert (row["win_rate"], row["standard_error"], row["bootstrap_error"]) == (9.0, 0.8, 0.85)
    assert (row["win_rate_low"], row["win_rate_high"], row["discrete_win_rate"]) == (7.5, 10.5, 7.76)
    assert [row[name] for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "unjudged")] == [60, 740, 5, 805, 0]
    assert (row["win_rate_first"], row["win_rate_second"], row["avg_length"]) == (4.0, 14.0, 1200)
    assert (row["instructions"], row["lost_instructions"], row["dollars"]) == (805, 0, 1.5)
    assert math.isnan(row["length_controlled_winrate_std"])


def test_of_several_runs_there_are_means_deviations_and_sums() -> None:
    other = record("c", lc={**record("c").lc, "win_rate": 13.0}, win={**WIN, "win_rate": 10.0, "n_wins": 70})  # type: ignore[dict-item]
    row = csv_of(record("a"), record("b"), other).iloc[1]
    assert (row["n_judged"], row["length_controlled_winrate"], row["win_rate"]) == (2, 12.0, 9.5)
    assert row["length_controlled_winrate_std"] == pytest.approx(2**0.5)
    assert (row["n_wins"], row["n_total"], row["dollars"]) == (130, 1610, 3.0)
    for name in ("lc_standard_error", "lc_low", "c", "standard_error", "win_rate_high", "weights"):
        assert pd.isna(row[name]), name


def test_what_was_not_judged_is_empty() -> None:
    row = csv_of(record("a", lc=None, by_position={**PLACES, "first": None})).iloc[0]
    assert all(pd.isna(row[name]) for name in PUBLISHED) and pd.isna(row["win_rate_first"]) and row["win_rate"] == 9.0
    last = csv_of(record("a")).iloc[2]
    assert last["n_judged"] == 0 and all(pd.isna(last[name]) for name in ("judge", "win_rate", "n_wins", "dollars"))


def test_without_a_judge_the_frame_is_as_it_was() -> None:
    cells = pd.DataFrame({"identities": ["a"]})
    assert with_judged(cells) is cells
    cells.attrs["judged"] = {}
    assert list(with_judged(cells)) == ["identities"]
