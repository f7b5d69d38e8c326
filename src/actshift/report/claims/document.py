"""The claims ledger as a frame, a Markdown document, and texts for the terminal and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from actshift.paper.claims import Claim
from actshift.report.claims.estimates import Verdict
from actshift.report.claims.ledger import PAPER, SEEDS, Judgment
from actshift.report.markdown_text import table as markdown_table

COLUMNS = ("claim", "where", "text", "reading", "evidence", "verdict", "estimate", "note", "runs")
HEADINGS = ("where", "the paper says", "its numbers", "over its seeds", "our runs")
TITLES = {PAPER: "The paper's printed numbers", SEEDS: "The same over seeds, by the deviations of Tables 11 to 13"}
NONE_YET = "no runs yet"

INTRODUCTION = """\
Written by `actshift claims`: what the paper (arXiv 2603.00425v1) says that can be checked, with a verdict on
its own printed numbers and one on each of our sweeps or analyses, by the same rule. The claims and their rules are data
(`src/actshift/paper/claims.toml`). *Reading* is what a claim is taken for where its words leave that open.

**borne out** and **not borne out**: the whole 95% interval lies on one side, over test rows and seeds, paired over
rows; a printed number is taken as printed. *Over its seeds*: the same with 95% intervals from the standard deviations
over five runs that Tables 11 to 13 print. **cannot be told**: it does not, or the numbers are not there; what is
missing stands beside it. A sweep at small scale says nothing of the paper's models: it says what holds there.
"""


def frame(judgments: Sequence[Judgment]) -> pd.DataFrame:
    """A row a judgment, with the columns of `COLUMNS`; runs are identities, with spaces between."""
    rows = [
        (
            *(each.claim.name, each.claim.where, each.claim.text, each.claim.reading, each.evidence),
            *(each.verdict.value, each.estimate, each.note, " ".join(each.runs)),
        )
        for each in judgments
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def csv(judgments: Sequence[Judgment]) -> str:
    """The frame as text."""
    return frame(judgments).to_csv(index=False, lineterminator="\n")


@dataclass(frozen=True)
class Line:
    """A claim with the judgment on the paper's numbers, that on them with their deviations, and those on our runs."""

    claim: Claim
    on_paper: Judgment
    over_seeds: Judgment | None
    ours: tuple[Judgment, ...]

    @property
    def judgments(self) -> list[Judgment]:
        """All of them, the paper's first."""
        return [self.on_paper, *([self.over_seeds] if self.over_seeds else []), *self.ours]


def by_claim(judgments: Sequence[Judgment]) -> list[Line]:
    """A line a claim, in the order of the judgments on the paper's numbers."""
    others: dict[str, list[Judgment]] = {}
    for each in judgments:
        if each.evidence != PAPER:
            others.setdefault(each.claim.name, []).append(each)
    lines = []
    for each in judgments:
        if each.evidence == PAPER:
            found = others.get(each.claim.name, [])
            seeds = next((one for one in found if one.evidence == SEEDS), None)
            lines.append(Line(each.claim, each, seeds, tuple(one for one in found if one is not seeds)))
    return lines


def summary(judgments: Sequence[Judgment]) -> list[str]:
    """A line for the paper's numbers and one for each of our sweeps or analyses: how many claims, and the verdicts."""
    counts: dict[str, Counter[Verdict]] = {}
    for each in judgments:
        counts.setdefault(each.evidence, Counter())[each.verdict] += 1
    lines = []
    for evidence, found in counts.items():
        shown = ", ".join(f"{found[verdict]} {verdict}" for verdict in Verdict if found[verdict])
        title = TITLES.get(evidence, evidence)
        lines.append(f"{title}: {sum(found.values())} claims, {shown}")
    return lines


def short(judgments: Sequence[Judgment]) -> list[str]:
    """Verdicts on our numbers, a line each with all evidence that has it for the same reason."""
    lines: dict[str, list[str]] = {}
    for each in judgments:
        needs = each.note.split(";")[0] if each.verdict is Verdict.OPEN else ""
        lines.setdefault(f"{each.verdict}" + (f" ({needs})" if needs else ""), []).append(each.evidence)
    return [f"{', '.join(evidence)}: {line}" for line, evidence in lines.items()]


def texts(line: Line) -> tuple[str, str, str, str, str]:
    """One line of the ledger, a text for each of `HEADINGS`."""
    over_seeds = line.over_seeds.verdict.value if line.over_seeds else ""
    ours = "\n".join(short(line.ours)) or _no_runs(line.claim)
    return line.claim.where, line.claim.text, line.on_paper.verdict.value, over_seeds, ours


def _no_runs(claim: Claim) -> str:
    return "" if claim.rule == "theory" else NONE_YET


def markdown(judgments: Sequence[Judgment]) -> str:
    """The document: counts, the ledger with both verdicts, then what every verdict rests on."""
    lines = ["# The paper's claims", "", INTRODUCTION, *(f"- {line}" for line in summary(judgments)), ""]
    rows = [tuple(text.replace("\n", "; ") for text in texts(line)) for line in by_claim(judgments)]
    lines += ["## Verdicts", "", markdown_table(HEADINGS, rows), "", "## What they rest on", ""]
    for line in by_claim(judgments):
        claim = line.claim
        lines += [f"**{claim.text}** ({claim.where})" + (f". Reading: {claim.reading}." if claim.reading else "."), ""]
        for each in line.judgments:
            parts = [f"{each.evidence}: {each.verdict}", each.estimate, each.note, _runs(each)]
            lines.append(f"- {'. '.join(filter(None, parts))}.")
        lines.append("")
    return "\n".join(lines)


def _runs(judgment: Judgment) -> str:
    return f"{len(judgment.runs)} runs" if judgment.runs else ""


def view(judgments: Sequence[Judgment]) -> dict[str, Any]:
    """The ledger as the report page shows it; runs are those of sweeps, which the page has too."""
    lines = []
    for line in by_claim(judgments):
        where, text, verdict, over_seeds, measured = texts(line)
        lines.append(
            {
                **{"where": where, "text": text, "reading": line.claim.reading, "verdict": verdict},
                **{"over_seeds": over_seeds, "ours": measured.split("\n"), "judgments": line.judgments},
            }
        )
    return {"summary": summary(judgments), "lines": lines}
