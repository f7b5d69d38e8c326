"""The claims ledger as a frame, a Markdown document, and texts for the terminal and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from actshift.paper.claims import Claim
from actshift.report.claims.estimates import Verdict
from actshift.report.claims.ledger import PAPER, Judgment
from actshift.report.markdown_text import table as markdown_table

COLUMNS = ("claim", "where", "text", "reading", "evidence", "verdict", "estimate", "note", "runs")
HEADINGS = ("where", "the paper says", "its numbers", "our runs")
NONE_YET = "no runs yet"

INTRODUCTION = """\
Written by `actshift claims`: what the paper (arXiv 2603.00425v1) says that can be checked, with a verdict on
its own printed numbers and one on each of our sweeps or analyses, by the same rule. The claims and their rules are data
(`src/actshift/paper/claims.toml`). *Reading* is what a claim is taken for where its words leave that open.

**borne out** and **not borne out**: the whole 95% interval lies on one side, over test rows and seeds, paired over
rows; a printed number is taken as printed. **cannot be told**: it does not, or the numbers are not there; what is
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


def by_claim(judgments: Sequence[Judgment]) -> list[tuple[Claim, Judgment, list[Judgment]]]:
    """Each claim with the judgment on the paper's numbers, and those on ours in the order given."""
    ours: dict[str, list[Judgment]] = {}
    for each in judgments:
        if each.evidence != PAPER:
            ours.setdefault(each.claim.name, []).append(each)
    return [(each.claim, each, ours.get(each.claim.name, [])) for each in judgments if each.evidence == PAPER]


def summary(judgments: Sequence[Judgment]) -> list[str]:
    """A line for the paper's numbers and one for each of our sweeps or analyses: how many claims, and the verdicts."""
    counts: dict[str, Counter[Verdict]] = {}
    for each in judgments:
        counts.setdefault(each.evidence, Counter())[each.verdict] += 1
    lines = []
    for evidence, found in counts.items():
        shown = ", ".join(f"{found[verdict]} {verdict}" for verdict in Verdict if found[verdict])
        title = "The paper's printed numbers" if evidence == PAPER else evidence
        lines.append(f"{title}: {sum(found.values())} claims, {shown}")
    return lines


def short(judgments: Sequence[Judgment]) -> list[str]:
    """Verdicts on our numbers, a line each with all evidence that has it for the same reason."""
    lines: dict[str, list[str]] = {}
    for each in judgments:
        needs = each.note.split(";")[0] if each.verdict is Verdict.OPEN else ""
        lines.setdefault(f"{each.verdict}" + (f" ({needs})" if needs else ""), []).append(each.evidence)
    return [f"{', '.join(evidence)}: {line}" for line, evidence in lines.items()]


def texts(claim: Claim, on_paper: Judgment, ours: Sequence[Judgment]) -> tuple[str, str, str, str]:
    """One line of the ledger, a text for each of `HEADINGS`."""
    return claim.where, claim.text, on_paper.verdict.value, "\n".join(short(ours)) or _no_runs(claim)


def _no_runs(claim: Claim) -> str:
    return "" if claim.rule == "theory" else NONE_YET


def markdown(judgments: Sequence[Judgment]) -> str:
    """The document: counts, the ledger with both verdicts, then what every verdict rests on."""
    lines = ["# The paper's claims", "", INTRODUCTION, *(f"- {line}" for line in summary(judgments)), ""]
    rows = [(*texts(*each)[:3], texts(*each)[3].replace("\n", "; ")) for each in by_claim(judgments)]
    lines += ["## Verdicts", "", markdown_table(HEADINGS, rows), "", "## What they rest on", ""]
    for claim, on_paper, ours in by_claim(judgments):
        lines += [f"**{claim.text}** ({claim.where})" + (f". Reading: {claim.reading}." if claim.reading else "."), ""]
        for each in (on_paper, *ours):
            parts = [f"{each.evidence}: {each.verdict}", each.estimate, each.note, _runs(each)]
            lines.append(f"- {'. '.join(filter(None, parts))}.")
        lines.append("")
    return "\n".join(lines)


def _runs(judgment: Judgment) -> str:
    return f"{len(judgment.runs)} runs" if judgment.runs else ""


def view(judgments: Sequence[Judgment]) -> dict[str, Any]:
    """The ledger as the report page shows it; runs are those of sweeps, which the page has too."""
    lines = []
    for claim, on_paper, ours in by_claim(judgments):
        where, text, verdict, measured = texts(claim, on_paper, ours)
        details = [on_paper, *ours]
        lines.append(
            {
                **{"where": where, "text": text, "reading": claim.reading, "verdict": verdict},
                **{"ours": measured.split("\n"), "judgments": details},
            }
        )
    return {"summary": summary(judgments), "lines": lines}
