"""The table of trainable parameters, with the share that the paper prints beside each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.markdown_text import table as markdown_table

if TYPE_CHECKING:
    from actshift.estimates.parameters import Count

CAPTION = {"adapter_r64": 0.34, "joint": 0.79, "joint_orth": 0.79, "lora_r16": 0.9}
"""Shares (percent) in the caption of Table 4, which states them once for all its models. LoRA's stand in Table 1."""

COLUMNS = ("Model", "Method", "Trained", "Share (%)", "Paper (%)", "Difference")
LEGEND = (
    "Trained parameters are counted on the attached modules; the share is of the base model's, tied weights once.",
    "Paper (%): as printed in Tables 1 to 3 and the caption of Table 4. A difference is marked ≠ where it is at least "
    "one unit of the last printed digit: below that, rounding or cutting explains it.",
)


def printed_shares() -> pd.DataFrame:
    """The printed shares (percent): `model`, `method`, `paper_pct` and `paper_table`, the tables that print it."""
    frames = [paper.table(number).assign(paper_table=str(number)) for number in (1, 2, 3)]
    printed = pd.concat([frame[["model", "method", "params_pct", "paper_table"]] for frame in frames])
    caption = paper.table(4)[["model", "method"]].drop_duplicates()
    caption = caption.assign(params_pct=caption["method"].map(CAPTION), paper_table="4").dropna()
    rows = pd.concat([printed, caption]).drop_duplicates().rename(columns={"params_pct": "paper_pct"})
    rows = rows.groupby(["model", "method", "paper_pct"], sort=False)["paper_table"].agg(", ".join).reset_index()
    return rows[["model", "method", "paper_pct", "paper_table"]]


def frame(counted: Sequence[Count]) -> pd.DataFrame:
    """A row a count: `share_pct` and, where the paper prints one, `paper_pct`, `paper_table` and whether it `agrees`.

    The paper's models and methods come first, in its order. A number that is absent is NaN, `agrees` then None.
    """
    rows = pd.DataFrame([vars(count) for count in counted]).astype({"trainable": "Int64"})
    rows["share_pct"] = 100 * rows["trainable"].astype("Float64").astype(float) / rows["total"]
    rows = rows.merge(printed_shares(), on=["model", "method"], how="left").fillna({"paper_table": ""})
    rows["agrees"] = [
        agrees(share, printed) for share, printed in zip(rows["share_pct"], rows["paper_pct"], strict=True)
    ]
    models = [*paper.table(1)["model"].unique(), *names.MODELS]
    order = {"model": _ranks(models), "method": _ranks(list(names.METHODS))}
    rows = rows.sort_values(
        ["model", "method"],
        key=lambda column: column.map(lambda name: (order[str(column.name)].get(name, len(models) + 99), name)),
        kind="stable",
    )
    return rows.reset_index(drop=True)


def agrees(share: float, printed: float) -> bool | None:
    """Whether a share is the printed one, rounded or cut; None where either is absent."""
    if pd.isna(share) or pd.isna(printed):
        return None
    text = f"{printed:.12f}".rstrip("0").rstrip(".")
    digits = len(text.partition(".")[2])
    return bool(abs(share - printed) < 10.0**-digits)


def markdown(rows: pd.DataFrame) -> str:
    """The table as a Markdown page."""
    lines = [(names.model(str(row.model)), *texts(row)) for row in rows.itertuples()]
    table = markdown_table(COLUMNS, lines, right=COLUMNS[2:5])
    notes = "\n".join(f"- {note}" for note in (*LEGEND, *refusals(rows)))
    return f"# Trainable parameters\n\n{table}\n\n{notes}\n"


def csv(rows: pd.DataFrame) -> str:
    """The frame as CSV in full precision; what is absent is empty."""
    return rows.to_csv(index=False, lineterminator="\n")


def texts(row: Any) -> tuple[str, ...]:
    """One row's cells after the model."""
    if pd.isna(row.trainable):
        return names.method(row.method), "–", "–", _number(row.paper_pct), "does not fit, see below"
    difference = ""
    if row.agrees is False:
        difference = (
            f"≠ {row.share_pct - row.paper_pct:+.2g} (Table {row.paper_table}: x{row.share_pct / row.paper_pct:.2f})"
        )
    return names.method(row.method), f"{row.trainable:,}", _number(row.share_pct), _number(row.paper_pct), difference


def _number(percent: float) -> str:
    return "" if pd.isna(percent) else f"{percent:.3g}"


def refusals(rows: pd.DataFrame) -> list[str]:
    """A sentence for each method that does not fit a model."""
    refused = rows[rows["trainable"].isna()]
    return [f"{row.method} does not fit {row.model}: {row.refused}." for row in refused.itertuples()]


def _ranks(known: Sequence[str]) -> dict[str, int]:
    return {name: index for index, name in reversed(list(enumerate(known)))}
