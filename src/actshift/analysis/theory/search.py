"""Worst cases and smallest counterexamples: a random climb, and the simplification of what it finds."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from actshift.analysis.theory.statements import BOUND, EQUALITY, EXISTS, ORDER, Draw, Example, Form, Measure, Sizes

MARGINS = {EQUALITY: 1e-3, BOUND: 1e-3, ORDER: 0.2, EXISTS: 5e-4}
"""How far beyond the limit a counterexample lies, by kind of form: no rounding makes one.

A slope is a fit: where terms of second and third order cancel at one step, it is off by some hundredths.
"""


def value_of(measure: Measure, example: Example) -> float:
    """The measure of an example; -inf where a statement says nothing about it (0 / 0, no solution)."""
    with np.errstate(all="ignore"):
        try:
            value = float(measure(example))
        except (np.linalg.LinAlgError, ZeroDivisionError):
            return -np.inf
    return -np.inf if np.isnan(value) else value


def climb(
    measure: Measure, start: Example, rng: np.random.Generator, *, steps: int, enough: float = np.inf
) -> tuple[float, Example]:
    """The largest value that a climb from `start` reaches, and where.

    Each step adds normal noise to every array, and stays if the value is higher. The noise grows after a success and
    shrinks after a failure, so that one in five steps succeeds (Rechenberg's rule).
    """
    best, place, noise = value_of(measure, start), start, 0.3
    for _ in range(steps):
        if best > enough:
            break
        near = {name: _moved(array, noise, rng) for name, array in place.items()}
        value = value_of(measure, near)
        if value > best:
            best, place, noise = value, near, min(noise * 1.5, 3.0)
        else:
            noise = max(noise * 0.9, 1e-4)
    return best, place


def _moved(array: np.ndarray | str, noise: float, rng: np.random.Generator) -> np.ndarray | str:
    if isinstance(array, str):
        return array
    scale = noise * max(1e-3, float(np.sqrt(np.mean(array**2))) if array.size else 0.0)
    return array + scale * rng.standard_normal(array.shape)


def worst(
    form: Form, draw: Draw, sizes: Sizes, rng: np.random.Generator, *, restarts: int, steps: int
) -> tuple[float, Example]:
    """The worst value that `restarts` climbs of `steps` steps find, and its example."""
    found = [climb(form.measure, draw(rng, sizes), rng, steps=steps) for _ in range(restarts)]
    return max(found, key=lambda pair: pair[0])


def smallest_counterexample(
    form: Form,
    draws: dict[str, Draw],
    sizes: tuple[Sizes, ...],
    rng: np.random.Generator,
    *,
    tries: int,
    steps: int,
    kept: Collection[str] = (),
) -> tuple[Sizes, float, Example] | None:
    """A counterexample at the smallest of `sizes` at which one is found, with as simple entries as still refute."""
    for size in sizes:
        for example in _candidates(form, draws, size, rng, tries=tries, steps=steps):
            simple = simplified(form, example, kept=kept)
            return size, value_of(form.measure, simple), simple
    return None


def _candidates(
    form: Form, draws: dict[str, Draw], size: Sizes, rng: np.random.Generator, *, tries: int, steps: int
) -> Iterator[Example]:
    drawn = [draw(rng, size) for draw in draws.values() for _ in range(tries)]
    yield from (example for example in drawn if refutes(form, example))
    for example in drawn[:: max(1, len(drawn) // 4)] if form.kind != ORDER else ():
        value, place = climb(form.measure, example, rng, steps=steps, enough=form.limit + MARGINS[form.kind])
        if np.isfinite(value) and refutes(form, place):
            yield place


def refutes(form: Form, example: Example) -> bool:
    """Whether an example exceeds the limit of a form by the margin."""
    return value_of(form.measure, example) > form.limit + MARGINS[form.kind]


def simplified(form: Form, example: Example, *, kept: Collection[str] = ()) -> Example:
    """The example with each number replaced by the simplest one with which it still refutes the form.

    Whole arrays first (zeros, ones on the diagonal, whole numbers), then entries: 0, 1, -1, the nearest whole number,
    the nearest half, one digit behind the point. Arrays in `kept` stay.
    """
    current = {name: np.array(array) if not isinstance(array, str) else array for name, array in example.items()}
    for name, array in current.items():
        if not isinstance(array, str) and name not in kept:
            current[name] = _simple_array(form, current, name, array)
    for _ in range(3):
        changed = False
        for name, array in current.items():
            if not isinstance(array, str) and name not in kept:
                changed |= _simplify_array(form, current, name, array)
        if not changed:
            break
    return current


def _simple_array(form: Form, current: Example, name: str, array: np.ndarray) -> np.ndarray:
    diagonal = np.eye(*array.shape) if array.ndim == 2 else np.ones_like(array)
    for simple in (np.zeros_like(array), diagonal, np.round(array)):
        if refutes(form, current | {name: simple}):
            return simple
    return array


def _simplify_array(form: Form, current: Example, name: str, array: np.ndarray) -> bool:
    changed = False
    for index in np.ndindex(array.shape):
        old = array[index]
        for new in (0.0, 1.0, -1.0, np.round(old), np.round(2 * old) / 2, np.round(old, 1)):
            if new == old:
                break
            array[index] = new
            if refutes(form, current):
                changed = True
                break
            array[index] = old
    return changed
