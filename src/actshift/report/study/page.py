"""The page of one or more studies: question, design, result, what it says of the paper, what it does not say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from actshift.planning.fraction import Contrast
from actshift.report import names
from actshift.report.markdown_text import table
from actshift.report.study.claims import CLAIMS
from actshift.report.study.design import Study
from actshift.report.study.effects import ALL, Effect, estimated
from actshift.report.study.texts import QUESTION, UNSAID
from actshift.report.study.variance import RESIDUAL, varying

NAMED = 6
"""As many combinations with one number of parameters are named; more are counted."""


@dataclass(frozen=True)
class Findings:
    """A study with what was computed from it, and the figures that are written beside the page, by name."""

    study: Study
    effects: list[Effect]
    variance: pd.DataFrame
    figures: Mapping[str, str]


def markdown(found: Sequence[Findings], *, command: str) -> str:
    """The page. `command` is what wrote it."""
    parts = ["# Where to intervene, and how", f"Written by `{command}` from the records of the runs.", "## In short"]
    parts += [_short(each) for each in found]
    parts += ["## The question", QUESTION, "## The design"]
    for each in found:
        parts += _design(each)
    parts.append("## The result")
    for each in found:
        parts += _result(each)
    parts.append("## What it says of the paper's statements")
    for name, claim in CLAIMS.items():
        parts += [f"### {claim.title}", f"{claim.text} {claim.bears}", _bullets(name, found)]
    parts += ["## What it does not say", UNSAID, "## To continue, and to write this page", _commands(found, command)]
    return "\n\n".join(parts) + "\n"


def _short(found: Findings) -> str:
    """What survives, what does not, and how small the differences are that would have been seen."""
    study = found.study
    if not found.effects:
        return f"{names.model(study.model)}: {study.done} of {study.planned} cells are finished, and no contrast yet."
    tested = [each for each in found.effects if each.dataset != ALL]
    shown = [each for each in tested if each.shown]
    lines = [
        f"{names.model(study.model)}, {study.done} of {study.planned} cells finished. Differences that survive "
        f"their test: {len(shown)} of {len(tested)}."
    ]
    quiet = []
    for contrast in study.fraction.contrasts:
        sizes = [f"{names.dataset(e.dataset)} {e.difference:+.1f} points" for e in shown if e.contrast is contrast]
        if sizes:
            lines.append(f"* Shown, {contrast.about}: {_and(sizes)}.")
        elif any(each.contrast is contrast for each in tested):
            quiet.append(contrast.about)
    if quiet:
        lines.append(f"* Not shown: {'; '.join(quiet)}.")
    return "\n".join([lines[0], "", *lines[1:]])


def _design(found: Findings) -> Iterator[str]:
    study = found.study
    yield f"### {study.title} (`{study.name}`)"
    done, planned = study.grid_runs
    yield (
        f"{names.model(study.model)} on {_and([names.dataset(each) for each in study.datasets])}; "
        f"{len(study.fraction.contrasts)} contrasts were named in `conf/sweep/{study.name}.yaml` before the first test "
        "row was answered, and the frozen plan has them. A cell is a combination, or a method beside them, on one data "
        "set: its learning rate is chosen on validation rows with one seed, and it is finished when the test rows are "
        f"answered by every seed ({_and([str(seed) for seed in study.seeds])}). **{study.done} of {study.planned} "
        f"cells are finished**, and {done} of {planned} runs of the grids. The combinations are whole products of "
        "some levels, each with an analysis of variance of its own:"
    )
    rows = [
        (str(number), *(", ".join(f"`{level}`" for level in levels) for levels in block.values()))
        for number, block in enumerate(study.fraction.blocks, start=1)
    ]
    yield table(("block", *study.fraction.blocks[0]), rows)
    trained = [
        (_named(str(name)), f"{int(group['trainable_parameters'].max()):,}")
        for name, group in study.cells.groupby("method", sort=False)
        if group["trainable_parameters"].notna().any()
    ]
    if trained:
        yield f"Trained numbers: {_numbers(trained)}."


def _named(row: str) -> str:
    """A row of the table: the name of a method, or of a combination as code."""
    return f"`{row}`" if names.method(row) == row else names.method(row)


def _numbers(rows: Sequence[tuple[str, str]]) -> str:
    """What trains by number, the rows with the same number together."""
    by_number: dict[str, list[str]] = {}
    for name, number in rows:
        by_number.setdefault(number, []).append(name)
    return "; ".join(
        f"{number} for {_and(group) if len(group) <= NAMED else f'each of {len(group)} combinations'}"
        for number, group in by_number.items()
    )


def _result(found: Findings) -> Iterator[str]:
    study = found.study
    yield f"### {study.title}"
    if not found.effects:
        yield f"No pair of a contrast is finished yet: {study.done} of {study.planned} cells are."
        return
    for name, about in (("combinations", "every run"), ("contrasts", "contrasts with 95% intervals")):
        if name in found.figures:
            yield f"![{study.title}: {about}]({found.figures[name]})"
    widths = [(each.interval.high - each.interval.low) / 2 for each in found.effects if each.dataset != ALL]
    survive = sum(each.shown for each in found.effects)
    yield (
        f"Differences that survive their test: {survive} of {len(widths)} (Holm over the {_family(study)} that were "
        f"planned). Half of the intervals reach no further than {median(widths):.1f} points to each side."
    )
    columns = [*study.datasets, *([ALL] if any(each.dataset == ALL for each in found.effects) else [])]
    heads = ["mean" if column == ALL else names.dataset(column) for column in columns]
    yield table(
        ("difference (points)", "what", *heads), [_row(each, found, columns) for each in study.fraction.contrasts]
    )
    yield (
        "Bold: it survives its test. In brackets the 95% interval over test rows and seeds; `n/m` says that n of m "
        "pairs of "
        "combinations are finished. The means over data sets are not tested."
    )
    if not found.variance.empty:
        yield "How much of the differences between runs each factor explains (shares of the sum of squares):"
        yield _shares(found)
    yield from _edges(study)


def _family(study: Study) -> int:
    return len(study.fraction.contrasts) * len(study.datasets)


def _row(contrast: Contrast, found: Findings, columns: Sequence[str]) -> list[str]:
    effects = {each.dataset: each for each in found.effects if each.contrast is contrast}
    return [f"`{contrast.name}`", contrast.about, *(_cell(effects.get(column)) for column in columns)]


def _cell(effect: Effect | None) -> str:
    if effect is None:
        return "not finished"
    number = f"{effect.difference:+.1f}"
    share = "" if effect.pairs == effect.planned else f" {effect.pairs}/{effect.planned}"
    size = f"**{number}**" if effect.shown else number
    return f"{size} [{effect.interval.low:+.1f}, {effect.interval.high:+.1f}]{share}"


def _shares(found: Findings) -> str:
    rows = []
    for (block, dataset), group in found.variance.groupby(["block", "dataset"], sort=False):
        factors = varying(found.study.fraction.blocks[int(str(block)) - 1])
        texts = [_share(line) for line in group.itertuples()]
        rows.append((str(block), names.dataset(str(dataset)), " x ".join(factors), "; ".join(texts)))
    return table(("block", "data set", "factors", "share of the sum of squares (partial eta squared at 95%)"), rows)


def _share(line: Any) -> str:
    source = str(line.source).replace(":", " x ")
    if line.source == RESIDUAL or pd.isna(line.partial):
        return f"{'seeds' if line.source == RESIDUAL else source} {100 * line.share:.0f}%"
    return f"{source} {100 * line.share:.0f}% ({line.partial_low:.2f} to {line.partial_high:.2f})"


def _edges(study: Study) -> Iterator[str]:
    """Which choices of a learning rate are not interior."""
    chosen = study.cells[study.cells["n_finished"].gt(0)]
    tied = chosen[chosen["lr_edge"].ne("") & chosen["mean"].eq(0)]
    edges = chosen[chosen["lr_edge"].ne("") & chosen["mean"].ne(0)]
    inside = len(chosen) - len(tied) - len(edges)
    text = f"Of {len(chosen)} chosen learning rates {inside} lie inside their grid"
    if len(edges):
        text += f", {len(edges)} at an edge of it ({_listed(edges)})"
    if len(tied):
        text += f", and {len(tied)} are ties of rates none of which answers anything right ({_listed(tied)})"
    yield f"{text}."


def _listed(cells: pd.DataFrame) -> str:
    return "; ".join(f"`{row.method}` on {names.dataset(str(row.dataset))}" for row in cells.itertuples())


def _bullets(claim: str, found: Sequence[Findings]) -> str:
    """A line for each contrast and data set that bears on a claim, and for ListOps beside others."""
    lines = []
    for each in found:
        effects = [effect for effect in each.effects if effect.contrast.claim == claim and effect.dataset != ALL]
        if claim == "listops":
            extra = [effect for effect in each.effects if effect.contrast.name == "post_block"]
            effects = [effect for effect in [*extra, *effects] if effect.dataset == "listops"]
        lines += [f"* {sentence(effect, each.study)}" for effect in effects]
        if claim == "listops":
            lines += list(_beside(each))
        named = [contrast for contrast in each.study.fraction.contrasts if contrast.claim == claim]
        if named and not effects:
            reason = "has no ListOps" if claim == "listops" and "listops" not in each.study.datasets else "not finished"
            lines.append(f"* {names.model(each.study.model)}: {reason}.")
    return "\n".join(lines) or "No study here bears on it."


def sentence(effect: Effect, study: Study) -> str:
    """An effect in words: its size, whether it is shown, and what the data exclude."""
    where = f"{names.model(study.model)}, {names.dataset(effect.dataset)}"
    low, high = effect.interval.low, effect.interval.high
    size = f"{effect.difference:+.1f} points (95%: {low:+.1f} to {high:+.1f}; adjusted p {_p(effect.p_holm)})"
    if effect.shown:
        verdict = "a gain is shown" if effect.difference > 0 else "a loss is shown"
    else:
        verdict = "no difference is shown"
    if low > 0 or high < 0:
        excluded = f"a {'gain' if low > 0 else 'loss'} of less than {min(abs(low), abs(high)):.1f} points is excluded"
        excluded += "" if effect.shown else " before adjustment"
    else:
        excluded = f"a gain above {high:.1f} points and a loss beyond {-low:.1f} are excluded"
    part = "" if effect.pairs == effect.planned else f" ({effect.pairs} of {effect.planned} pairs)"
    floor = ""
    if effect.floors:
        floor = f" In {effect.floors} of {effect.pairs} pairs neither side answers anything right: a floor."
    return f"{where}{part}, {effect.contrast.about}: {size}. **{verdict.capitalize()}**; {excluded}.{floor}"


def _p(value: float | None) -> str:
    return "-" if value is None else "below 0.001" if value < 0.001 else f"{value:.3f}"


def _beside(found: Findings) -> Iterator[str]:
    """Whether what ListOps is explained by is larger there than on another data set."""
    study = found.study
    for contrast in study.fraction.contrasts:
        if "listops" not in study.datasets or not (contrast.name == "post_block" or contrast.claim == "listops"):
            continue
        here = estimated(study, contrast, "listops")
        for other in (dataset for dataset in study.datasets if dataset != "listops"):
            there = estimated(study, contrast, other)
            if here is not None and there is not None:
                gap = (here - there).difference(bound=2.0)
                yield (
                    f"* {names.model(study.model)}, {contrast.about}: {gap.difference:+.1f} points more on ListOps "
                    f"than on "
                    f"{names.dataset(other)} (95%: {gap.interval.low:+.1f} to {gap.interval.high:+.1f}; p "
                    f"{_p(gap.p)}, not "
                    "adjusted: it was not among the contrasts)."
                )


def _commands(found: Sequence[Findings], command: str) -> str:
    """Two commands: one trains or continues, one writes the page."""
    local = {each.study.name for each in found if each.study.cells["source"].eq("local").any()}
    lines = [
        f"actshift sweep {each.study.name} --extend execution=replicas"
        + (" data.dir=FOLDER" if each.study.name in local else "")
        for each in found
    ]
    note = "they train for hours" + ("; FOLDER has the data sets in the hub's schema" if local else "")
    return "\n".join([f"<!-- not run: {note} -->", "```bash", *lines, command, "```"])


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
