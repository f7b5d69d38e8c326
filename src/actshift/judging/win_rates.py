"""Win rates of one model's judgments: upstream's columns, and by the position in which its answers were shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actshift.errors import ActshiftError
from actshift.judging.judgments import Floats, Judgments


@dataclass(frozen=True)
class WinRate:
    """AlpacaEval's columns, over judged rows: rates and errors in percent, `avg_length` in characters over all rows.

    win_rate = 100 mean(y), standard_error = 100 sd(y) / sqrt(n) with n - 1 in the sd, discrete_win_rate counts a draw
    (y exactly 0.5) as half a win.
    """

    win_rate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float
    avg_length: int
    unjudged: int


def win_rate(judgments: Judgments) -> WinRate:
    """Upstream's columns. Errors: fewer than two judged rows."""
    y = judgments.y_N[judgments.judged_N]
    if len(y) < 2:
        raise ActshiftError(f"{judgments.model}: {len(y)} judged rows have no standard error, at least two are needed")
    wins, losses, draws = int((y > 0.5).sum()), int((y < 0.5).sum()), int((y == 0.5).sum())
    return WinRate(
        win_rate=100 * float(y.mean()),
        standard_error=100 * float(y.std(ddof=1)) / len(y) ** 0.5,
        n_wins=wins,
        n_wins_base=losses,
        n_draws=draws,
        n_total=len(y),
        discrete_win_rate=100 * (wins + draws / 2) / len(y),
        avg_length=int(judgments.model_length_N.mean()),
        unjudged=len(judgments.y_N) - len(y),
    )


@dataclass(frozen=True)
class ByPosition:
    """The win rate (percent) where the judge saw the model's answer first, and second; NaN where it never did."""

    first: float
    second: float
    n_first: int
    n_second: int


def by_position(judgments: Judgments) -> ByPosition:
    """The win rates by position. A judge without a liking for one place gives both alike, within chance."""
    judged, first = judgments.judged_N, judgments.first_N
    parts = judgments.y_N[judged & first], judgments.y_N[judged & ~first]
    return ByPosition(_percent(parts[0]), _percent(parts[1]), len(parts[0]), len(parts[1]))


def _percent(y: Floats) -> float:
    return 100 * float(y.mean()) if len(y) else float(np.nan)
