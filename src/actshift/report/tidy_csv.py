"""A sweep's frame as tidy CSV."""

from __future__ import annotations

import pandas as pd

from actshift.report.judged_columns import with_judged


def sweep_table(cells: pd.DataFrame) -> str:
    """The frame as tidy CSV, a line a cell, in full precision; what is absent is empty, lists are space-joined.

    Where a judge has compared the outputs, its columns follow (`report.judged_columns`).
    """
    lists = {name: cells[name].map(lambda values: " ".join(map(repr, values))) for name in ("values", "seeds")}
    return with_judged(cells.assign(**lists)).to_csv(index=False, lineterminator="\n")
