"""The trained adapters that an analysis looks at: those of the final runs of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.planning.manifests import Run, read_manifest
from actshift.schema.analysis import SweepAnalysisConfig
from actshift.schema.config import Config
from actshift.store.adapters import Adapter, load_adapter
from actshift.store.store import Store


@dataclass(frozen=True)
class Trained:
    """One adapter of a sweep, with its method and seed; `steps` is what its training was limited to, if it was."""

    method: str
    seed: int
    adapter: Adapter
    steps: int | None = None


def trained(config: Config, *, sweep: str | None = None, methods: Sequence[str] | None = None) -> list[Trained]:
    """The adapters of a sweep's final runs on a configuration's model, data set and protocol, by method and seed.

    Without `sweep` it is `analysis.sweep`, without `methods` all that the analysis looks at of it. Adapters of diverged
    trainings are left out. Errors: runs that are not planned or not finished, with the command that makes them; a
    method all of whose trainings diverged.
    """
    analysis = config.analysis_as(SweepAnalysisConfig)
    store, sweep = Store(config.results), sweep or analysis.sweep
    methods, found = analysis.adapters().get(sweep, []) if methods is None else methods, []
    for run, steps in _runs(config, store, sweep, methods):
        folder = store.run_folder(run.identity) / "adapter"
        if not folder.is_dir():
            raise _missing(config, sweep, f"run {run.identity} ({run.cell}, seed {run.seed}) left no adapter")
        adapter = load_adapter(folder)
        if not adapter.description.diverged:
            found.append(Trained(run.cell.method, run.seed, adapter, steps))
    for method in methods:
        if method not in {each.method for each in found}:
            raise ActshiftError(f"every training of {method} in the sweep '{sweep}' diverged.")
    return found


@contextmanager
def attached(base: Base, each: Trained, prompt_BT: torch.Tensor) -> Iterator[None]:
    """The base model with an adapter on it, for passes over rows with these prompt tokens."""
    adaptation = each.adapter.attach(base)
    try:
        adaptation.begin_pass(ForwardPass(prompt_BT))
        yield
    finally:
        adaptation.detach()


@dataclass(frozen=True)
class Needed:
    """The adapters that an analysis takes from one sweep: `planned` runs, None where the sweep is not planned yet, and
    the identities of those that have left no adapter, or have it no more."""

    sweep: str
    methods: tuple[str, ...]
    planned: int | None
    without_adapter: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return self.planned is not None and not self.without_adapter

    def __str__(self) -> str:
        if self.planned is None:
            return f"{self.sweep} ({', '.join(self.methods)}): not planned yet"
        there = self.planned - len(self.without_adapter)
        return f"{self.sweep} ({', '.join(self.methods)}): {there} of {self.planned} adapters are there"


def needed(config: Config) -> list[Needed]:
    """What an analysis needs of each sweep; nothing where it looks at no trained adapter.

    Errors: a sweep that is planned without a method, on the configuration's model and data set.
    """
    if not isinstance(config.analysis, SweepAnalysisConfig):
        return []
    store, found = Store(config.results), []
    for sweep, methods in config.analysis.adapters().items():
        try:
            runs = [run for run, _ in _runs(config, store, sweep, methods)]
        except MissingAdapters:
            found.append(Needed(sweep, tuple(methods), None))
            continue
        lacking = [run.identity for run in runs if not (store.run_folder(run.identity) / "adapter").is_dir()]
        found.append(Needed(sweep, tuple(methods), len(runs), tuple(lacking)))
    return found


class MissingAdapters(ActshiftError):
    """Adapters that a sweep would train."""


def _runs(config: Config, store: Store, sweep: str, methods: Sequence[str]) -> list[tuple[Run, int | None]]:
    """The final runs of some methods of a sweep, each with the number of steps that its training was stopped after."""
    path = store.manifest_path(sweep, "final")
    if not path.exists():
        raise _missing(config, sweep, f"its final stage is not planned in {store.root.resolve()}")
    where = (config.model.name, config.dataset.name, config.protocol.name)
    manifest = read_manifest(path)
    runs = [
        run
        for method in methods
        for run in manifest.runs
        if run.cell.method == method and (run.cell.model, run.cell.dataset, run.cell.protocol) == where
    ]
    for method in methods:
        if method not in {run.cell.method for run in runs}:
            raise ActshiftError(
                f"the sweep '{sweep}' has no runs of {method} on {', '.join(where)}: name another with "
                "analysis.sweep=..., or its model and data set with model=... dataset=... protocol=..."
            )
    return [(run, manifest.planned(run.cell).settings.training.max_steps) for run in runs]


def _missing(config: Config, sweep: str, why: str) -> MissingAdapters:
    name, root = config.analysis_as(SweepAnalysisConfig).name, Store(config.results).root
    return MissingAdapters(
        f"the analysis '{name}' looks at adapters of the sweep '{sweep}', and {why}. Train them with "
        f"`actshift sweep {sweep} results={root}` (or `submit`), or with `actshift analyze {name} --train ...`."
    )
