"""The record of a finished run: one small JSON whose existence is 'done', and the only input of tables."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.schema.building import config_of
from actshift.schema.config import Config

SCHEMA = 1
SPLITS = ("validation", "test")
RECORD_NAME = re.compile(r"([0-9a-f]{16})\.(validation|test)\.json")
IDENTITY = re.compile(r"[0-9a-f]{16}")
REQUIRED_METRICS = ("accuracy", "rows", "correct", "diverged")
REQUIRED_OF_LOSS = ("loss", "rows", "diverged")
"""Of a validation split that no rule scores: the mean loss of an answer's token, null of a diverged run."""


@dataclass(frozen=True, order=True)
class Cell:
    """One (model, method, dataset, protocol) of a table, by config names."""

    model: str
    method: str
    dataset: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.model} / {self.method} / {self.dataset} ({self.protocol})"

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any, *, where: object) -> Cell:
        """The cell of a JSON object with exactly these four names, or ActshiftError naming `where` it came from."""
        names = [field.name for field in fields(cls)]
        if not isinstance(data, dict) or sorted(data) != sorted(names) or not all(map(_is_name, data.values())):
            raise ActshiftError(f"{where}: a cell must be an object of the names {', '.join(names)}; got {data!r}")
        return cls(**data)


@dataclass(frozen=True)
class Record:
    """What a finished run leaves for one split.

    `config` is the part of the resolved config that counts; `metrics["accuracy"]` is in percent. A metric that is
    not a finite number (the final loss of a diverged run) is written as null: JSON has no NaN.
    """

    identity: str
    split: str
    cell: Cell
    lr: float
    seed: int
    config: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    schema: int = SCHEMA

    @property
    def file_name(self) -> str:
        return f"{self.identity}.{self.split}.json"

    @property
    def outcome(self) -> str:
        """The score in words: an accuracy in percent, or a loss in nats a token."""
        if "accuracy" in self.metrics:
            score = f"accuracy {self.metrics['accuracy']:.2f} ({self.metrics['correct']}/{self.metrics['rows']})"
            return f"{score}, training diverged" if self.metrics["diverged"] else score
        return "diverged" if self.metrics["loss"] is None else f"loss {self.metrics['loss']:.4f}"

    @cached_property
    def settings(self) -> Config:
        """The config as dataclasses: keys that no identity counts have their defaults."""
        return config_of(self.config)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this record, checked as `from_json` checks it."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data |= {"cell": self.cell.to_json(), "metrics": _finite(self.metrics), "provenance": _finite(self.provenance)}
        _check(data, where=f"record {self.file_name}")
        return data

    @classmethod
    def from_json(cls, data: Any, *, where: object = "record") -> Record:
        """The record of a JSON object; ActshiftError naming `where` it came from if anything is missing or foreign."""
        _check(data, where=where)
        return cls(**data | {"cell": Cell.from_json(data["cell"], where=where), "lr": float(data["lr"])})


def write_record(path: Path, record: Record) -> None:
    """Write a record so that it is there whole or not at all; `path` must bear the record's own name."""
    if path.name != record.file_name:
        raise ActshiftError(f"the record {record.file_name} cannot be written as {path}")
    write_file(path, json.dumps(record.to_json(), sort_keys=True, indent=1, allow_nan=False) + "\n")


def read_record(path: Path) -> Record:
    """The record in one file, refused where its content is not what the file's name says."""
    name = RECORD_NAME.fullmatch(path.name)
    if name is None:
        raise ActshiftError(
            f"{path} is not a record's file (<16 hex digits>.<{' or '.join(SPLITS)}>.json): move it away"
        )
    record = Record.from_json(read_json(path), where=path)
    if record.file_name != path.name:
        raise ActshiftError(
            f"{path} holds the record {record.file_name}: restore the file or delete it to run it again"
        )
    return record


def read_records(folder: Path, *, split: str | None = None) -> list[Record]:
    """All records of a folder, or those of one split, by cell, lr, seed. Hidden (unfinished) files do not count.

    With `split`, the files of the other split are not opened. Raises ActshiftError naming the first file that is
    torn, foreign or in contradiction to its name. A folder that does not exist holds none.
    """
    if split is not None and split not in SPLITS:
        raise ActshiftError(f"unknown split '{split}'. Allowed: {', '.join(SPLITS)}.")
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    visible = [name for name in names if not name.startswith(".")]
    wanted = [name for name in visible if _split_of(name) in (None, split) or split is None]
    records = [read_record(folder / name) for name in wanted]
    return sorted(records, key=lambda record: (record.cell, record.lr, record.seed, record.split, record.identity))


def read_json(path: Path) -> Any:
    """The JSON value of a file, or ActshiftError naming the file where it is not whole, strict JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except ValueError as error:
        raise ActshiftError(f"{path} is torn or not JSON ({error}): restore the file or delete it") from error


def _check(data: Any, *, where: object) -> None:
    """Raise ActshiftError unless `data` is a record's JSON object of this schema, complete and plausible."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        got = data.get("schema", "none") if isinstance(data, dict) else type(data).__name__
        raise ActshiftError(f"{where}: not a record of schema {SCHEMA} (got {got!r}); another version wrote it")
    names = {field.name for field in fields(Record)}
    if data.keys() != names:
        missing, extra = sorted(names - data.keys()), sorted(data.keys() - names)
        raise ActshiftError(f"{where}: not a record: missing {missing or 'nothing'}, unknown {extra or 'nothing'}")
    tests = {
        "identity": isinstance(data["identity"], str) and IDENTITY.fullmatch(data["identity"]),
        "split": data["split"] in SPLITS,
        "lr": _is_number(data["lr"]) and data["lr"] > 0,
        "seed": isinstance(data["seed"], int) and not isinstance(data["seed"], bool),
        "config": isinstance(data["config"], dict),
        "metrics": isinstance(data["metrics"], dict) and _plausible(data["metrics"]),
        "provenance": isinstance(data["provenance"], dict),
    }
    for name, fine in tests.items():
        if not fine:
            raise ActshiftError(f"{where}: a record's {name} cannot be {data[name]!r}")
    Cell.from_json(data["cell"], where=where)


def _plausible(metrics: Mapping[str, Any]) -> bool:
    """Whether the score is a share of the rows that were scored, in percent, or a loss."""
    if "loss" in metrics and "accuracy" not in metrics:
        loss = metrics["loss"]
        whole = all(name in metrics for name in REQUIRED_OF_LOSS) and isinstance(metrics["diverged"], bool)
        return whole and metrics["rows"] >= 1 and (metrics["diverged"] if loss is None else _is_number(loss))
    if not all(name in metrics for name in REQUIRED_METRICS) or not isinstance(metrics["diverged"], bool):
        return False
    accuracy, rows, correct = (metrics[name] for name in REQUIRED_METRICS[:3])
    if not all(map(_is_number, (accuracy, rows, correct))) or rows < 1:
        return False
    # Half a unit of the second decimal: a rounded percentage is not a contradiction.
    return 0 <= correct <= rows and abs(accuracy - 100 * correct / rows) <= 0.0051


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _split_of(name: str) -> str | None:
    match = RECORD_NAME.fullmatch(name)
    return match[2] if match else None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not strict JSON")
