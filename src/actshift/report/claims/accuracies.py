"""Accuracies of one table, the paper's or those of our records, in the one form that rules compare."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.paper import printed as paper
from actshift.report import names
from actshift.report.claims.estimates import Estimate, NotThere, mean
from actshift.report.evidence import ROUNDING, answers
from actshift.report.statistics import Bits, SeedVariance, paired_difference, seed_variance

if TYPE_CHECKING:
    from actshift.store.records import Record


class Accuracies(ABC):
    """One table: its models and data sets, and differences between methods in a cell or over data sets."""

    models: Sequence[str]
    datasets: Sequence[str]
    over_seeds = True
    """Whether estimates have the doubt that few runs leave; false where numbers are taken as printed."""

    @abstractmethod
    def accuracy(self, model: str, dataset: str, method: str) -> float:
        """Percent. Errors: NotThere."""

    @abstractmethod
    def difference(self, model: str, dataset: str, method: str, other: str) -> Estimate:
        """Accuracy of a method less that of another. Errors: NotThere."""

    @abstractmethod
    def deviation(self, model: str, dataset: str, method: str) -> tuple[float, int]:
        """The standard deviation over seeds, percent points, and the number of runs. Errors: NotThere."""

    @abstractmethod
    def share(self, model: str, method: str) -> float:
        """Trained parameters of the model's, percent. Errors: NotThere."""

    @abstractmethod
    def trained(self, model: str, method: str) -> int:
        """Trained parameters. Errors: NotThere."""

    @abstractmethod
    def runs(self, models: Sequence[str], datasets: Sequence[str], methods: Sequence[str]) -> list[str]:
        """The identities of the runs that such a comparison rests on."""

    def best(self, model: str, dataset: str, methods: Sequence[str]) -> str:
        """The method of the highest accuracy in a cell, the first of equal ones."""
        return max(methods, key=lambda method: self.accuracy(model, dataset, method))

    def average(self, model: str, method: str, other: str) -> Estimate:
        """The mean difference of two methods over the data sets."""
        return mean([self.difference(model, dataset, method, other) for dataset in self.datasets])

    def best_on_average(self, model: str, methods: Sequence[str]) -> str:
        """The method of the highest mean accuracy over the data sets, the first of equal ones."""
        return max(methods, key=lambda method: sum(self.accuracy(model, each, method) for each in self.datasets))


class Printed(Accuracies):
    """A table as printed; SFT stands in Table 1 alone, and holds for the same models and data sets in Table 2."""

    over_seeds = False

    def __init__(self, number: int) -> None:
        table = paper.table(number)
        first = paper.table(1)
        keys = ["model", "dataset", "method"]
        self._cells: dict[Any, float] = {**first.set_index(keys)["accuracy"], **table.set_index(keys)["accuracy"]}
        shares = table.set_index(["model", "method"]).get("params_pct", pd.Series(dtype=float))
        self._shares: dict[Any, float] = shares.groupby(level=[0, 1]).first().to_dict() if len(shares) else {}
        self.models, self.datasets = list(table["model"].unique()), list(table["dataset"].unique())
        # A single run of SFT has the deviation 0 in Table 11, and stands in for the SFT of the other tables too.
        self._deviations: dict[Any, float] = {
            (row.model, row.dataset, row.method): row.std
            for source in (names.DEVIATIONS[1], names.DEVIATIONS[number])
            for row in _rows(paper.table(source))
            if source == names.DEVIATIONS[number] or row.method == "sft"
        }

    def accuracy(self, model: str, dataset: str, method: str) -> float:
        value = self._cells.get((model, dataset, method))
        if value is None:
            place = f"{names.method(method)} on {names.dataset(dataset)}, {names.model(model)}"
            raise NotThere(f"the paper prints no accuracy of {place}")
        return value

    def difference(self, model: str, dataset: str, method: str, other: str) -> Estimate:
        gap = self.accuracy(model, dataset, method) - self.accuracy(model, dataset, other)
        return Estimate(gap, math.hypot(ROUNDING, ROUNDING))

    def deviation(self, model: str, dataset: str, method: str) -> tuple[float, int]:
        value = self._deviations.get((model, dataset, method))
        if value is None:
            place = f"{names.method(method)} on {names.dataset(dataset)}, {names.model(model)}"
            raise NotThere(f"the paper prints no deviation over seeds of {place}")
        return value, RUNS

    def share(self, model: str, method: str) -> float:
        return self._shares[model, method]

    def trained(self, model: str, method: str) -> int:
        return COUNTED[method][model]

    def runs(self, models: Sequence[str], datasets: Sequence[str], methods: Sequence[str]) -> list[str]:
        return []


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


class OverSeeds(Printed):
    """A table as printed, with the doubt that its runs leave by their deviations: 95% intervals of differences.

    The two methods' runs are taken to be independent (Welch's interval), and SFT, a single run, to have no doubt. Nor
    has a cell whose deviation is not printed: intervals are then at least so wide.
    """

    over_seeds = True

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._without: dict[str, None] = {}

    def difference(self, model: str, dataset: str, method: str, other: str) -> Estimate:
        from scipy.special import stdtrit  # scipy.stats takes a second to import

        gap = self.accuracy(model, dataset, method) - self.accuracy(model, dataset, other)
        parts = [self._variance(model, dataset, name) / RUNS for name in (method, other)]
        if not any(parts):
            return Estimate(gap, 0.0, 0.0, RUNS)
        degrees = (RUNS - 1) * sum(parts) ** 2 / sum(part**2 for part in parts)
        half = float(stdtrit(degrees, 0.975)) * math.sqrt(sum(parts))
        return Estimate(gap, half, half, RUNS)

    def _variance(self, model: str, dataset: str, method: str) -> float:
        try:
            return self.deviation(model, dataset, method)[0] ** 2
        except NotThere:
            known = {name for _, name, _ in self._deviations}
            self._without[names.dataset(dataset) if dataset not in known else names.method(method)] = None
            return 0.0

    @property
    def note(self) -> str:
        """The data sets and methods that were looked at and have no deviation."""
        if not self._without:
            return ""
        return f"no deviation is printed of {', '.join(self._without)}: intervals are at least so wide"


RUNS = 5
"""Runs behind an accuracy of the paper (Appendix F.3)."""
COUNTED = {
    "lora_r8": {
        "llama3.2-1b": 5_636_096,
        "gemma3-1b": 6_522_880,
        "qwen3-4b": 16_515_072,
        "llama3.1-8b": 20_971_520,
    },
    "post_block": {"llama3.2-1b": 524_288, "gemma3-1b": 479_232, "qwen3-4b": 1_474_560, "llama3.1-8b": 2_097_152},
}
"""Trained parameters of the paper's runs, which it prints as shares of one digit; `actshift params` counts them."""


class Measured(Accuracies):
    """The finished cells of a sweep: differences are paired over test rows, with the seeds' variance of a column."""

    def __init__(self, cells: pd.DataFrame, found: Mapping[str, Record]) -> None:
        rows: list[Any] = list(cells.itertuples())
        self._rows = {(row.model, row.dataset, row.method): row for row in rows}
        self._found = found
        self.models, self.datasets = list(cells["model"].unique()), list(cells["dataset"].unique())

    def accuracy(self, model: str, dataset: str, method: str) -> float:
        return float(self._row(model, dataset, method).mean)

    def _row(self, model: str, dataset: str, method: str) -> Any:
        row = self._rows.get((model, dataset, method))
        if model not in self.models:
            raise NotThere(f"needs runs of {names.model(model)}")
        if row is None or row.status == "excluded":
            raise NotThere(f"needs runs of {names.method(method)} on {names.dataset(dataset)}")
        if row.status != "done":
            place = f"{names.method(method)} on {names.dataset(dataset)}"
            what = f"{row.n_diverged} diverged" if row.status == "diverged" else f"{row.n_finished} finished"
            raise NotThere(f"needs {row.n_planned} runs of {place} ({what})")
        return row

    def _bits(self, model: str, dataset: str, method: str) -> list[Bits]:
        identities = self._row(model, dataset, method).identities.split()
        kept = [bits for name in identities if (bits := answers(self._found[name])) is not None]
        if len(kept) < len(identities):
            raise NotThere("needs records with answers by row")
        return kept

    @cached_property
    def _seeds(self) -> dict[tuple[str, str], SeedVariance | None]:
        columns: dict[tuple[str, str], list[list[Bits]]] = {}
        for (model, dataset, method), row in self._rows.items():
            if row.status == "done":
                columns.setdefault((model, dataset), []).append(self._bits(model, dataset, method))
        return {column: seed_variance(groups) for column, groups in columns.items()}

    def difference(self, model: str, dataset: str, method: str, other: str) -> Estimate:
        ours, theirs = (self._bits(model, dataset, name) for name in (method, other))
        seeds = self._seeds.get((model, dataset))
        if seeds is None:
            raise NotThere("needs 2 runs of some method of each data set: the variance over seeds is unknown")
        found = paired_difference(ours, theirs, seeds=seeds)
        alone = paired_difference(ours, theirs, seeds=SeedVariance(0.0, 0.0, seeds.degrees))
        gap = found.difference
        half = max(found.interval.high - gap, gap - found.interval.low)
        rows = max(alone.interval.high - gap, alone.interval.low - gap, gap - alone.interval.low)
        return Estimate(gap, half, math.sqrt(max(half**2 - rows**2, 0.0)), min(len(ours), len(theirs)))

    def deviation(self, model: str, dataset: str, method: str) -> tuple[float, int]:
        row = self._row(model, dataset, method)
        return float(row.std), int(row.n_finished)

    def share(self, model: str, method: str) -> float:
        return float(self._row(model, self.datasets[0], method).params_pct)

    def trained(self, model: str, method: str) -> int:
        return int(self._row(model, self.datasets[0], method).trainable_parameters)

    def runs(self, models: Sequence[str], datasets: Sequence[str], methods: Sequence[str]) -> list[str]:
        rows = (self._rows.get(key) for key in ((m, d, a) for m in models for d in datasets for a in methods))
        return [name for row in rows if row is not None for name in row.identities.split()]
