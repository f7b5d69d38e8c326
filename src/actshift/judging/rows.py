"""Rows of a file that others wrote: a JSON list or JSON lines, gzipped or not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import write_file


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one JSON list, in the form of AlpacaEval's files."""
    write_file(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file, numbered from 1. Errors: no text of UTF-8, no JSON, no objects."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ActshiftError(f"{path} cannot be read as text: {error}. Give JSON lines or a JSON list.") from error
    try:
        # Not splitlines: JSON may hold other line separators within a text.
        lines = [line for line in text.split("\n") if line.strip()]
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except ValueError as error:
        raise ActshiftError(f"{path} is not JSON: {error}. Give JSON lines or a JSON list.") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ActshiftError(f"{path} holds no rows that are JSON objects. Give JSON lines or a JSON list.")
    return list(enumerate(rows, start=1))
