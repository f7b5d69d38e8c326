"""Tables on a terminal, drawn by rich from what other rooms compute; those of data frames are in `terminal_frames`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from actshift.data.overlaps import Overlap
    from actshift.estimates.sweep import Estimates, PlanRow
    from actshift.planning.status import CellStatus, Status
    from actshift.report import memory
    from actshift.store.adapter_card import AdapterCard
    from actshift.store.records import Cell


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, legend: str) -> Group:
    """A table of texts, the first column to the left and the others to the right, above its legend."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(table, Text(legend))


def plan_table(estimates: Estimates) -> Table:
    """A row for each model and method: runs of both stages, device hours by precision, the largest peak, hardware.

    The hours of the planned precision have a star.
    """
    from actshift.schema.config import BYTES

    table = Table(box=None, pad_edge=False)
    for name in ("model", "method", "hardware"):
        table.add_column(name, no_wrap=True)
    hours = [f"{precision} h " for precision in BYTES]
    for name in ("grid runs", "final runs", *hours, "peak GB"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("")
    rows = list(estimates.rows())
    for row in rows:
        runs = f"{row.grid_runs:,}", f"{row.final_runs:,}"
        peak = f"{row.peak_bytes / 1e9:.1f}"
        table.add_row(row.model, row.method, row.hardware, *runs, *_hours([row]), peak, row.note)
    table.add_section()
    totals = f"{sum(r.grid_runs for r in rows):,}", f"{sum(r.final_runs for r in rows):,}"
    table.add_row("all", "", "", *totals, *_hours(rows), "", estimates.basis())
    return table


def _hours(rows: Sequence[PlanRow]) -> list[str]:
    """Device hours by precision; a star stands at the precision of the plan, where all rows have one."""
    from actshift.schema.config import BYTES

    planned = {row.precision for row in rows}
    return [
        f"{sum(row.hours[precision] for row in rows):,.1f}{'*' if planned == {precision} else ' '}"
        for precision in BYTES
    ]


def status_table(status: Status) -> Table:
    """The cells of a sweep: a column for each stage, `done/all` and what is wrong."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "method", "dataset", *status.stages):
        table.add_column(column, no_wrap=True)
    rows: dict[Cell, dict[str, CellStatus]] = {}
    for each in status.cells:
        rows.setdefault(each.cell, {})[each.stage] = each
    for cell, stages in rows.items():
        states = (_state(stages.get(stage)) for stage in status.stages)
        table.add_row(cell.model, cell.method, cell.dataset, *states)
    return table


def _state(cell: CellStatus | None) -> str:
    from actshift.planning.status import DROPPED

    if cell is None or not sum(cell.states.values()):
        return "-"
    parts = [f"{cell.states['done']}/{sum(cell.states.values())}"]
    parts += [f"{cell.states[state]} {state}" for state in ("running", "failed", DROPPED) if cell.states.get(state)]
    parts += [f"{cell.stale} stale"] if cell.stale else []
    return " ".join(parts)


def adapters_table(cards: Sequence[tuple[Path, AdapterCard]]) -> Table:
    """The adapters of a results folder."""
    from actshift.store.adapter_card import TENSORS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("Adapter", "Model", "Method", "Data set", "Protocol", "Lr", "Seed", "Trained", "MB", ""):
        table.add_column(name, justify="right" if name in ("Lr", "Seed", "Trained", "MB") else "left")
    for folder, card in sorted(cards, key=_order):
        table.add_row(
            card.identity,
            *(card.model.name, card.method.name, f"{card.dataset} ({card.source})", card.protocol),
            *(f"{card.lr:g}", str(card.seed), f"{card.trainable_parameters:,}"),
            f"{(folder / TENSORS).stat().st_size / 1e6:.1f}" if (folder / TENSORS).exists() else "missing",
            "diverged" if card.diverged else "",
        )
    return table


def _order(entry: tuple[Path, AdapterCard]) -> tuple[Any, ...]:
    card = entry[1]
    return card.model.name, card.method.name, card.dataset, card.protocol, card.lr, card.seed, card.identity


def overlaps_table(pairs: Iterable[Overlap], keys: Mapping[str, Sequence[str]]) -> Table:
    """Pairs of splits that share questions; `keys` has the question keys of each split."""
    table = Table("split", "rows", "of them repeated in", "rows", "of them repeated in the first")
    for pair in pairs:
        counts = [f"{number:,}" for number in (pair.in_first, pair.in_second)]
        rows = [f"{len(keys[name]):,}" for name in (pair.first, pair.second)]
        table.add_row(pair.first, rows[0], f"{pair.second}: {counts[0]}", rows[1], counts[1])
    return table


def memory_table(rows: Sequence[memory.Row]) -> Group:
    """Peak memory by model and method, from `report.memory.rows_of`."""
    from actshift.report import memory

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(memory.COLUMNS + memory.CARD_COLUMNS):
        table.add_column(name, justify="right" if 2 <= index < len(memory.COLUMNS) else "left")
    for index, row in enumerate(rows):
        table.add_row(*memory.texts(row))
        if row is rows[-1] or rows[index + 1].config.model != row.config.model:
            table.add_section()
    return Group(Text(memory.title(rows)), table, *map(Text, memory.LEGEND))
