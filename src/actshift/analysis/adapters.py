"""The trained adapters that an analysis looks at: those of the final runs of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    """One adapter of a sweep, with its method and seed."""

    method: str
    seed: int
    adapter: Adapter


def trained(config: Config) -> list[Trained]:
    """The adapters of a sweep's final runs on a configuration's model, data set and protocol, by method and seed.

    `analysis.sweep` names the sweep and `analysis.methods` the methods. Adapters of diverged trainings are left out.
    Errors: runs that are not planned or not finished, with the command that makes them; a method all of whose
    trainings diverged.
    """
    store, analysis = Store(config.results), config.analysis_as(SweepAnalysisConfig)
    found = []
    for run in _runs(config, store):
        folder = store.run_folder(run.identity) / "adapter"
        if not folder.is_dir():
            raise _missing(config, store.root, f"run {run.identity} ({run.cell}, seed {run.seed}) left no adapter")
        adapter = load_adapter(folder)
        if not adapter.description.diverged:
            found.append(Trained(run.cell.method, run.seed, adapter))
    for method in analysis.methods:
        if method not in {each.method for each in found}:
            raise ActshiftError(f"every training of {method} in the sweep '{analysis.sweep}' diverged.")
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


def without_adapter(config: Config) -> list[str]:
    """The identities of the runs that an analysis needs and that have left no adapter, or have it no more.

    Errors: `MissingAdapters` where the runs are not planned yet.
    """
    store = Store(config.results)
    return [run.identity for run in _runs(config, store) if not (store.run_folder(run.identity) / "adapter").is_dir()]


class MissingAdapters(ActshiftError):
    """Adapters that a sweep would train."""


def _runs(config: Config, store: Store) -> list[Run]:
    analysis = config.analysis_as(SweepAnalysisConfig)
    path = store.manifest_path(analysis.sweep, "final")
    if not path.exists():
        raise _missing(config, store.root, f"its final stage is not planned in {store.root.resolve()}")
    where = (config.model.name, config.dataset.name, config.protocol.name)
    runs = [
        run
        for method in analysis.methods
        for run in read_manifest(path).runs
        if run.cell.method == method and (run.cell.model, run.cell.dataset, run.cell.protocol) == where
    ]
    for method in analysis.methods:
        if method not in {run.cell.method for run in runs}:
            raise ActshiftError(
                f"the sweep '{analysis.sweep}' has no runs of {method} on {', '.join(where)}: name another with "
                "analysis.sweep=..., or its model and data set with model=... dataset=... protocol=..."
            )
    return runs


def _missing(config: Config, root: Path, why: str) -> MissingAdapters:
    analysis = config.analysis_as(SweepAnalysisConfig)
    sweep, name = analysis.sweep, analysis.name
    return MissingAdapters(
        f"the analysis '{name}' looks at adapters of the sweep '{sweep}', and {why}. Train them with "
        f"`actshift sweep {sweep} results={root}` (or `submit`), or with `actshift analyze {name} --train ...`."
    )
