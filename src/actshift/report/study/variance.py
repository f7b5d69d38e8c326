"""The analysis of variance of a study: how much of the differences between runs each factor explains."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import product

import pandas as pd

from actshift.report.statistics import significant_digits
from actshift.report.study.design import Study

COLUMNS = ("block", "dataset", "source", "df", "sum_sq", "share", "F", "p", "partial", "partial_low", "partial_high")
LEVEL = 0.95
RESIDUAL = "runs"
"""The source of what is left: runs of one combination that differ in their seed."""


def variance(study: Study) -> pd.DataFrame:
    """A row for each block, data set and source (factors, their interactions of every order, and runs).

    Accuracy of a run = the levels' effects and their interactions + noise, by least squares over the block's runs, type
    II sums of squares (statsmodels). `share` is the source's of the total sum of squares (eta squared), `partial` that
    of its own and the noise's (partial eta squared), with its interval at 95% by the noncentral F distribution
    (Smithson, 2001). A block has all combinations and as many runs of each, so that sources do not overlap. A block
    of which a combination is not finished on a data set, and a factor with one level, are left out.
    """
    rows = [
        {"block": number, "dataset": dataset, **row}
        for number, block in enumerate(study.fraction.blocks, start=1)
        for dataset in study.datasets
        if (runs := block_runs(study, block, dataset)) is not None
        for row in _anova(runs, varying(block))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def varying(block: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The factors of a block that have several levels."""
    return [factor for factor, levels in block.items() if len(levels) > 1]


def block_runs(study: Study, block: Mapping[str, tuple[str, ...]], dataset: str) -> pd.DataFrame | None:
    """The runs of a block: levels and accuracy in percent. None where one of its combinations is not finished."""
    names = {tuple(sorted(levels.items())): name for name, levels in study.finished(dataset).items()}
    rows = []
    for chosen in product(*block.values()):
        levels = dict(zip(block, chosen, strict=True))
        name = names.get(tuple(sorted(levels.items())))
        if name is None:
            return None
        rows += [{**levels, "accuracy": 100 * float(bits.mean())} for bits in study.answers[dataset, name]]
    return pd.DataFrame(rows)


def _anova(runs: pd.DataFrame, factors: list[str]) -> list[dict[str, object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of statsmodels' imports, and of what other releases of pandas will do
        from statsmodels.formula.api import ols
        from statsmodels.stats.anova import anova_lm

        table = anova_lm(ols("accuracy ~ " + " * ".join(f"C({factor})" for factor in factors), runs).fit(), typ=2)
    total = float(table["sum_sq"].sum())
    noise, free = (float(table.loc["Residual", name]) for name in ("sum_sq", "df"))
    rows: list[dict[str, object]] = []
    for source, line in table.iterrows():
        square, degrees = float(line["sum_sq"]), int(line["df"])
        row = {
            "source": RESIDUAL if source == "Residual" else str(source).replace("C(", "").replace(")", ""),
            "df": degrees,
            "sum_sq": significant_digits(square),
            "share": significant_digits(square / total) if total else None,
        }
        if source != "Residual" and noise > 0:
            F = square / degrees / (noise / free)
            low, high = partial_interval(F, degrees, free)
            row |= {
                "F": significant_digits(F),
                "p": significant_digits(float(line["PR(>F)"])),
                "partial": significant_digits(square / (square + noise)),
            }
            row |= {"partial_low": significant_digits(low), "partial_high": significant_digits(high)}
        rows.append(row)
    return rows


def partial_interval(F: float, degrees: float, free: float, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval of partial eta squared: lambda / (lambda + df1 + df2 + 1) at the ends of the noncentrality lambda.

    They are where the observed F has the probabilities (1 + level) / 2 and (1 - level) / 2; 0 where none has.
    """
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    def end(share: float) -> float:
        if ncfdtr(degrees, free, 0.0, F) < share:
            return 0.0
        most = 1.0
        while ncfdtr(degrees, free, most, F) > share:
            most *= 2
        found = float(brentq(lambda size: float(ncfdtr(degrees, free, size, F)) - share, 0.0, most))
        return found / (found + degrees + free + 1)

    return end((1 + level) / 2), end((1 - level) / 2)
