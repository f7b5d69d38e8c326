"""Recorded judgments of several models as one table: win rates, length control, spreads, and differences of models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actshift.errors import ActshiftError, unknown
from actshift.judging import bootstrap
from actshift.judging.bootstrap import Spread
from actshift.judging.judgments import Floats, Judgments, read_judgments
from actshift.judging.length_control import LengthControlled, length_controlled
from actshift.judging.reference_data import ReferenceData
from actshift.judging.win_rates import ByPosition, WinRate, by_position, win_rate

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


@dataclass(frozen=True)
class Summary:
    """One model's row: upstream's columns, by position, and with reference data the length-controlled win rate.

    `draws` and `lc_draws` hold the win rates of the bootstrap's draws, the same draws for every model of a table.
    """

    judgments: Judgments
    win: WinRate
    position: ByPosition
    lc: LengthControlled | None
    draws: Floats
    lc_draws: Floats | None

    @property
    def spread(self) -> Spread:
        return bootstrap.spread(self.draws)

    @property
    def lc_spread(self) -> Spread | None:
        return None if self.lc_draws is None else bootstrap.spread(self.lc_draws)


@dataclass(frozen=True)
class Comparison:
    """A model less another over the same instructions, in percent points, with the spread over paired draws."""

    model: str
    other: str
    win: float
    win_spread: Spread
    lc: float | None
    lc_spread: Spread | None


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files that are named, those that lie in named folders, and any `annotations.json` below these.

    Errors: a path that does not exist, a folder without such files.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = {each for each in path.iterdir() if each.is_file() and each.name.endswith(SUFFIXES)}
        inside |= set(path.rglob("annotations.json"))
        if not inside:
            raise ActshiftError(f"{path} holds no judgments: files that end with {', '.join(SUFFIXES)} are looked for")
        found += sorted(inside)
    return list(dict.fromkeys(found))


def read_all(paths: Iterable[Path]) -> list[Judgments]:
    """The judgments of files in one order of instructions. Errors: those of `aligned`; a model that occurs twice."""
    every = [read_judgments(path) for path in files_of(paths)]
    models = [each.model for each in every]
    twice = sorted({model for model in models if models.count(model) > 1})
    if twice:
        raise ActshiftError(f"{twice[0]} is judged in more than one of these files. Give one file a model.")
    return [every[0], *(bootstrap.aligned(every[0], each) for each in every[1:])]


def summaries(
    every: Sequence[Judgments],
    data: ReferenceData | None,
    *,
    number: int,
    seed: int,
    c: float | None = None,
    by_row: bool = False,
) -> list[Summary]:
    """A row a model, over the same `number` draws; without reference data no length control.

    `by_row` joins difficulties as upstream does (`ReferenceData.difficulty_N`).

    Errors: those of the parts, fewer than two draws, a seed below 0, a penalty that is not above 0.
    """
    if number < 2:
        raise ActshiftError(f"--draws {number} is impossible: it must be 2 or more")
    if seed < 0:
        raise ActshiftError(f"--seed {seed} is impossible: it must be 0 or more")
    if c is not None and not 0 < c < math.inf:
        raise ActshiftError(f"--c {c:g} is impossible: it must be a number above 0")
    counts_BN = bootstrap.draws(len(every[0].instructions), number=number, seed=seed)
    rows = []
    for each in every:
        lc = lc_draws = None
        if data is not None:
            difficulty_N = data.difficulty_N(each, by_row=by_row)
            lc = length_controlled(each, difficulty_N, data.gamed, c=c)
            lc_draws = bootstrap.lc_win_rates(each, difficulty_N, data.gamed, counts_BN, c=lc.c)
        draws = bootstrap.win_rates(each, counts_BN)
        rows.append(Summary(each, win_rate(each), by_position(each), lc, draws, lc_draws))
    return rows


def comparisons(rows: Sequence[Summary], against: str) -> list[Comparison]:
    """Every other model less the one that is named. Errors: a model that is not in the table."""
    named = {row.judgments.model: row for row in rows}
    if against not in named:
        raise unknown("model", against, named, where="--against")
    return [compared(row, named[against]) for row in rows if row.judgments.model != against]


def compared(ours: Summary, other: Summary) -> Comparison:
    """The paired difference of two rows of one table."""
    lc = lc_spread = None
    if ours.lc and other.lc and ours.lc_draws is not None and other.lc_draws is not None:
        lc, lc_spread = ours.lc.win_rate - other.lc.win_rate, bootstrap.spread(ours.lc_draws - other.lc_draws)
    win_spread = bootstrap.spread(ours.draws - other.draws)
    names = ours.judgments.model, other.judgments.model
    return Comparison(*names, ours.win.win_rate - other.win.win_rate, win_spread, lc, lc_spread)
