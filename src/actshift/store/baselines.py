"""What a test set gives away without any adaptation: its most common label, and what the base model answers.

A baseline is one small JSON in ``results/baselines``, named after everything that its scores depend on. Tables show it
above the methods, so that a reader sees where a difference can exist at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from actshift.config.identity import identity_of, ignored_keys, scored_part
from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.schema.config import Config
from actshift.store.records import read_json

SCHEMA = 1


@dataclass(frozen=True)
class Baseline:
    """The scores of one base model on one test split, in percent of its rows.

    `majority` is the share of the most common label, `generation` the base model's accuracy by the rule that adapted
    models are scored by, `likelihood` its accuracy by the likelihood of the answers that there are; null where answers
    are free text.
    """

    identity: str
    model: str
    dataset: str
    protocol: str
    rows: int
    majority_label: str
    majority: float
    generation: float
    likelihood: float | None
    config: dict[str, Any]
    provenance: dict[str, Any]
    schema: int = SCHEMA


def baseline_config(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """What a baseline depends on, of a resolved config or of a planned cell's."""
    return scored_part(config, ignore=["evaluation.scoring", *ignored_keys()])


def baseline_identity(config: Config | Mapping[str, Any]) -> str:
    """The name of the baseline of a resolved config or of a planned cell's."""
    return identity_of(baseline_config(config), ignore=())


def write_baseline(root: Path, baseline: Baseline) -> Path:
    """Write a baseline below a results folder and return its path."""
    path = _path(root, baseline.identity)
    write_file(path, json.dumps(asdict(baseline), sort_keys=True, indent=1, allow_nan=False) + "\n")
    return path


def read_baseline(root: Path, identity: str) -> Baseline | None:
    """The baseline of a name, or None where there is none. Errors: a file that is torn, foreign or of another name."""
    path = _path(root, identity)
    if not path.exists():
        return None
    data = read_json(path)
    if not isinstance(data, dict) or data.keys() != {field.name for field in fields(Baseline)}:
        raise ActshiftError(f"{path} is not a baseline: restore the file or delete it")
    found = Baseline(**data)
    if found.schema != SCHEMA or identity_of(found.config, ignore=()) != identity or found.identity != identity:
        raise ActshiftError(f"{path} is not the baseline that its name says: restore the file or delete it")
    return found


def baselines_of(configs: Iterable[Mapping[str, Any]], root: Path) -> list[Baseline]:
    """The baselines that there are of some planned cells, given by their configs."""
    names = dict.fromkeys(map(baseline_identity, configs))
    return [found for name in names if (found := read_baseline(root, name)) is not None]


def _path(root: Path, identity: str) -> Path:
    return root / "baselines" / f"{identity}.json"
