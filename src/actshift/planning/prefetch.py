"""A sweep's weights, tokenizers and data, brought to the hub's cache where there is a network, checked where not.

A run, this check and the download go through the same code, so what passes here is what a run will find.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from actshift.errors import ActshiftError
from actshift.hub import Repository, dataset_repository, folder, is_offline, is_reachable, model_repository, quiet, size
from actshift.libraries.private import hub_offline
from actshift.planning.halving import states
from actshift.planning.manifests import Manifest
from actshift.schema.config import Config
from actshift.store.store import Store


@dataclass(frozen=True)
class Need:
    """A repository that runs read, and what opens it: from the cache, else from the network.

    `open` raises `ActshiftError` for what is missing or wrong, and otherwise says in a word what it found.
    """

    repository: Repository
    open: Callable[[], str] = field(compare=False)
    of: str = ""
    """What of the repository is read, where that is not all."""


def needs(configs: Iterable[Config]) -> list[Need]:
    """What resolved configs take from the hub, each thing once, models first."""
    found = [need for config in configs for need in (_model(config), _data(config)) if need is not None]
    return sorted(dict.fromkeys(found), key=lambda need: need.repository.kind, reverse=True)


def configs_of(manifest: Manifest, compose: Callable[[list[str]], Config]) -> list[Config]:
    """The resolved config of each planned cell; variants and rates change nothing of model and data."""
    return [compose([*cell.variants[0].overrides, "stage=grid"]) for cell in manifest.cells]


def missing(*configs: Config) -> list[str]:
    """What runs of these configs would not find without a network, each with what to do.

    Only the cache is searched. Weights are found, not opened; data are opened and counted.
    """
    return _missing(needs(configs))


def require(manifest: Manifest, *, store: Store, compose: Callable[[list[str]], Config]) -> None:
    """Before the runs of a manifest that are still to be done: is all there that they read, without a network?

    Raises `ActshiftError` where the cache lacks something and the hub is not to be reached, or HF_HUB_OFFLINE is set,
    naming all of it: else runs would fail one by one.
    """
    found = zip(manifest.runs, states(manifest, store), strict=True)
    ahead = {run.cell for run, state in found if state == "missing"}
    cells = tuple(planned for planned in manifest.cells if planned.cell in ahead)
    wanted = needs(configs_of(replace(manifest, cells=cells), compose))
    if wanted and (is_offline() or not is_reachable()) and (problems := _missing(wanted)):
        raise ActshiftError("\n- ".join(["nothing was started: runs would lack their model or data.", *problems]))


def prefetch(configs: Iterable[Config], *, say: Callable[[str], None]) -> list[str]:
    """Download what configs need and open all data once, telling sizes and row counts; what failed is returned.

    Licences, revisions and free space are looked at before the first download, one failure does not keep the others
    from being done, and what is complete is never downloaded again. Raises `ActshiftError` where there is no network
    or too little space.
    """
    wanted = needs(configs)
    if wanted and is_offline():
        raise ActshiftError("HF_HUB_OFFLINE is set, but prefetching needs the network: unset it, or use --check.")
    ahead, problems = _measure(wanted, say=say)
    _check_space(sum(ahead.values()))
    for need in wanted:
        if need.repository in ahead:
            problem = _attempt(need, say=say)
            problems += [problem] if problem else []
    return problems


def _model(config: Config) -> Need | None:
    model = config.model
    if model.source != "hub":
        return None
    repository = model_repository(model)

    def open_() -> str:
        folder(repository)
        return "weights and tokenizer"

    return Need(repository, open_)


def _data(config: Config) -> Need | None:
    dataset, data = config.dataset, config.data
    if data.source != "hub":
        return None
    repository = dataset_repository(dataset.hub)
    splits = list(dict.fromkeys(rule.source for rule in data.splits.by_name().values() if rule is not None))

    def open_() -> str:
        from actshift.data.sources import hub_split

        with quiet():
            folder(repository)
        counts = {split: len(hub_split(dataset, split, source="hub", directory=None)) for split in splits}
        return ", ".join(f"{split} {rows:,} rows" for split, rows in counts.items())

    return Need(repository, open_, of=f"{dataset.hub.config} {splits}")


def _missing(wanted: Iterable[Need]) -> list[str]:
    with hub_offline():
        return [problem for need in wanted if (problem := _attempt(need, say=lambda text: None))]


def _attempt(need: Need, *, say: Callable[[str], None]) -> str | None:
    try:
        say(f"{need.repository}: {need.open()}")
    except ActshiftError as error:
        return str(error)
    return None


def _measure(wanted: Iterable[Need], *, say: Callable[[str], None]) -> tuple[dict[Repository, int], list[str]]:
    """The bytes still to be downloaded, by each repository that is to be had, and the problems of the others."""
    ahead, problems = {}, []
    for repository in dict.fromkeys(need.repository for need in wanted):
        try:
            whole, ahead[repository] = size(repository)
        except ActshiftError as error:
            problems.append(str(error))
            continue
        say(f"{repository}: {_readable(whole)}, of which {_readable(ahead[repository])} are to be downloaded")
    return ahead, problems


def _check_space(wanted: int) -> None:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if wanted > free:
        raise ActshiftError(
            f"{_readable(wanted)} are to be downloaded, but {cache} has {_readable(free)} free. Make room, or set "
            "HF_HOME to a larger disk, here and where the runs are."
        )


def _readable(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
