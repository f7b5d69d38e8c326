"""Where rows come from: the hub, a local folder in the hub's schema, or the task's own generator.

Every source gives the same thing, one hub split as a `datasets.Dataset` with the columns that the task reads, so
that everything after it is the same code. Only ``source=hub`` touches the network.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, unknown
from actshift.hub import dataset_repository, folder, quiet
from actshift.schema.config import Config
from actshift.schema.data import DatasetConfig, HubConfig
from actshift.tasks import task_of
from actshift.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset

SOURCES = ("hub", "local", "procedural")
SUFFIXES = (".jsonl", ".jsonl.gz")
PATIENCE = 10_000
"""Repeated prompts in a row after which a difficulty is taken to be exhausted."""

_ORDER = ("train", "validation", "test")


def hub_split(
    dataset: DatasetConfig, split: str, *, source: str, directory: str | None, labelled: bool = True
) -> Dataset:
    """All rows of one hub split of a resolved `DatasetConfig`, in the source's own order.

    Every row is checked by value, unless a split that has no labels is only looked at (`labelled` false). Rows of the
    hub and of a folder are counted against ``dataset.hub.rows`` where it names the split. Raises `ActshiftError` for an
    unknown source or split, a file or column that is missing, a row that cannot be used, and a wrong row count.
    """
    task = task_of(dataset)
    if source == "procedural":
        return _to_dataset(procedural_rows(dataset, split), where=f"the generator of {dataset.name}")
    if source == "local":
        path = local_file(dataset, split, directory=directory)
        rows = read_rows(path, columns=task.columns, problem=task.problem if labelled else None)
        found = _to_dataset(rows, where=str(path))
    elif source == "hub":
        found = _from_hub(dataset.hub, split)
        where = f"{dataset.hub.path} ({split})"
        _check_columns(found.column_names, task.columns, where=where)
        for number, row in enumerate(found if labelled else ()):
            _refuse(task.problem(row), where=f"{where}, row {number}")
    else:
        raise unknown("data source", source, SOURCES, where="data.source")
    _check_count(dataset, split, len(found), source=source)
    return found


def procedural_rows(dataset: DatasetConfig, split: str) -> list[dict[str, Any]]:
    """The split's part of one seeded stream of rows with distinct prompts: train first, then validation, then test.

    One stream for all splits is what keeps a test prompt from ever being a train prompt. It also means that
    another number of train rows draws other test rows.
    """
    settings = dataset.procedural
    if split not in settings.rows:
        raise unknown(f"procedural split of {dataset.name}", split, settings.rows, where="dataset.procedural.rows")
    rows = _draw_distinct(dataset, count=_end(settings.rows, split))
    return rows[-settings.rows[split] :]


def _end(counts: Mapping[str, int], split: str) -> int:
    """How many rows the stream must give until the split is complete."""
    bad = {name: rows for name, rows in counts.items() if rows < 1}
    if bad:
        raise ActshiftError(f"dataset.procedural.rows must be 1 or more, got {bad}.")
    order = sorted(counts, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return sum(counts[name] for name in order[: order.index(split) + 1])


def _draw_distinct(dataset: DatasetConfig, *, count: int) -> list[dict[str, Any]]:
    task, settings = task_of(dataset), dataset.procedural
    rng = random.Random(f"{task.name} {settings.seed}")
    rows: dict[str, dict[str, Any]] = {}
    misses = 0
    while len(rows) < count:
        row = _draw(task, rng, settings.difficulty)
        prompt = task.prompt(row)
        misses = misses + 1 if prompt in rows else 0
        rows.setdefault(prompt, row)
        if misses >= PATIENCE:
            raise ActshiftError(
                f"{dataset.name}: the difficulty {dict(settings.difficulty)} gives about {len(rows)} distinct "
                f"rows, but {count} are asked for. Raise the difficulty or lower dataset.procedural.rows."
            )
    return list(rows.values())


def _draw(task: Task, rng: random.Random, difficulty: Mapping[str, int]) -> dict[str, Any]:
    where = "dataset.procedural.difficulty"
    for name in difficulty:
        if name not in task.difficulty:
            raise unknown(f"difficulty of {task.name}", name, task.difficulty, where=where)
    missing = [name for name in task.difficulty if name not in difficulty]
    if missing:
        raise ActshiftError(f"{where} of {task.name} lacks {', '.join(missing)}.")
    try:
        return task.generate(rng, **difficulty)
    except ActshiftError:
        raise
    except (ValueError, IndexError) as error:
        raise ActshiftError(f"{where}={dict(difficulty)} is impossible for {task.name}: {error}.") from error


def partial_splits(config: Config) -> list[str]:
    """The hub splits of which a run's source holds a part, under another name: that is not the data set itself."""
    return sorted(config.dataset.local.files) if config.data.source == "local" else []


def hub_commit(config: Config) -> str | None:
    """The commit of the hub's data set that a resolved config's rows are of, whatever revision it names.

    None of rows from elsewhere, and of a folder that is no snapshot of the hub's cache.
    """
    if config.data.source != "hub":
        return None
    files = folder(dataset_repository(config.dataset.hub))
    return files.name if files.parent.name == "snapshots" else None


def has_split(dataset: DatasetConfig, split: str, *, directory: str | None) -> bool:
    """Whether a local folder holds a split, whole or in part."""
    try:
        return local_file(dataset, split, directory=directory).is_file()
    except ActshiftError:
        return False


def local_file(dataset: DatasetConfig, split: str, *, directory: str | None) -> Path:
    """``<directory>/<folder>/<split>.jsonl``, or that with ``.gz``; where neither exists, the error says what does.

    A split that ``dataset.local.files`` names lies in that file instead.
    """
    if directory is None:
        raise ActshiftError("data.source=local needs the folder that holds the data sets: set data.dir=<folder>.")
    folder = Path(directory).expanduser() / dataset.local.folder
    name = dataset.local.files.get(split, split)
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    if not folder.is_dir():
        raise ActshiftError(f"there is no folder {folder}. Set data.dir (got {directory}) or dataset.local.folder.")
    present = sorted(path.name for path in folder.iterdir())
    looked = " and ".join(f"{name}{suffix}" for suffix in SUFFIXES)
    raise ActshiftError(
        f"{dataset.name} has no split '{split}' in {folder}: looked for {looked}, found "
        f"{', '.join(present) or 'nothing'}. Add the file, or set data.splits.<split>.source to one that is there."
    )


def read_rows(
    path: Path, *, columns: tuple[str, ...], problem: Callable[[Mapping[str, Any]], str | None] | None = None
) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, plain or gzip; blank lines are skipped.

    `problem` says of a row what is wrong with it, if anything. Errors name the file and the line.
    """
    rows = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_parse(line, columns, where=f"{path}, line {number}"))
                    if problem is not None:
                        _refuse(problem(rows[-1]), where=f"{path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ActshiftError(f"{path} cannot be read: {error}.") from error
    if not rows:
        raise ActshiftError(f"{path} holds no rows.")
    return rows


def _refuse(problem: str | None, *, where: str) -> None:
    if problem is not None:
        raise ActshiftError(f"{where}: {problem.removesuffix('.')}. Correct the row, or leave it out.")


def _parse(line: str, columns: tuple[str, ...], *, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ActshiftError(f"{where}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise ActshiftError(f"{where}: a row is a JSON object, got {type(row).__name__}.")
    _check_columns(list(row), columns, where=where)
    if empty := [column for column in columns if row[column] is None]:
        raise ActshiftError(f"{where}: no value of {', '.join(empty)}: null. Correct the row, or leave it out.")
    return row


def _check_columns(present: list[str], columns: tuple[str, ...], *, where: str) -> None:
    missing = [column for column in columns if column not in present]
    if missing:
        raise ActshiftError(f"{where}: no column {', '.join(missing)}; there is {', '.join(present) or 'none'}.")


def _to_dataset(rows: list[dict[str, Any]], *, where: str) -> Dataset:
    """In memory: nothing is written to the datasets cache."""
    from datasets import Dataset

    try:
        return Dataset.from_list(rows)
    except (ValueError, TypeError) as error:
        mixed = "; ".join(_mixed_columns(rows)) or f"a column holds values of different types ({error})"
        raise ActshiftError(f"{where}: {mixed}. Give a column values of one type.") from error


def _mixed_columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each column with values of several types, and the first row of each type; rows count from 1."""
    for column in dict.fromkeys(name for row in rows for name in row):
        first: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            if (value := row.get(column)) is not None:
                first.setdefault(_JSON_TYPES.get(type(value), type(value).__name__), number)
        if len(first) > 1:
            yield f"the column '{column}' holds {' and '.join(f'{kind} (row {row})' for kind, row in first.items())}"


_JSON_TYPES = {str: "text", int: "numbers", float: "numbers", bool: "true or false", list: "lists", dict: "objects"}


def _from_hub(hub: HubConfig, split: str) -> Dataset:
    """A split of a data set on the hub, read from the folder of its files: of exactly this revision, cached or not."""
    import datasets

    if hub.rows and split not in hub.rows:
        raise unknown(f"split of {hub.path}", split, hub.rows, where="data.splits.<split>.source")
    try:
        with quiet(datasets.utils):
            files = str(folder(dataset_repository(hub)))
            # In memory as the other sources are: `train_test_split` refuses to keep a part of a mapped file there.
            return datasets.load_dataset(files, hub.config, split=split, keep_in_memory=True)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ActshiftError(
            f"{hub.path} (config {hub.config}, revision {hub.revision}, split {split}) could not be loaded "
            f"from the hub: {str(error).rstrip('.')}. Without network: data.source=local data.dir=<folder>, or "
            "data.source=procedural."
        ) from error


def _check_count(dataset: DatasetConfig, split: str, found: int, *, source: str) -> None:
    expected = dataset.hub.rows.get(split)
    if source == "local":
        expected = dataset.local.rows.get(split, expected)
    if expected is None or expected == found:
        return
    message = f"{dataset.name}: split '{split}' has {found:,} rows, but {expected:,} are expected."
    setting = f"dataset.hub.rows.{split}={found}"
    if source == "local":
        raise ActshiftError(f"{message} If the folder rightly holds another number, set {setting}.")
    raise ActshiftError(f"{message} The hub's data has changed: pin dataset.hub.revision, or set {setting}.")
