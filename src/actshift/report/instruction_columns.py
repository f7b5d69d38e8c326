"""What a table of instruction tuning shows beside IFEval's accuracy: a judge's win rates, and IFEval's other counts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.paper import printed as paper

if TYPE_CHECKING:
    from actshift.judging.records import JudgedRecord
    from actshift.planning.manifests import Manifest
    from actshift.store.records import Record

ABSENT = "–"
HEADS = ("LC (%)", "Win rate (%)")
IFEVAL_HEAD = "IFEval (%)"
IFEVAL = {"prompts_loose": "loose", "instructions_strict": "by instruction", "instructions_loose": "loose"}
PAPERS_JUDGE = "weighted_alpaca_eval_gpt4_turbo"
INSTRUCTIONS = 805
Key = tuple[str, str]


def ifeval_means(records: Iterable[Record]) -> dict[Key, dict[str, float]]:
    """Means over runs of IFEval's counts beside the accuracy, by model and method."""
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for record in records:
        if all(name in record.metrics for name in IFEVAL):
            groups.setdefault((record.cell.model, record.cell.method), []).append(record.metrics)
    return {
        key: {name: statistics.fmean(metrics[name] for metrics in group) for name in IFEVAL}
        for key, group in groups.items()
    }


def judged_by_cell(records: Iterable[Record], judged: Mapping[str, JudgedRecord]) -> dict[Key, list[JudgedRecord]]:
    """A judge's records by model and method."""
    groups: dict[Key, list[JudgedRecord]] = {}
    for record in records:
        if record.identity in judged:
            groups.setdefault((record.cell.model, record.cell.method), []).append(judged[record.identity])
    return groups


def is_instruction_tuning(cells: pd.DataFrame, manifest: Manifest) -> bool:
    """Whether a table shows IFEval: it is laid out as Table 3, or its records have IFEval's counts."""
    return paper.table_number(manifest.table) == 3 or bool(cells.attrs.get("ifeval"))


def heads(cells: pd.DataFrame) -> tuple[str, ...]:
    """The columns after the share of parameters."""
    return HEADS if cells.attrs.get("judged") else ()


def texts(cells: pd.DataFrame, key: Key) -> tuple[str, ...]:
    """A judge's columns of a row: means over runs, each with its bootstrap error where there is one run."""
    judged = cells.attrs.get("judged")
    if not judged:
        return ()
    found = judged.get(key, [])
    printed = cells.attrs.get("printed_lc", {}).get(key, "")
    lc = [(each.lc["win_rate"], each.lc["bootstrap"]["error"]) for each in found if each.lc]
    win = [(each.win["win_rate"], each.win_spread["error"]) for each in found]
    return f"{_rate(lc)}{printed if _comparable(found) else ''}", _rate(win)


def _rate(pairs: list[tuple[float, float]]) -> str:
    if not pairs:
        return ABSENT
    if len(pairs) == 1:
        return f"{pairs[0][0]:.2f} ±{pairs[0][1]:.2f}"
    values = [value for value, _ in pairs]
    return f"{statistics.fmean(values):.2f} ±{statistics.stdev(values):.2f}"


def _comparable(found: list[JudgedRecord]) -> bool:
    """Whether the paper's judge was asked about all instructions."""
    return bool(found) and all(each.annotator == PAPERS_JUDGE and each.instructions == INSTRUCTIONS for each in found)


def printed_lc(manifest: Manifest, is_the_papers: Any) -> dict[Key, str]:
    """The paper's length-controlled win rates beside cells that are the paper's."""
    if paper.table_number(manifest.table) != 3:
        return {}
    rows = {(row.model, row.method): row for row in paper.table(3).itertuples()}
    return {
        key: f" [paper {rows[key].lc_win_rate:.2f} ±{rows[key].standard_error:.2f}]"
        for plan in manifest.cells
        if (key := (plan.cell.model, plan.cell.method)) in rows and is_the_papers(plan)
    }


def last_heads(cells: pd.DataFrame) -> tuple[str, ...]:
    """The columns after IFEval's accuracy."""
    return tuple(IFEVAL.values()) if cells.attrs.get("ifeval") else ()


def last_texts(cells: pd.DataFrame, key: Key) -> tuple[str, ...]:
    """IFEval's other counts of a row."""
    means = cells.attrs.get("ifeval")
    if not means:
        return ()
    return tuple(f"{means[key][name]:.1f}" if key in means else ABSENT for name in IFEVAL)


def facts(cells: pd.DataFrame) -> list[str]:
    """Sentences on what was tested and who judged."""
    rows = sorted({int(each) for each in cells.attrs.get("test_rows", ())})
    counts = f" ({' or '.join(map(str, rows))} of 541 prompts)" if rows and rows != [541] else ""
    said = [
        f"IFEval{counts}: prompts all of whose instructions are followed, strictly and loosely, then single "
        "instructions; our own checkers."
    ]
    judged = [record for group in cells.attrs.get("judged", {}).values() for record in group]
    if not judged:
        return said
    first = judged[0]
    numbers = sorted({record.instructions for record in judged})
    unjudged = sum(record.win["unjudged"] for record in judged)
    said.append(
        f"LC: length-controlled win rate against {first.reference}, ± the bootstrap's error over instructions "
        f"(standard deviation over seeds where there are several); judge: {first.annotator}; "
        f"{' or '.join(map(str, numbers))} of {INSTRUCTIONS} instructions"
        + (f", {unjudged} answers unjudged." if unjudged else ".")
    )
    lost = sorted({record.lost for record in judged} - {0})
    if lost:
        said.append(f"Instructions of the reference that no output bears, left out: {' or '.join(map(str, lost))}.")
    return said
