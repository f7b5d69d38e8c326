"""Statements judged: every form on its draws, the worst case by search, and the smallest counterexample."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from actshift.analysis.theory.search import smallest_counterexample, value_of, worst
from actshift.analysis.theory.statements import Check, Draw, Entry, Example, Form, Sizes, Statement

SEARCHED = "worst case by search"
OF_A_MODEL = 10
"""An example from a model is large: there are so many times fewer draws."""


@dataclass(frozen=True)
class Settings:
    """How hard statements are tried: draws a family and their sizes, the search's sizes, climbs and steps, the seed."""

    draws: int
    sizes: Sizes
    searched: Sizes
    restarts: int
    steps: int
    seed: int


def evaluate(statements: Iterable[Statement], settings: Settings) -> list[Entry]:
    """Every statement with its checks. Each has random numbers of its own, so that no statement moves another."""
    return [entry_of(statement, settings) for statement in statements]


def entry_of(statement: Statement, settings: Settings) -> Entry:
    """One statement judged, with a counterexample where its printed form fails."""
    checks = tuple(_checks(statement, settings))
    failed = [check.family for check in checks if check.role == "printed" and not check.holds]
    found = _counterexample(statement, settings, failed) if failed else None
    return Entry(statement, checks, found)


def _checks(statement: Statement, settings: Settings) -> Iterator[Check]:
    yield from _on_draws("printed", statement.printed, statement.draws, statement, settings)
    if statement.condition is not None:
        yield from _on_draws("condition", statement.printed, statement.condition.draws, statement, settings)
    if statement.corrected is not None:
        yield from _on_draws("corrected", statement.corrected, statement.draws, statement, settings)
    for form in statement.also:
        yield from _on_draws("also", form, statement.draws, statement, settings)


def _on_draws(
    role: str, form: Form, draws: Mapping[str, Draw], statement: Statement, settings: Settings
) -> Iterator[Check]:
    drawn = draws if role == "condition" else {**draws, **statement.real}
    for family, draw in drawn.items():
        rng = _numbers(settings.seed, statement.name, role, form.says, family)
        count = max(1, settings.draws // OF_A_MODEL) if family in statement.real else settings.draws
        values = [value_of(form.measure, draw(rng, settings.sizes)) for _ in range(count)]
        decided = [value for value in values if value > -np.inf]
        if decided or role != "also":
            yield _check(role, form, family, decided)
    if statement.searched:
        rng = _numbers(settings.seed, statement.name, role, form.says, SEARCHED)
        found = [
            worst(form, draw, settings.searched, rng, restarts=settings.restarts, steps=settings.steps)[0]
            for draw in draws.values()
        ]
        yield _check(role, form, SEARCHED, [max(found)], tried=len(found) * settings.restarts * settings.steps)


def _check(role: str, form: Form, family: str, values: list[float], *, tried: int | None = None) -> Check:
    """The check of some values. No value at all decides nothing: it does not hold."""
    top = max(values, default=float("inf"))
    within = sum(form.holds(value) for value in values) / max(1, len(values)) if tried is None else None
    draws = len(values) if tried is None else tried
    return Check(role, form.says, form.kind, family, draws, within, top, form.limit, form.holds(top))


def _counterexample(statement: Statement, settings: Settings, failed: list[str]) -> Mapping[str, object] | None:
    found = smallest_counterexample(
        statement.printed,
        {family: draw for family, draw in statement.draws.items() if family in failed} or dict(statement.draws),
        statement.smallest,
        _numbers(settings.seed, statement.name, "counterexample"),
        tries=40,
        steps=settings.steps,
        kept=statement.kept,
    )
    if found is None:
        return None
    sizes, value, example = found
    return {"sizes": vars(sizes), "value": value, "limit": statement.printed.limit, "example": plain(example)}


def plain(example: Example) -> dict[str, object]:
    """An example as lists, numbers rounded to 12 digits."""
    return {name: array if isinstance(array, str) else np.round(array, 12).tolist() for name, array in example.items()}


def _numbers(seed: int, *words: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("|".join(words).encode())])
