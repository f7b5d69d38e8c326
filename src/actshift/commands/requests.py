"""What commands share: words taken apart, plans and selections found, and where they print."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.config.identity import ignored_keys
from actshift.config.overrides import override, text_of
from actshift.errors import ActshiftError, unknown
from actshift.planning.expand import expand_grid
from actshift.planning.extend import keep_extended
from actshift.planning.manifests import Manifest, freeze, read_manifest
from actshift.planning.selection import Selection, read_selection
from actshift.schema.config import Config
from actshift.store.store import Store

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
CELL_KEYS = ("model.", "method.", "dataset.")
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


def take_judge(request: Namespace) -> None:
    """Take `judge=NAME` among a command's overrides for `--judge NAME`."""
    named, request.overrides = split_options(request.overrides, ["judge"])
    request.judge = named.get("judge", request.judge)


def results_folder(request: Namespace) -> Path:
    """The results folder of a command that takes no other override. Errors: any other."""
    named, others = split_options(request.overrides, ["results"])
    if others:
        raise ActshiftError(f"{' '.join(others)}: this command takes results=FOLDER and no other override")
    return Path(compose([f"results={named['results']}"] if named else []).results)


def console(width: int = 160) -> Console:
    """Where tables are printed: as wide as the terminal, or so wide where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def write_copies(rows: T, *copies: tuple[str | None, Callable[[T], str]]) -> None:
    """Write what was printed to files too: a copy is a path (None for none) and a function that makes its text."""
    from actshift.files import write_file

    for file, text in copies:
        if file is not None:
            write_file(Path(file), text(rows))
            print(file)


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as a command names it: its config, and its overrides in two groups.

    `launch` are the overrides of this launch alone (hardware, data.dir, ...: they change no identity), `frozen` those
    that the plan holds. A sweep planned under a name of its own (``sweep.name=mine``) is known by its manifest.
    """

    name: str
    config: Config
    launch: list[str]
    frozen: list[str]
    store: Store

    def grid(
        self,
        compose_cell: CachedComposer,
        *,
        replan: bool = False,
        check: Callable[[Manifest], None] = lambda _: None,
    ) -> Manifest:
        """The frozen grid: planned now or before, after `check` refused what cannot be done.

        Rates that were added beyond its edges stay, unless `replan` goes back to those of the sweep's file.
        Errors: a plan that differs from this request.
        """
        path = self.store.manifest_path(self.name, "grid")
        if self.config.sweep is None:
            grid = read_manifest(path)
        else:
            grid = expand_grid(self.config.sweep, compose_cell, extra=self.frozen)
            grid = replace(grid, selection=self.config.selection)
            if path.exists() and not replan:
                grid = keep_extended(grid, read_manifest(path))
        check(grid)
        return grid if self.config.sweep is None else freeze(self.store, grid, replan=replan)


def sweep_request(request: Namespace) -> SweepRequest:
    """The sweep that a command names. Errors: neither a file of conf/sweep nor a planned sweep of that name."""
    known = request.sweep in groups()["sweep"]
    # What concerns a model, a method or a data set is checked with the cells of the sweep: here the default ones stand.
    shared = [given for given in request.overrides if not given.lstrip("+").startswith(CELL_KEYS)]
    if not known:  # a plan holds its sweep's keys
        shared = [given for given in shared if not given.lstrip("+").startswith("sweep.")]
    config = compose([f"sweep={request.sweep}", *shared] if known else shared)
    store = Store(Path(config.results))
    launch, frozen = _launch_and_frozen(map(anywhere, request.overrides))
    if config.sweep is not None:
        everywhere = [anywhere(each) for each in config.sweep.overrides]
        config = replace(config, sweep=replace(config.sweep, overrides=everywhere))
    name = config.sweep.name if known and config.sweep else request.sweep
    if not known and not (re.fullmatch(r"[\w.-]+", name) and store.manifest_path(name, "grid").exists()):
        where = f"conf/sweep/, or the sweeps planned in {store.root.resolve()}"
        raise unknown("sweep", request.sweep, [*groups()["sweep"], *store.planned()], where=where)
    if not known:
        # Its name is known already; any other key of the sweep would change what was planned.
        frozen += [given for given in request.overrides if given.startswith("sweep.") and given != f"sweep.name={name}"]
        _refuse_changes(name, frozen, store)
    return SweepRequest(name, config, launch, frozen, store)


def _refuse_changes(sweep: str, frozen: Sequence[str], store: Store) -> None:
    """Refuse overrides that a planned sweep does not have in each of its runs already: its plan cannot change."""
    if not frozen:
        return
    cells = read_manifest(store.manifest_path(sweep, "grid")).cells
    has = [variant.overrides for planned in cells for variant in planned.variants]
    if changes := [given for given in frozen if not all(given in overrides for overrides in has)]:
        raise ActshiftError(
            f"'{sweep}' is a planned sweep, and its plan is frozen: {' '.join(changes)} cannot change it. Leave these "
            "out, or plan another sweep from a file of conf/sweep with sweep.name=..."
        )


def _launch_and_frozen(overrides: Iterable[str]) -> tuple[list[str], list[str]]:
    """Overrides of a launch alone, and those that a plan freezes.

    What does not count towards an identity (hardware, results, data.dir) may differ from launch to launch.
    """
    ignored = [entry.partition(" when ")[0] for entry in ignored_keys()]
    launch: list[str] = []
    frozen: list[str] = []
    for each in overrides:
        key = each.lstrip("+~").split("=")[0]
        counts = key.startswith(FEEDING_GROUPS) or not any(
            key == name or key.startswith(f"{name}.") for name in ignored
        )
        (frozen if counts else launch).append(each)
    used_up = ("results=", "sweep.")  # workers are told the folder, and the expansion has used the sweep's own keys
    return [each for each in launch if not each.lstrip("+~").startswith(used_up)], frozen


def anywhere(given: str) -> str:
    """An override that means the same folder or file wherever a worker or a SLURM task starts."""
    key = given.lstrip("+").partition("=")[0]
    named = text_of(given) if key in ("data.dir", "model.path") else None
    folder = Path(named or "").expanduser()
    # A model's path may also be its name on the hub.
    if not named or folder.is_absolute() or (key == "model.path" and not folder.exists()):
        return given
    return override(key, folder.absolute())


def planned_grid(request: Namespace) -> tuple[Store, Manifest]:
    """The store and the frozen grid of a sweep. Errors: a sweep that was never planned there."""
    wanted = sweep_request(request)
    path = wanted.store.manifest_path(wanted.name, "grid")
    if not path.exists():
        raise ActshiftError(
            f"'{request.sweep}' has not been planned in {wanted.store.root.resolve()}: run `actshift sweep "
            f"{request.sweep}` or `actshift plan {request.sweep}`, or name another results folder with results=..."
        )
    return wanted.store, read_manifest(path)


def stages_of(store: Store, grid: Manifest) -> list[Manifest]:
    """The grid, and the final stage: the frozen one, or as far as it is known before a selection, without runs."""
    path = store.manifest_path(grid.sweep, "final")
    return [grid, read_manifest(path)] if path.exists() else [grid]


def selection_of(store: Store, sweep: str) -> Selection | None:
    """What was selected for a sweep, where there is something."""
    return read_selection(store, sweep) if store.selected_path(sweep).exists() else None
