"""The rules of claims about accuracies and parameters, each from a table to the question whether a condition holds.

A rule's keyword arguments are the keys of its claim in `paper/claims.toml`. The same rule judges the paper's printed
numbers and our records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actshift.report import names
from actshift.report.audit.finding import HALF
from actshift.report.claims.accuracies import Accuracies
from actshift.report.claims.estimates import Check, Condition, Estimate, Item, NotThere, difference, mean

Arguments = Mapping[str, Any]


def average(table: Accuracies, arguments: Arguments) -> Check:
    """The mean difference over data sets, of the best of `methods` (with `each`: of each) to the best of `others`."""
    items = []
    for model in models_of(table, arguments):
        chosen = arguments["methods"] if arguments.get("each") else [table.best_on_average(model, arguments["methods"])]
        for method in chosen:
            other = table.best_on_average(model, arguments["others"])
            label = names.method(method) if arguments.get("each") else names.model(model)
            items.append(Item(label, table.average(model, method, other)))
    note = _one_dataset(table, arguments) if arguments.get("each") else _cells_note(table, arguments)
    return Check(tuple(items), condition(arguments), note=note)


def _one_dataset(table: Accuracies, arguments: Arguments) -> str:
    """The averages without the data set that makes more than half of them, where one does."""
    (model,), (other,) = models_of(table, arguments), arguments["others"]
    notes = []
    for method in arguments["methods"]:
        gaps = {dataset: table.difference(model, dataset, method, other).value for dataset in table.datasets}
        top = max(gaps, key=lambda dataset: abs(gaps[dataset]))
        if abs(gaps[top]) > abs(sum(gaps.values())) / 2 and len(gaps) > 1:
            rest = (sum(gaps.values()) - gaps[top]) / (len(gaps) - 1)
            notes.append(f"{names.method(method)} {rest:+.1f} without {names.dataset(top)}")
    return ", ".join(notes)


def _cells_note(table: Accuracies, arguments: Arguments) -> str:
    """In how many cells the averaged difference is above and below 0, where averages speak of one method each side."""
    if len(arguments["methods"]) > 1 or len(arguments["others"]) > 1 or arguments.get("magnitude"):
        return ""
    values = [gap.estimate.value for gap in _gaps(table, arguments)]
    above, below = sum(value > 1e-9 for value in values), sum(value < -1e-9 for value in values)
    return f"above in {above} of {len(values)} cells, below in {below}, equal in {len(values) - above - below}"


def cells(table: Accuracies, arguments: Arguments) -> Check:
    """In each cell, the difference of the best of `methods` to the best of `others`; it must hold in most cells."""
    items = _gaps(table, arguments)
    return Check(tuple(items), condition(arguments), "every" if len(items) == 1 else "most")


def largest(table: Accuracies, arguments: Arguments) -> Check:
    """The largest difference over cells of the best of `methods` to the best of `others` is the `printed` one."""
    items = _gaps(table, arguments)
    top = max(items, key=lambda item: item.estimate.value)
    printed = arguments["printed"]
    note = ""
    if abs(top.estimate.value - printed) > HALF:
        note = _what_is_printed(table, arguments, printed)
    return Check((top,), Condition(printed - HALF, printed + HALF), note=note)


def _what_is_printed(table: Accuracies, arguments: Arguments, printed: float) -> str:
    """Which other comparison has the printed figure, where one does."""
    for other in arguments["others"]:
        for item in _gaps(table, {**arguments, "others": [other]}):
            if abs(item.estimate.value - printed) <= HALF:
                return f"{printed} is the difference to {names.method(other)} alone ({item.label})"
    return ""


def pronounced(table: Accuracies, arguments: Arguments) -> Check:
    """The mean difference over models is larger on `dataset` than on any other data set."""
    (method,), (other,) = arguments["methods"], arguments["others"]
    gaps = {
        dataset: mean([table.difference(model, dataset, method, other) for model in models_of(table, arguments)])
        for dataset in table.datasets
    }
    if arguments["dataset"] not in gaps or len(gaps) == 1:
        table.accuracy(table.models[0], arguments["dataset"], method)  # says what is not there
    there = gaps.pop(arguments["dataset"])
    items = [Item(f"over {names.dataset(name)}", difference(there, gap)) for name, gap in gaps.items()]
    shown = ", ".join(f"{names.dataset(name)} {gap.value:+.1f}" for name, gap in gaps.items())
    return Check(tuple(items), Condition(0.0, strict=True), note=f"mean gaps: {there.value:+.1f}, elsewhere {shown}")


def shares(table: Accuracies, arguments: Arguments) -> Check:
    """The shares of trained parameters lie within bounds, all of them."""
    pairs = [(model, method) for model in models_of(table, arguments) for method in arguments["methods"]]
    items = [
        Item(f"{names.model(model)}, {names.method(method)}", Estimate(table.share(model, method), 0.0))
        for model, method in pairs
    ]
    return Check(tuple(items), condition(arguments))


def ratio(table: Accuracies, arguments: Arguments) -> Check:
    """The trained parameters of `method` over those of `other` lie within bounds on any model."""
    method, other = arguments["method"], arguments["other"]
    items = [
        Item(names.model(model), Estimate(table.trained(model, method) / table.trained(model, other), 0.0))
        for model in models_of(table, arguments)
    ]
    return Check(tuple(items), condition(arguments), "any")


def deviations(table: Accuracies, arguments: Arguments) -> Check:
    """The logarithm of the deviation over seeds of `other` over that of `method`, in each cell.

    Its 95% interval is that of a ratio of two variances, wide with five runs.
    """
    from scipy.special import fdtri  # scipy.stats takes a second to import

    method, other, items = arguments["method"], arguments["other"], []
    for model in models_of(table, arguments):
        for dataset in arguments.get("datasets") or table.datasets:
            (ours, runs), (theirs, others) = (table.deviation(model, dataset, name) for name in (method, other))
            place = f"{names.model(model)}, {names.dataset(dataset)}"
            if not (ours > 0 and theirs > 0 and min(runs, others) > 1):
                raise NotThere(f"needs 2 runs and more that differ: {place}")
            half = math.log(fdtri(runs - 1, others - 1, 0.975)) / 2 if table.over_seeds else 0.0
            estimate = Estimate(math.log(theirs / ours), half, half, min(runs, others) if table.over_seeds else 0)
            items.append(Item(place, estimate))
    return Check(tuple(items), condition(arguments), "most", note="logarithms of ratios of deviations")


def models_of(table: Accuracies, arguments: Arguments) -> Sequence[str]:
    """The models that the claim names, or all of the table."""
    return arguments.get("models") or table.models


def condition(arguments: Arguments) -> Condition:
    """`above` (more than), or `low` and `high` (at least, at most), of the size with `magnitude`."""
    if "above" in arguments:
        return Condition(arguments["above"], strict=True)
    low, high = arguments.get("low", -math.inf), arguments.get("high", math.inf)
    return Condition(low, high, magnitude=bool(arguments.get("magnitude")))


def _gaps(table: Accuracies, arguments: Arguments) -> list[Item]:
    items = []
    for model in models_of(table, arguments):
        for dataset in arguments.get("datasets") or table.datasets:
            method, other = (table.best(model, dataset, arguments[side]) for side in ("methods", "others"))
            label = f"{names.model(model)}, {names.dataset(dataset)}"
            items.append(Item(label, table.difference(model, dataset, method, other)))
    return items


RULES: dict[str, Callable[[Accuracies, Arguments], Check]] = {
    "average": average,
    "cells": cells,
    "largest": largest,
    "pronounced": pronounced,
    "shares": shares,
    "ratio": ratio,
    "deviations": deviations,
}
