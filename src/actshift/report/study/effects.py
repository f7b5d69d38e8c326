"""The contrasts of a study as estimates: on each data set, over data sets, and against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from actshift.planning.fraction import Contrast
from actshift.report.evidence import SIGNIFICANT
from actshift.report.statistics import (
    Bits,
    Estimate,
    Interval,
    contrast_estimate,
    holm,
    mean_estimate,
    seed_variance,
    significant_digits,
)
from actshift.report.study.design import Study

COLUMNS = ("contrast", "dataset", "pairs", "planned", "floors", "difference", "low", "high", "p", "p_holm")
FLOOR = 0.01
"""A share of right answers that is as good as none."""
ALL = "all"
"""Stands for the mean over a study's data sets."""


@dataclass(frozen=True)
class Effect:
    """A contrast on one data set, or (`dataset` "all") the mean over them, in percent points.

    `pairs` of `planned` pairs of combinations are finished, and in `floors` of them no combination answers more than
    one row in a hundred right, so that there is nothing to differ; `p_holm` is adjusted over all contrasts and data
    sets that the study planned, and None for a mean over data sets, which is not tested.
    """

    contrast: Contrast
    dataset: str
    pairs: int
    planned: int
    floors: int
    difference: float
    interval: Interval
    p: float
    p_holm: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the difference survives its test, after adjustment."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANT


def effects(study: Study) -> list[Effect]:
    """Every contrast on every data set of which a pair is finished, and its mean where it is there on all of them."""
    found, p_values = [], {}
    for contrast in study.fraction.contrasts:
        estimates = {}
        for dataset in study.datasets:
            estimate = estimated(study, contrast, dataset)
            if estimate is not None:
                estimates[dataset] = estimate
                effect = _effect(study, contrast, dataset, estimate)
                p_values[f"{contrast.name} {dataset}"] = effect.p
                found.append(effect)
        if len(estimates) == len(study.datasets) > 1:
            found.append(_effect(study, contrast, ALL, mean_estimate(list(estimates.values()))))
    adjusted = holm(p_values, family=len(study.fraction.contrasts) * len(study.datasets))
    return [_adjusted(effect, adjusted) for effect in found]


def estimated(study: Study, contrast: Contrast, dataset: str) -> Estimate | None:
    """A contrast on one data set: the mean over its finished pairs; None where there is none.

    Each combination has the mean of its weights in the pairs, so that one which stands in several is counted once. The
    variance over seeds is pooled over the combinations that are compared.
    """
    pairs = contrast.pairs(study.finished(dataset))
    if not pairs:
        return None
    weights: dict[str, float] = {}
    for pair in pairs:
        for name, sign in pair.items():
            weights[name] = weights.get(name, 0.0) + sign / len(pairs)
    parts = {name: study.answers[dataset, name] for name, weight in weights.items() if weight}
    seeds = seed_variance(list(parts.values()))
    return None if seeds is None else contrast_estimate([(weights[name], parts[name]) for name in parts], seeds=seeds)


def frame(found: list[Effect]) -> pd.DataFrame:
    """The effects as a table, six significant digits: beyond, machines may differ in a sum's order."""
    rows = [
        (
            each.contrast.name,
            each.dataset,
            each.pairs,
            each.planned,
            each.floors,
            *(significant_digits(value) for value in (each.difference, each.interval.low, each.interval.high, each.p)),
            None if each.p_holm is None else significant_digits(each.p_holm),
        )
        for each in found
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _effect(study: Study, contrast: Contrast, dataset: str, estimate: Estimate) -> Effect:
    bound = 1.0 if contrast.together or len(contrast.compares) == 1 else 2.0 ** (len(contrast.compares) - 1)
    difference = estimate.difference(bound=bound)
    datasets = study.datasets if dataset == ALL else (dataset,)
    pairs = [(name, pair) for name in datasets for pair in contrast.pairs(study.finished(name))]
    floors = sum(all(_mean(study.answers[name, each]) <= FLOOR for each in pair) for name, pair in pairs)
    planned = len(contrast.pairs(study.levels)) * len(datasets)
    return Effect(
        contrast, dataset, len(pairs), planned, floors, difference.difference, difference.interval, difference.p
    )


def _mean(runs: Sequence[Bits]) -> float:
    """The share of right answers over rows and runs."""
    return sum(float(bits.mean()) for bits in runs) / len(runs)


def _adjusted(effect: Effect, adjusted: Mapping[str, float]) -> Effect:
    return replace(effect, p_holm=adjusted.get(f"{effect.contrast.name} {effect.dataset}"))
