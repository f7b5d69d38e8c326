"""The parts of a resolved run config that the data code reads, from the files in conf/dataset/ and the schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from actshift import tasks
from actshift.paths import conf_dir
from actshift.schema.building import built
from actshift.schema.config import Config
from actshift.schema.data import DataConfig, DatasetConfig
from actshift.tasks.base import Task

ALL_DATASETS = tuple(sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml")))
"""Every data set; a data set's task may have another name: see `task_of`."""


@cache
def _loaded(name: str) -> Any:
    """The file over those that it inherits from, over the schema."""
    raw = OmegaConf.load(conf_dir() / "dataset" / f"{name}.yaml")
    (parent, *_), inherited = raw.pop("defaults"), OmegaConf.structured(DatasetConfig)
    return OmegaConf.merge(inherited if parent == "dataset_schema" else _loaded(parent), raw)


def dataset_config(name: str) -> DatasetConfig:
    """A fresh, resolved `DatasetConfig`."""
    whole = OmegaConf.create({"dataset": _loaded(name)})  # where interpolations find it
    return built(DatasetConfig, OmegaConf.to_container(whole.dataset, resolve=True))


def task_of(name: str, *, rule: str = "paper") -> Task:
    return tasks.task_of(dataset_config(name), rule=rule)


DATASETS = tuple(name for name in ALL_DATASETS if dataset_config(name).procedural.rows)
"""The data sets that have procedural rows."""
SCORED = tuple(name for name in DATASETS if task_of(name).scored)


def run_config(
    name: str, *, protocol: str = "paper", source: str = "procedural", directory: Path | None = None
) -> Config:
    dataset = dataset_config(name)
    data = DataConfig(
        source=source,
        origin=dataset.origin(source),
        dir=None if directory is None else str(directory),
        splits=dataset.splits[protocol],
        overlap={"paper": "drop", "released": "count"}[protocol],
    )
    return Config(dataset=dataset, data=data)
