"""How far a run had come when it paused: what successive halving compares, as one small file a run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.store.records import read_json

SCHEMA = 1


@dataclass(frozen=True)
class Pause:
    """A run that trained `step` of its `steps` and can be continued from its checkpoint.

    `curve` has (steps done, mean loss per answer token of the watched validation rows); `train_seconds` is what all its
    steps so far took; `data` is the fingerprint of the rows that it trained on.
    """

    identity: str
    step: int
    steps: int
    curve: tuple[tuple[int, float], ...]
    train_seconds: float
    data: str


def write_pause(path: Path, pause: Pause) -> None:
    """Write or replace the file of a pause."""
    curve = [(step, loss if math.isfinite(loss) else None) for step, loss in pause.curve]  # JSON has no infinity
    data = {"schema": SCHEMA, **asdict(pause), "curve": curve}
    write_file(path, json.dumps(data, sort_keys=True, allow_nan=False) + "\n")


def read_pause(path: Path) -> Pause | None:
    """The pause in a file, None where there is none. Errors: a file that is none; the message names it."""
    try:
        data: dict[str, Any] = read_json(path)
        if data.pop("schema") != SCHEMA:
            raise KeyError("schema")
        curve = tuple((int(step), math.inf if loss is None else float(loss)) for step, loss in data["curve"])
        return Pause(**data | {"curve": curve})
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ActshiftError(
            f"{path} is not a pause of schema {SCHEMA} ({error!r}): delete it, and its run goes on"
        ) from error
