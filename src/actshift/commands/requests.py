"""What commands share: words taken apart, plans and selections found, and where they print."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from actshift.config.composition import compose
from actshift.config.identity import ignored_keys
from actshift.errors import ActshiftError
from actshift.planning.manifests import Manifest, read_manifest
from actshift.planning.selection import Selection, read_selection
from actshift.store.store import Store

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
FEEDING_GROUPS = ("dataset.", "protocol.", "method.", "model.")
"""Below these are keys that do not count themselves, but what counts is made from them (`data.origin`)."""


def split_options(overrides: Iterable[str], keys: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """A command's own `key=value` words (the last of each key), and the Hydra overrides that are left."""
    words: dict[str, str] = {}
    others = []
    for given in overrides:
        key, sign, value = given.partition("=")
        if sign and key in keys:
            words[key] = value
        else:
            others.append(given)
    return words, others


def console(width: int = 160) -> Console:
    """Where tables are printed: as wide as the terminal, or so wide where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def write_copies(rows: T, *copies: tuple[str | None, Callable[[T], str]]) -> None:
    """What was printed, in the files that were asked for: each a path, or None, and what writes its text."""
    from actshift.files import write_file

    for file, text in copies:
        if file is not None:
            write_file(Path(file), text(rows))
            print(file)


def sweep_request(request: Namespace) -> tuple[dict[str, Any], list[str], list[str]]:
    """A sweep's config, and its overrides apart: those of this launch alone, and those that the plan freezes.

    What does not count towards an identity (hardware, results, data.dir) may differ from launch to launch.
    """
    config = compose([f"sweep={request.sweep}", *request.overrides])
    ignored = tuple(ignored_keys())
    launch: list[str] = []
    frozen: list[str] = []
    for override in request.overrides:
        key = override.lstrip("+~").split("=")[0]
        counts = key.startswith(FEEDING_GROUPS) or not any(
            key == name or key.startswith(f"{name}.") for name in ignored
        )
        (frozen if counts else launch).append(override)
    own = ("results=", "sweep.")  # said to the workers by path, and used up by the expansion
    return config, [override for override in launch if not override.startswith(own)], frozen


def planned_grid(request: Namespace) -> tuple[Store, Manifest]:
    """The store and the frozen grid of a sweep. Errors: a sweep that was never planned there."""
    config, _, _ = sweep_request(request)
    store = Store(Path(config["results"]))
    path = store.manifest_path(config["sweep"]["name"], "grid")
    if not path.exists():
        raise ActshiftError(
            f"'{request.sweep}' has not been planned in {store.root.resolve()}: run `actshift sweep {request.sweep}` "
            f"or `actshift plan {request.sweep}`, or name another results folder with results=..."
        )
    return store, read_manifest(path)


def stages_of(store: Store, grid: Manifest) -> list[Manifest]:
    """The grid, and the final stage: the frozen one, or as far as it is known before a selection, without runs."""
    path = store.manifest_path(grid.sweep, "final")
    return [grid, read_manifest(path)] if path.exists() else [grid]


def selection_of(store: Store, sweep: str) -> Selection | None:
    """What was selected for a sweep, where there is something."""
    return read_selection(store, sweep) if store.selected_path(sweep).exists() else None
