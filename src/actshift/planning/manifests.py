"""Manifests: a sweep's stage written down, one line a run, and what to do when the code has moved on since."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.config.identity import canonical_json, changed_keys, hashed_part, identity_of, ignored_keys
from actshift.errors import ActshiftError, unknown
from actshift.files import write_file
from actshift.planning.fraction import Fraction
from actshift.schema.building import config_of
from actshift.schema.config import STAGES, Config
from actshift.store.records import Cell
from actshift.store.store import Store

SCHEMA = 2
SHOWN = 20  # changed keys in one message


@dataclass(frozen=True)
class Run:
    """One cell at one variant, learning rate and seed; `overrides` are the Hydra overrides that compose it."""

    identity: str
    cell: Cell
    lr: float
    seed: int
    split: str
    overrides: tuple[str, ...]
    variant: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"kind": "run", "overrides": list(self.overrides)}


@dataclass(frozen=True)
class Variant:
    """One setting of what a cell tunes beside its learning rate (ReFT's scope). `name` is "" where it tunes nothing.

    `config` is the part that counts, at the first rate and seed; `overrides` compose it, but for rate, seed and stage.
    """

    name: str
    overrides: tuple[str, ...]
    config: dict[str, Any]


@dataclass(frozen=True)
class PlannedCell:
    """What is planned of one cell: variants and learning rates (ascending) to choose from, seeds of the final stage.

    `added` are those of the rates that came later, beyond an edge of the grid that the sweep's file names.
    """

    cell: Cell
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    added: tuple[float, ...] = ()
    levels: Mapping[str, str] = field(default_factory=dict)
    """By factor, where the cell is a combination of a fraction."""

    @property
    def recorded(self) -> Cell:
        """The cell as its runs' records name it: a combination's runs are those of the method that it begins with."""
        return replace(self.cell, method=self.config.get("method", {}).get("name", self.cell.method))

    @property
    def config(self) -> dict[str, Any]:
        """The config of the first variant: what all variants share is read from it."""
        return self.variants[0].config

    @cached_property
    def settings(self) -> Config:
        """That config as dataclasses: keys that no identity counts have their defaults."""
        return config_of(self.config)

    @property
    def candidates(self) -> tuple[tuple[float, str], ...]:
        """Every (learning rate, variant's name) that selection chooses from, ascending by rate."""
        return tuple((lr, variant.name) for lr in self.rates for variant in self.variants)

    def variant(self, name: str) -> Variant:
        """The variant of a name. Errors: a name that is not planned."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise unknown("variant", name, [variant.name for variant in self.variants], where=f"the plan of {self.cell}")

    def at(self, lr: float, seed: int, variant: str = "") -> dict[str, Any]:
        """The config that counts at a rate, a seed and a variant."""
        return hashed_part({**self.variant(variant).config, "lr": lr, "seed": seed}, ignore=())

    def run(self, *, stage: str, lr: float, seed: int, variant: str = "") -> Run:
        overrides = (*self.variant(variant).overrides, f"stage={stage}", f"lr={lr!r}", f"seed={seed}")
        identity = identity_of(self.at(lr, seed, variant), ignore=())
        return Run(identity, self.cell, lr, seed, split_of(stage), overrides, variant)

    def to_json(self) -> dict[str, Any]:
        variants = [asdict(variant) | {"overrides": list(variant.overrides)} for variant in self.variants]
        lists = {"rates": list(self.rates), "seeds": list(self.seeds), "variants": variants}
        added = {"added": list(self.added)} if self.added else {}
        levels = {"levels": dict(self.levels)} if self.levels else {}
        return {"kind": "cell", "cell": self.cell.to_json()} | lists | added | levels


@dataclass(frozen=True)
class Exclusion:
    """A cell that the table leaves out, and why."""

    model: str
    method: str
    dataset: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A sweep's stage, expanded: the facts of the table, its planned cells in table order, and the stage's runs.

    A cell with one candidate has nothing to choose, so the grid stage does not run it (`untuned`). `selection` says
    whether all candidates train to the end (grid) or lagging ones are dropped (halving).
    """

    sweep: str
    stage: str
    title: str
    table: str | None
    models: tuple[str, ...]
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    reference: str
    exclusions: tuple[Exclusion, ...]
    cells: tuple[PlannedCell, ...]
    runs: tuple[Run, ...]
    fraction: Fraction | None = None
    schema: int = SCHEMA
    selection: str = "grid"

    @property
    def extended(self) -> tuple[Cell, ...]:
        """The cells that have rates beyond the grid of the sweep's file."""
        return tuple(planned.cell for planned in self.cells if planned.added)

    @property
    def halves(self) -> bool:
        """Whether lagging candidates of this stage are dropped before their end."""
        return self.stage == "grid" and self.selection == "halving"

    @property
    def untuned(self) -> tuple[Cell, ...]:
        return tuple(planned.cell for planned in self.cells if len(planned.candidates) == 1)

    def planned(self, cell: Cell) -> PlannedCell:
        """The plan of one cell. Errors: a cell that this manifest does not have."""
        for planned in self.cells:
            if planned.cell == cell:
                return planned
        raise unknown("cell", cell, [planned.cell for planned in self.cells], where=f"the sweep '{self.sweep}'")

    def runs_of(self, cell: Cell) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.cell == cell)

    def header(self) -> dict[str, Any]:
        """The facts of the table, without cells and runs."""
        left_out = ("cells", "runs", "fraction", *(["selection"] if self.selection == "grid" else []))  # as older plans
        facts = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in left_out}
        fraction = {"fraction": self.fraction.to_json()} if self.fraction else {}
        return {"kind": "sweep", **facts, "exclusions": [asdict(each) for each in self.exclusions], **fraction}

    def to_text(self) -> str:
        """JSON Lines: the header, a line a cell, a line a run. The same plan is the same bytes."""
        lines = [self.header(), *(cell.to_json() for cell in self.cells), *(run.to_json() for run in self.runs)]
        return "".join(canonical_json(line) + "\n" for line in lines)


def read_manifest(path: Path) -> Manifest:
    """A frozen manifest. Errors: none there, torn, or of another version; the message names the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ActshiftError(f"there is no manifest {path}: plan the sweep first") from error
    try:
        header, *lines = [_thawed(json.loads(line)) for line in text.splitlines()]
        exclusions = tuple(Exclusion(**exclusion) for exclusion in header.pop("exclusions"))
        kinds = header.pop("kind"), header["schema"], text[-1:]
        parts: dict[str, list[dict[str, Any]]] = {"cell": [], "run": []}
        for line in lines:
            parts[line.pop("kind")].append(line)
        cells, runs = (PlannedCell(**line) for line in parts["cell"]), (Run(**line) for line in parts["run"])
        if "fraction" in header:
            header["fraction"] = Fraction.from_json(header["fraction"])
        manifest = Manifest(**header, exclusions=exclusions, cells=tuple(cells), runs=tuple(runs))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ActshiftError(f"{path} is not a whole manifest ({error!r}): plan again with --replan") from error
    if kinds != ("sweep", SCHEMA, "\n"):
        raise ActshiftError(f"{path} is not a whole manifest of schema {SCHEMA}: plan again with --replan")
    return manifest


def freeze(store: Store, manifest: Manifest, *, replan: bool = False) -> Manifest:
    """Write a manifest down if there is none, or refuse where it differs from the one that is frozen.

    What does not count towards identities (other hardware among the overrides) is no difference: then the given
    manifest is returned and the file stays as it is. `replan` replaces the file and keeps the old one as ``.old``.
    """
    path = store.manifest_path(manifest.sweep, manifest.stage)
    if not path.exists():
        write_file(path, manifest.to_text())
        return manifest
    if replan:
        text = path.read_text(encoding="utf-8")
        if text != manifest.to_text():
            write_file(path.with_name(path.name + ".old"), text)
            write_file(path, manifest.to_text())
        return manifest
    lines = _differences(read_manifest(path), manifest)
    if lines:
        raise ActshiftError(
            "\n  ".join([f"the {manifest.stage} plan of '{manifest.sweep}' is not the one frozen in {path}:", *lines])
            + "\nUndo the change to go on with the frozen plan, or freeze the new one with --replan: "
            "runs that are in both and done are not done again."
        )
    return manifest


def verify(run: Run, config: Config, manifest: Manifest) -> None:
    """Refuse to start a run whose overrides, composed here and now, are no longer the run that was planned.

    Raises ActshiftError with the keys that changed since the manifest was frozen, and for a stage that scores another
    split than the run's.
    """
    now = hashed_part(config, ignore=ignored_keys())
    if identity_of(now, ignore=()) != run.identity:
        changes = changed_keys(manifest.planned(run.cell).at(run.lr, run.seed, run.variant), now)
        lines = _shortened(changes) or ["nothing in the config: the manifest itself was edited"]
        raise ActshiftError(
            "\n  ".join([f"run {run.identity} ({run.cell}, lr {run.lr!r}, seed {run.seed}) has drifted:", *lines])
            + f"\nIt was planned before that change. Undo it, or plan '{manifest.sweep}' again with --replan."
        )
    if split_of(config.stage) != run.split:
        raise ActshiftError(f"run {run.identity} is planned for {run.split}, stage={config.stage} scores another split")


def _differences(old: Manifest, new: Manifest) -> list[str]:
    """What counts and differs: facts of the table, cells, their grids and configs, runs. Empty if nothing does."""
    lines = changed_keys(old.header(), new.header())
    before, after = ({planned.cell: planned for planned in manifest.cells} for manifest in (old, new))
    lines += [f"cell added: {cell}" for cell in after if cell not in before]
    lines += [f"cell removed: {cell}" for cell in before if cell not in after]
    changes: Counter[str] = Counter()
    for cell in before.keys() & after.keys():
        changes.update(changed_keys(_plan(before[cell]), _plan(after[cell])))
    lines += [f"{line} ({count} cells)" if count > 1 else line for line, count in sorted(changes.items())]
    identities = [{run.identity for run in manifest.runs} for manifest in (old, new)]
    added, removed = len(identities[1] - identities[0]), len(identities[0] - identities[1])
    if not (lines or added or removed):
        return []
    return [f"{added} runs added, {removed} removed, {len(new.runs)} in all", *_shortened(lines)]


def _plan(planned: PlannedCell) -> dict[str, Any]:
    """A cell's configs with its grid and seeds in the place of the one rate and seed that they happen to hold."""
    tuned = {"lr": list(planned.rates), "seed": list(planned.seeds)}
    whole = {variant.name: {**variant.config, **tuned} for variant in planned.variants}
    return whole.get("") or whole


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - SHOWN
    return lines if rest <= 0 else [*lines[:SHOWN], f"... and {rest} more"]


def _thawed(line: dict[str, Any]) -> dict[str, Any]:
    """A line's values as the dataclasses have them: tuples for lists, a Cell for its object."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in line.items()}
    if "variants" in values:
        values["variants"] = tuple(
            Variant(**each | {"overrides": tuple(each["overrides"])}) for each in line["variants"]
        )
    return values | ({"cell": Cell.from_json(line["cell"], where="a line")} if "cell" in line else {})


def split_of(stage: str) -> str:
    if stage not in STAGES:
        raise unknown("stage", stage, STAGES, where="the override stage=...")
    return STAGES[stage]
