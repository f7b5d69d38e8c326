"""The claims ledger: what the paper says, judged on its printed numbers and on our records by the same rules."""

from __future__ import annotations

from actshift.report.claims.document import HEADINGS, by_claim, csv, frame, markdown, summary, texts, view
from actshift.report.claims.estimates import Verdict
from actshift.report.claims.ledger import PAPER, Judgment, analysed, measured, printed

__all__ = [
    "HEADINGS",
    "PAPER",
    "Judgment",
    "Verdict",
    "analysed",
    "by_claim",
    "csv",
    "frame",
    "markdown",
    "measured",
    "printed",
    "summary",
    "texts",
    "view",
]
