"""A table's axes expanded to runs, and frozen: what is planned is written down before anything runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from actshift.config.groups import groups, option_file
from actshift.config.identity import hashed_part, ignored_keys, leaves
from actshift.errors import ActshiftError, unknown
from actshift.planning.fraction import Combination, combinations, fraction_of
from actshift.planning.manifests import Exclusion, Manifest, PlannedCell, Run, Variant
from actshift.planning.selection import Selection
from actshift.schema.config import Config, SweepConfig
from actshift.store.records import Cell

AXES = ("model", "method", "dataset", "stage", "lr", "seed", "sweep")


def expand_grid(sweep: SweepConfig, compose: Callable[[list[str]], Config], *, extra: Sequence[str] = ()) -> Manifest:
    """The grid stage: every cell that is not excluded, at every candidate (variant and rate) and its first seed.

    `compose` turns overrides into a resolved config; called once a variant; rate and seed are put into copies.
    `extra` overrides win over the sweep's own. Raises ActshiftError where a cell has no grid of learning rates, a
    rate or seed stands there twice, an exclusion or an override names what it cannot, or no cell is left.
    """
    outdone = _keys_of_debug(extra)
    overrides = [given for given in sweep.overrides if given.partition("=")[0] not in outdone]
    overrides = _merged([*overrides, *extra], sweep=sweep.name)
    for method in sweep.variants:
        if method not in sweep.methods:
            raise unknown("method with variants", method, sweep.methods, where=_file(sweep))
    exclusions = tuple(_exclusions(sweep))
    left_out = {(exclusion.model, exclusion.method, exclusion.dataset) for exclusion in exclusions}
    ignore, found = ignored_keys(), combinations(sweep)
    cells = [
        _planned(sweep, names, overrides, compose=compose, ignore=ignore, combination=found.get(names[1]))
        for names in _product(sweep)
        if names not in left_out
    ]
    if not cells:
        raise ActshiftError(f"the sweep '{sweep.name}' excludes every cell. Change {_file(sweep)}.")
    # One model alone may have the name that the user gives to weights of their own.
    models = (cells[0].cell.model,) if len(sweep.models) == 1 else tuple(sweep.models)
    return Manifest(
        sweep=sweep.name,
        stage="grid",
        title=sweep.title or sweep.name,
        table=sweep.table,
        models=models,
        methods=tuple(_methods(sweep)),
        datasets=tuple(sweep.datasets),
        reference=sweep.reference,
        exclusions=tuple(replace(each, model=models[0]) if len(models) == 1 else each for each in exclusions),
        cells=tuple(cells),
        runs=grid_runs(cells),
        fraction=fraction_of(sweep),
    )


def grid_runs(cells: Iterable[PlannedCell]) -> tuple[Run, ...]:
    """The runs of the grid stage: every candidate of every cell that has several, with its first seed."""
    return tuple(
        planned.run(stage="grid", lr=lr, seed=planned.seeds[0], variant=variant)
        for planned in cells
        if len(planned.candidates) > 1
        for lr, variant in planned.candidates
    )


def expand_final(grid: Manifest, selected: Selection) -> Manifest:
    """The final stage: every cell at its selected rate and variant and each of its seeds, scored on test.

    A cell of which nothing could be selected keeps its place in the plan and has no runs. Raises ActshiftError where
    the selection is of another sweep or of other cells or rates than the grid's.
    """
    chosen = {choice.cell: (choice.lr, choice.variant) for choice in selected.choices}
    cells = {planned.cell for planned in grid.cells}
    if grid.stage != "grid" or selected.sweep != grid.sweep or chosen.keys() != cells:
        raise ActshiftError(
            f"the selection of '{selected.sweep}' ({len(chosen)} cells) does not belong to the {grid.stage} manifest "
            f"of '{grid.sweep}' ({len(cells)} cells). Select again: `actshift select {grid.sweep}`."
        )
    runs = []
    for planned in grid.cells:
        lr, variant = chosen[planned.cell]
        if lr is None:
            continue
        if lr not in planned.rates:
            raise ActshiftError(f"selected rate {lr!r} of {planned.cell} is not one of its planned {planned.rates}")
        runs += [planned.run(stage="final", lr=lr, seed=seed, variant=variant) for seed in planned.seeds]
    return replace(grid, stage="final", runs=tuple(runs))


def _planned(
    sweep: SweepConfig,
    names: tuple[str, str, str],
    overrides: Sequence[str],
    *,
    compose: Callable[[list[str]], Config],
    ignore: Sequence[str],
    combination: Combination | None,
) -> PlannedCell:
    options = names if combination is None else (names[0], combination.method, names[2])
    base = [f"{group}={name}" for group, name in zip(("model", "method", "dataset"), options, strict=True)]
    if combination is not None:
        overrides = _merged([*overrides, *combination.overrides], sweep=sweep.name)
    variants = sweep.variants.get(names[1]) or {"": []}
    overrides_of = {name: [*base, *_merged([*overrides, *variants[name]], sweep=sweep.name)] for name in variants}
    configs = {name: compose([*given, "stage=grid"]) for name, given in overrides_of.items()}
    config = next(iter(configs.values()))
    model, _, dataset = _shown(config, options, overrides, alone=len(sweep.models) == 1)
    rates, seeds = _rates(sweep, config), _seeds(sweep, names[1])
    planned = tuple(
        Variant(name, tuple(given), hashed_part(replace(configs[name], lr=rates[0], seed=seeds[0]), ignore=ignore))
        for name, given in overrides_of.items()
    )
    cell = Cell(model, names[1], dataset, config.protocol.name)
    return PlannedCell(cell, rates, seeds, planned, levels={} if combination is None else combination.levels)


def _shown(config: Config, names: Sequence[str], overrides: Sequence[str], *, alone: bool) -> tuple[str, ...]:
    """What tables call a cell's model, method and data set: their files' names, or the name of the user's own weights.

    Errors: a file with another name than its own; one name for several models.
    """
    renamed = any(word.startswith("model.name=") for word in overrides)
    if renamed and not alone:
        raise ActshiftError(
            f"model.name = {config.model.name} names every model of sweep.models: a sweep over several models of "
            "your own takes a file for each, FOLDER/model/<name>.yaml with --config-dir FOLDER."
        )
    composed = {"model": config.model.name, "method": config.method.name, "dataset": config.dataset.name}
    for (group, found), name in zip(composed.items(), names, strict=True):
        if found != name and not (group == "model" and renamed):
            raise ActshiftError(f"{group}={name} composes to the name '{found}': a file's name is its key")
    return tuple(composed.values())


def _rates(sweep: SweepConfig, config: Config) -> tuple[float, ...]:
    scale, grid = config.model.scale, config.method.rates
    rates = [float(rate) for rate in sweep.rates.get(scale, {}).get(grid) or ()]
    key = f"rates.{scale}.{grid} in {_file(sweep)}"
    if not rates:
        there = [f"{size}.{name}" for size, grids in sweep.rates.items() for name, values in grids.items() if values]
        where = f"{key}, or take the grid of another size of models with model.scale=..."
        raise unknown("grid of learning rates", f"{scale}.{grid}", there, where=where)
    _once(rates, what=key)
    return tuple(sorted(rates))


def _seeds(sweep: SweepConfig, method: str) -> tuple[int, ...]:
    for_method = sweep.seeds_by_method.get(method)
    seeds = tuple(sweep.seeds if for_method is None else for_method)
    if not seeds:
        raise ActshiftError(f"{method} has no seed: give at least one in seeds or seeds_by_method of {_file(sweep)}")
    _once(seeds, what=f"the seeds of {method} in {_file(sweep)}")
    return seeds


def _exclusions(sweep: SweepConfig) -> Iterator[Exclusion]:
    """One a cell, by the first rule that matches it. A rule with a name that no axis has would silently do nothing."""
    rules = [(rule, {"model": rule.model, "method": rule.method, "dataset": rule.dataset}) for rule in sweep.exclude]
    axes = {"model": sweep.models, "method": _methods(sweep), "dataset": sweep.datasets}
    for _, named in rules:
        for axis, names in axes.items():
            if named[axis] is not None and named[axis] not in names:
                raise unknown(f"{axis} to exclude", named[axis], names, where=_file(sweep))
    for cell in _product(sweep):
        for rule, named in rules:
            if all(named[axis] in (None, name) for axis, name in zip(axes, cell, strict=True)):
                yield Exclusion(*cell, reason=rule.reason)
                break


def _product(sweep: SweepConfig) -> list[tuple[str, str, str]]:
    return [(a, b, c) for a in sweep.models for b in _methods(sweep) for c in sweep.datasets]


def _methods(sweep: SweepConfig) -> list[str]:
    """The methods of a sweep by name, and the combinations of its fraction."""
    return [*sweep.methods, *combinations(sweep)]


def _keys_of_debug(overrides: Iterable[str]) -> set[str]:
    """The keys that ``debug=...`` among some overrides sets: Hydra alone would let a sweep's own keys win over them."""
    import yaml

    found: set[str] = set()
    for given in overrides:
        group, _, name = given.partition("=")
        if group == "debug" and name in groups()["debug"]:
            document = yaml.safe_load(option_file("debug", name).read_text(encoding="utf-8"))
            found.update(key for key, _ in leaves(document or {}, ""))
    return found


def _merged(overrides: Iterable[str], *, sweep: str) -> list[str]:
    """Each key once, the last word for it: Hydra takes a config group once only."""
    last: dict[str, str] = {}
    for override in overrides:
        key = re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]
        if key in AXES:
            raise ActshiftError(
                f"override '{override}' sets '{key}', which the sweep '{sweep}' sets itself: change its file"
            )
        last.pop(key, None)
        last[key] = override
    return list(last.values())


def _once(values: Sequence[Any], *, what: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ActshiftError(f"{what}: {twice} stand there more than once")


def _file(sweep: SweepConfig) -> str:
    return f"conf/sweep/{sweep.name}.yaml"
