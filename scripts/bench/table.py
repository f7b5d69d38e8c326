"""What the benches found, for people: a line when one is done, and a page of all that lie in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import latency, parity

KINDS = ("cell", "evaluation", "replicas", "rate", "scaling", "memory", "latency", "parity", "planner")

HEAD = """# results/bench

Written by `make bench`, one JSON file a bench with the machine in it. Ratios are taken turn by turn, contestants
alternating in one process: median [quartiles]. A figure says how many times as long the other took. "At most" (for
replicas "at least") is what it would be if the project's matrix products ran at the rate of the machine's best one, and
attention and everything else took no time: no order of the same products goes beyond.

"""


def line(name: str, figures: dict[str, Any]) -> str:
    return "  ".join([name, *cells(name, figures)])


def cells(name: str, figures: dict[str, Any]) -> list[str]:
    """What was compared, the figure, what bounds it, and what stands beside it."""
    kind = name.partition("-")[0]
    if kind == "cell":
        memory = [each["above_model_bytes"] for each in figures["contestants"].values()]
        return [
            f"{figures['rival']} / actshift",
            f"{_shown(figures['ratio'])}x (training {figures['ratio_training']['median']}x)",
            _bound("at most", figures),
            f"{_lost(figures)}{_speeds(figures)}; "
            f"peak above the model: {memory[0] / 1e6:.0f} against {memory[1] / 1e6:.0f} MB",
        ]
    if kind == "evaluation":
        return [
            "one prompt at a time / actshift",
            f"{_shown(figures['ratio'])}x",
            _bound("at most", figures),
            f"{figures['answers_equal']} of {figures['rows_scored']} answers equal",
        ]
    if kind == "replicas":
        return ["five rates at once / one", f"{_shown(figures['ratio'])}x", _bound("at least", figures), ""]
    if kind == "rate":
        training, evaluation = figures["training_share"], figures["evaluation_share"]
        product = figures["matmul_operations_per_second"]["median"] / 1e9
        shares = f"training {100 * training['median']:.0f}%, evaluation {100 * evaluation['median']:.0f}%"
        used = f"MFU {100 * figures['mfu']['median']:.0f}%" if "mfu" in figures else ""
        return [f"share of {product:.0f} Gop/s", shares, "", f"precision {figures['precision']} {used}".rstrip()]
    if kind == "memory":
        low, high = figures["lowest"], figures["highest"]
        if low is None:
            return ["peak memory, estimated / measured", "nothing could be measured", "", ""]
        return [
            "peak memory above the model, estimated / measured",
            f"{_shown(figures['ratio'])}x, from {low} to {high}",
            "",
            f"{figures['measured']} of {len(figures['cases'])} cases measured",
        ]
    if kind == "planner":
        span = f"median {figures['median']}, from {figures['lowest']} to {figures['highest']}"
        return ["seconds, estimated / measured", span, "", f"{len(figures['cases'])} cases"]
    if kind == "parity":
        return ["packed passes from plain ones, relative", parity.shown(figures), "", ""]
    if kind == "latency":
        return [
            "a generated token, times of the base's",
            latency.shown(figures),
            "",
            f"precision {figures['precision']}",
        ]
    off = {each: figures[each]["off_the_line"] for each in ("rows", "tokens", "layers")}
    shown = ", ".join(f"{each} {100 * share:.0f}%" for each, share in off.items())
    return ["off a line at most", shown, "", ""]


def _lost(figures: dict[str, Any]) -> str:
    """Rows that the protocol's length leaves without an answer: others compute them for nothing."""
    lost, rows = figures["rows_without_an_answer_left"], figures["rows_trained"]
    return f"{lost} of {rows} rows cut before their answer; " if lost else ""


def _speeds(figures: dict[str, Any]) -> str:
    ours, theirs = (each["tokens_per_second"]["median"] for each in figures["contestants"].values())
    return f"{ours:,.0f} against {theirs:,.0f} tokens/s trained"


def _shown(found: dict[str, float]) -> str:
    return f"{found['median']} [{found['q1']}, {found['q3']}]"


def _bound(side: str, figures: dict[str, Any]) -> str:
    found = figures.get(f"ratio_{side.replace(' ', '_')}")
    return "" if found is None else f"{side} {found}x"


def page(folder: Path) -> str:
    """A table of all benches in a folder."""
    rows, machines = [], set()
    for path in sorted(folder.glob("*.json")):
        figures = json.loads(path.read_text())
        if path.stem.partition("-")[0] in KINDS:
            rows.append(f"| {path.stem} | {' | '.join(cells(path.stem, figures))} |")
            own = figures["machine"]
            machines.add(f"{own.get('device_name') or own['processor']}, {own['threads']} of {own['cores']} cores")
    head = ["| bench | compared | found | bound | beside |", "| --- | --- | --- | --- | --- |"]
    where = f"\nOn {'; '.join(sorted(machines))}. No figure of a GPU is here unless its name is.\n"
    picture = "\n![cost as work grows](scaling.svg)\n" if (folder / "scaling.svg").exists() else ""
    return HEAD + "\n".join([*head, *rows]) + "\n" + where + picture
