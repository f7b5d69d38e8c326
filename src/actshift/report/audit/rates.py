"""Chosen learning rates (Tables 8 to 10) against the printed grids (Appendix F.2), and those against themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.finding import Finding, Severity, listed, place

FAMILIES = {8: "steering_r8", 9: "steering_r1_vector", 10: "joint"}
"""Which family's grid a table of chosen rates was searched on."""


def rates() -> Iterator[Finding]:
    """Grids out of order, chosen rates outside their grid, and sizes of models that no grid is printed for."""
    printed: Any = paper.learning_rate_grids().groupby(["scale", "family"])["lr"]
    grids: dict[tuple[str, str], list[float]] = {key: list(group) for key, group in printed}
    for (scale, family), grid in grids.items():
        for slip, meant in slips(grid).items():
            where = f"Appendix F.2, {scale.upper()}, {family}"
            text = f"{_shown(grid)} is not in order; {meant:g} would be"
            yield Finding("rate", where, f"{slip:g}", text, float(f"{slip - meant:.3g}"), Severity.TYPO)
    for number, family in FAMILIES.items():
        yield from _chosen(number, {scale: grid for (scale, name), grid in grids.items() if name == family})


def slips(grid: Sequence[float]) -> dict[float, float]:
    """Values of a grid that stand above the one after them, each with the power of ten of it that would be in order."""
    found: dict[float, float] = {}
    for place_, value in enumerate(grid[:-1]):
        if value > grid[place_ + 1]:
            low = grid[place_ - 1] if place_ else 0.0
            powers = (float(f"{value * 10.0**shift:.6g}") for shift in (-1, -2, -3))
            fitting = [power for power in powers if low < power < grid[place_ + 1]]
            found.update(dict.fromkeys([value], fitting[0]) if fitting else {})
    return found


def _chosen(number: int, grids: Mapping[str, list[float]]) -> Iterator[Finding]:
    table = paper.table(number)
    table["scale"] = table["model"].str.rsplit("-", n=1).str[-1]
    for model, rows in table[~table["scale"].isin(grids)].groupby("model", sort=False):
        text = f"grids are printed for {listed([scale.upper() for scale in grids])} models only"
        shown = f"{len(rows)} chosen rates"
        where = f"Table {number}, {names.model(str(model))}"
        yield Finding("rate", where, shown, text, 0.0, Severity.NUMBER, "what was searched is not said")
    for _, row in table[table["scale"].isin(grids)].iterrows():
        grid, rate = grids[row["scale"]], row["lr"]
        if rate not in grid:
            nearest = min(grid, key=lambda lr, chosen=rate: abs(lr - chosen))  # type: ignore[misc]
            slip = rate in slips(grid).values()
            yield Finding(
                "rate",
                place(number, row["model"], row["label"], row["dataset"]),
                f"{rate:g}",
                f"not in the grid {_shown(grid)}",
                float(f"{rate - nearest:.3g}"),
                Severity.TYPO if slip else Severity.NUMBER,
                "in the grid if its value out of order is a slip" if slip else "what was searched",
            )


def _shown(grid: Sequence[float]) -> str:
    return ", ".join(f"{lr:g}" for lr in grid)
