"""The record of a judged run: one small JSON, the only thing that a table of win rates is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.judging.config import JudgeConfig
from actshift.judging.summary import Summary

SCHEMA = 1
FOLDER = "judged"


@dataclass(frozen=True)
class JudgedRecord:
    """What a judge made of a run's outputs. Rates and errors are in percent.

    `win` has upstream's columns, `win_spread` the bootstrap's error and interval, `by_position` the win rate by the
    place of the model's answer; `lc` is the length-controlled win rate with its penalty, weights, range over penalties,
    both errors and the source of the gamed rows, None without the data for it. `instructions` were compared, `lost`
    instructions of the reference had no output.
    """

    identity: str
    judge: str
    judge_identity: str
    annotator: str
    model: str
    reference: str
    outputs_sha256: str
    instructions: int
    lost: int
    win: dict[str, Any]
    win_spread: dict[str, float]
    by_position: dict[str, float]
    lc: dict[str, Any] | None
    dollars: float
    created: str
    schema: int = SCHEMA

    @property
    def file_name(self) -> str:
        return f"{self.identity}.{self.judge}.json"


def record_of(
    row: Summary, config: JudgeConfig, *, identity: str, outputs: Path, lost: int, dollars: float
) -> JudgedRecord:
    """The record of a summary of a run's judgments."""
    lc = None
    if row.lc is not None and row.lc_spread is not None:
        lc = asdict(row.lc) | {"bootstrap": asdict(row.lc_spread)}
    return JudgedRecord(
        identity=identity,
        judge=config.name,
        judge_identity=config.identity,
        annotator=row.judgments.annotator,
        model=row.judgments.model,
        reference=row.judgments.reference,
        outputs_sha256=hashlib.sha256(outputs.read_bytes()).hexdigest(),
        instructions=len(row.judgments.instructions),
        lost=lost,
        win=asdict(row.win),
        win_spread=asdict(row.spread),
        by_position=asdict(row.position),
        lc=lc,
        dollars=round(dollars, 6),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_record(root: Path, record: JudgedRecord) -> Path:
    """Keep a record in a results folder; a later judgment of the same run by the same judge replaces it."""
    path = root / FOLDER / record.file_name
    write_file(path, json.dumps(_finite(asdict(record)), sort_keys=True, indent=1, allow_nan=False) + "\n")
    return path


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def read_judged(root: Path, judge: str, identities: Iterable[str]) -> dict[str, JudgedRecord]:
    """The records of runs by one judge, by identity.

    Errors: a file that is no record; records of several annotators, references or identities of the judge.
    """
    found = {}
    for identity in identities:
        path = root / FOLDER / f"{identity}.{judge}.json"
        if path.exists():
            found[identity] = _read(path)
    for name in ("annotator", "reference", "judge_identity"):
        values = sorted({getattr(record, name) for record in found.values()})
        if len(values) > 1:
            raise ActshiftError(
                f"the records of judge {judge} have several values of {name}: {', '.join(values)}. Such numbers never "
                f"share a table: judge these runs again, or move the older files out of {root / FOLDER}."
            )
    return found


def _read(path: Path) -> JudgedRecord:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ActshiftError(f"{path} is torn or not JSON ({error}): judge the run again.") from error
    names = {field.name for field in fields(JudgedRecord)}
    if not isinstance(data, dict) or set(data) != names or data["schema"] != SCHEMA:
        raise ActshiftError(f"{path} is no record of a judged run of schema {SCHEMA}: judge the run again.")
    record = JudgedRecord(**data)
    if record.file_name != path.name:
        raise ActshiftError(f"{path} holds the record {record.file_name}: restore the file or delete it.")
    return record
