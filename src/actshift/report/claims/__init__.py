"""The claims ledger: what the paper says, judged on its printed numbers and on our records by the same rules."""

from __future__ import annotations

from actshift.report.claims.document import HEADINGS, by_claim, csv, frame, markdown, summary, texts, view
from actshift.report.claims.estimates import Verdict
from actshift.report.claims.ledger import PAPER, SEEDS, Judgment, analysed, measured, over_seeds, printed

__all__ = [
    "HEADINGS",
    "PAPER",
    "SEEDS",
    "Judgment",
    "Verdict",
    "analysed",
    "by_claim",
    "csv",
    "frame",
    "markdown",
    "measured",
    "over_seeds",
    "printed",
    "summary",
    "texts",
    "view",
]
