"""What the text says of figures, of its runs and of its tables' extent, against what is printed."""

from __future__ import annotations

from collections.abc import Iterator

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.audit.finding import Finding, Severity, listed

DEVIATIONS = names.DEVIATIONS
"""The table of deviations that belongs to a table of accuracies."""


def statements() -> Iterator[Finding]:
    """References to figures that show something else, models that are not there, and tables that are not whole."""
    yield from references()
    yield from _models()
    yield from _coverage()
    yield from _single_runs()


def references() -> Iterator[Finding]:
    """Where the text names a figure for what, by its caption, another figure shows or the caption calls otherwise."""
    figures = {row["figure"]: row["shows"] for row in paper.as_printed("figures").to_dict("records")}
    for row in paper.as_printed("references").to_dict("records"):
        shown, about = figures[row["figure"]], row["about"]
        if shown == about:
            continue
        right = [figure for figure, shows in figures.items() if shows == about]
        yield Finding(
            "reference",
            row["where"],
            row["text"],
            f"Figure {row['figure']} shows, by its caption: {shown}",
            0.0,
            Severity.TYPO,
            f"Figure {listed(right)} is meant" if right else "the caption and the text say two things",
        )


def _models() -> Iterator[Finding]:
    """Models in captions that no table has."""
    known = [names.model(model) for model in paper.table(1)["model"].unique()]
    for row in paper.as_printed("figures").to_dict("records"):
        if row["models"] and row["models"] not in known:
            alike = [name for name in known if name.split("-")[0] == row["models"].split("-")[0]]
            text = f"no such model: the tables have {listed(alike)}"
            yield Finding("reference", f"Figure {row['figure']}, caption", row["models"], text, 0.0, Severity.TYPO)


def _coverage() -> Iterator[Finding]:
    """Section 6: the deviations of Tables 1 and 2 are in Appendix F.3, the chosen rates in Tables 8 and 9."""
    for table, spread in {1: DEVIATIONS[1], 2: DEVIATIONS[2]}.items():
        whole, there = (list(paper.table(number)["dataset"].unique()) for number in (table, spread))
        missing = [names.dataset(name) for name in whole if name not in there]
        if missing:
            text = f"Table {spread} has {len(there)} of the {len(whole)} data sets of Table {table}"
            said = f"the standard deviations of Table {table} are provided (Section 6)"
            note = f"none for {listed(missing)}"
            yield Finding("coverage", "Section 6", said, text, -len(missing), Severity.CLAIM, note)
    for table, chosen in {1: 8, 2: 9}.items():
        whole, there = (list(paper.table(number)["dataset"].unique()) for number in (table, chosen))
        missing = [names.dataset(name) for name in whole if name not in there]
        if missing:
            text = f"Table {chosen} has {len(there)} of the {len(whole)} data sets of Table {table}"
            said = f"chosen hyperparameters to reproduce Table {table}"
            note = f"none for {listed(missing)}"
            yield Finding("coverage", f"Table {chosen}", said, text, -len(missing), Severity.CLAIM, note)


def _single_runs() -> Iterator[Finding]:
    """Section 6: Tables 1 and 2 report means of five runs. Appendix F.3: SFT is one run."""
    table = paper.table(1)
    single = table[table["method"] == "sft"]
    if len(single):
        text = f"{len(single)} of its {len(table)} accuracies are of single runs (SFT, Appendix F.3)"
        note = "all differences are taken to them: their spread over seeds is in none of the deviations"
        said = "Tables 1 and 2 report the mean accuracy of five runs"
        yield Finding("coverage", "Section 6", said, text, 0.0, Severity.CLAIM, note)
