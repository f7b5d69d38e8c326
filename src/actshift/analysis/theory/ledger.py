"""The theory ledger: every statement judged, as a frame of checks and as one record."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy

from actshift.analysis.theory import dynamics, expansions, joint, propagation, sites
from actshift.analysis.theory.evaluate import Settings, evaluate
from actshift.analysis.theory.statements import BOUND, Draw, Entry, Sizes, Statement
from actshift.schema.analysis import SizesConfig, TheoryConfig
from actshift.schema.building import plain

STATEMENTS: tuple[Statement, ...] = (
    *expansions.STATEMENTS,
    *sites.STATEMENTS,
    *joint.STATEMENTS,
    *dynamics.STATEMENTS,
    *propagation.STATEMENTS,
)
"""Every statement, in the order of the ledger."""

COLUMNS = (
    "statement", "place", "verdict", "role", "form", "kind", "family", "draws", "within", "worst", "limit", "holds"
)  # fmt: skip


def settings_of(analysis: TheoryConfig) -> Settings:
    """The settings of `conf/analysis/theory.yaml` or of another configuration of that form."""
    return Settings(
        draws=analysis.draws,
        sizes=_sizes(analysis.sizes),
        searched=_sizes(analysis.search.sizes),
        restarts=analysis.search.restarts,
        steps=analysis.search.steps,
        seed=analysis.seed,
    )


def _sizes(sizes: SizesConfig) -> Sizes:
    return Sizes(sizes.width, sizes.inner, sizes.inputs)


def ledger(analysis: TheoryConfig, real: Mapping[str, Mapping[str, Draw]] | None = None) -> list[Entry]:
    """Every statement judged under a configuration of `analysis=theory`. `real`: a model's families, by statement."""
    families = real or {}
    own = [replace(statement, real=families.get(statement.name, {})) for statement in STATEMENTS]
    return evaluate(own, settings_of(analysis))


def frame(entries: Sequence[Entry]) -> pd.DataFrame:
    """One row a check: the columns of `COLUMNS`; `worst` is rounded to 4 digits."""
    rows = [
        (
            entry.statement.name, entry.statement.place, entry.verdict, check.role, check.says, check.kind,
            check.family, check.draws, check.within, digits(check.worst), check.limit, check.holds,
        )
        for entry in entries
        for check in entry.checks
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def tightness(entry: Entry) -> float | None:
    """The largest ratio of left to right side that was found for a bound; None for any other statement."""
    found = [check.worst for check in entry.checks if check.role == "printed" and check.kind == BOUND]
    return digits(max(found)) if found else None


def digits(value: float) -> float:
    """A number to four digits; it stands for more draws than the rest of its digits would."""
    return float(f"{value:.4g}")


def record(
    entries: Sequence[Entry], analysis: TheoryConfig, *, model: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The ledger as JSON: verdicts and counterexamples, with all that a repetition needs.

    `model` says whose weights and hidden states took part (its name, the data set's, and the identity of both), `code`
    is the SHA-256 of this folder's files and `frame` that of the frame as CSV.
    """
    return {
        "analysis": analysis.name,
        "config": plain(analysis),
        "model": model,
        "code": code_fingerprint(),
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__},
        "frame": hashlib.sha256(frame(entries).to_csv(index=False).encode()).hexdigest(),
        "statements": [_statement(entry) for entry in entries],
    }


def _statement(entry: Entry) -> dict[str, Any]:
    statement = entry.statement
    under = statement.condition is not None and entry.verdict == "holds under"
    return {
        "name": statement.name,
        "place": statement.place,
        "says": statement.says,
        "verdict": entry.verdict,
        "condition": statement.condition.says if under and statement.condition else None,
        "corrected": entry.corrected,
        "tightness": tightness(entry),
        "counterexample": entry.counterexample,
    }


def code_fingerprint() -> str:
    """SHA-256 over the names and contents of the modules that make the ledger."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def json_text(content: Mapping[str, Any]) -> str:
    """A record as text; the same record is the same text. Infinities are words, as JSON has none."""
    return json.dumps(_finite(content), indent=1, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
