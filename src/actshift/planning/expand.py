"""A table's axes expanded to runs, and frozen: what is planned is written down before anything runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from actshift.config.identity import hashed_part, ignored_keys
from actshift.errors import ActshiftError, unknown
from actshift.planning.manifests import Exclusion, Manifest, PlannedCell, Run, Variant
from actshift.planning.selection import Selection
from actshift.store.records import Cell

AXES = ("model", "method", "dataset", "stage", "lr", "seed", "sweep")


def expand_grid(
    sweep: Mapping[str, Any], compose: Callable[[list[str]], dict[str, Any]], *, extra: Sequence[str] = ()
) -> Manifest:
    """The grid stage: every cell that is not excluded, at every candidate (variant and rate) and its first seed.

    `compose` turns overrides into a resolved config; called once a variant; rate and seed are put into copies.
    `extra` overrides win over the sweep's own. Raises ActshiftError where a cell has no grid of learning rates, a
    rate or seed stands there twice, an exclusion or an override names what it cannot, or no cell is left.
    """
    overrides = _merged([*sweep.get("overrides", ()), *extra], sweep=sweep["name"])
    for method in sweep.get("variants") or ():
        if method not in sweep["methods"]:
            raise unknown("method with variants", method, sweep["methods"], where=_file(sweep))
    exclusions = tuple(_exclusions(sweep))
    left_out = {(exclusion.model, exclusion.method, exclusion.dataset) for exclusion in exclusions}
    ignore = ignored_keys()
    cells = [
        _planned(sweep, names, overrides, compose=compose, ignore=ignore)
        for names in _product(sweep)
        if names not in left_out
    ]
    if not cells:
        raise ActshiftError(f"the sweep '{sweep['name']}' excludes every cell. Change {_file(sweep)}.")
    # One model alone may have the name that the user gives to weights of their own.
    models = (cells[0].cell.model,) if len(sweep["models"]) == 1 else tuple(sweep["models"])
    return Manifest(
        sweep=sweep["name"],
        stage="grid",
        title=sweep.get("title") or sweep["name"],
        table=sweep.get("table"),
        models=models,
        methods=tuple(sweep["methods"]),
        datasets=tuple(sweep["datasets"]),
        reference=sweep.get("reference") or "sft",
        exclusions=tuple(replace(each, model=models[0]) if len(models) == 1 else each for each in exclusions),
        cells=tuple(cells),
        runs=grid_runs(cells),
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
    sweep: Mapping[str, Any],
    names: tuple[str, str, str],
    overrides: Sequence[str],
    *,
    compose: Callable[[list[str]], dict[str, Any]],
    ignore: Sequence[str],
) -> PlannedCell:
    groups = ("model", "method", "dataset")
    base = [f"{group}={name}" for group, name in zip(groups, names, strict=True)]
    variants = (sweep.get("variants") or {}).get(names[1]) or {"": []}
    overrides_of = {name: [*base, *_merged([*overrides, *variants[name]], sweep=sweep["name"])] for name in variants}
    configs = {name: compose([*given, "stage=grid"]) for name, given in overrides_of.items()}
    config = next(iter(configs.values()))
    shown = _shown(config, names, groups, overrides, alone=len(sweep["models"]) == 1)
    rates, seeds = _rates(sweep, config), _seeds(sweep, names[1])
    planned = tuple(
        Variant(name, tuple(given), hashed_part({**configs[name], "lr": rates[0], "seed": seeds[0]}, ignore=ignore))
        for name, given in overrides_of.items()
    )
    model, method, dataset = shown
    return PlannedCell(Cell(model, method, dataset, config["protocol"]["name"]), rates, seeds, planned)


def _shown(
    config: Mapping[str, Any], names: Sequence[str], groups: Sequence[str], overrides: Sequence[str], *, alone: bool
) -> tuple[str, ...]:
    """What tables call a cell's model, method and data set: their files' names, or the name of the user's own weights.

    Errors: a file with another name than its own; one name for several models.
    """
    renamed = any(word.startswith("model.name=") for word in overrides)
    if renamed and not alone:
        raise ActshiftError(
            f"model.name = {config['model']['name']} names every model of sweep.models: a sweep over several models of "
            "your own takes a file for each, FOLDER/model/<name>.yaml with --config-dir FOLDER."
        )
    for group, name in zip(groups, names, strict=True):
        if config[group]["name"] != name and not (group == "model" and renamed):
            raise ActshiftError(
                f"{group}={name} composes to the name '{config[group]['name']}': a file's name is its key"
            )
    return tuple(config[group]["name"] for group in groups)


def _rates(sweep: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[float, ...]:
    scale, grid = config["model"]["scale"], config["method"]["rates"]
    rates = [float(rate) for rate in sweep["rates"].get(scale, {}).get(grid) or ()]
    key = f"rates.{scale}.{grid} in {_file(sweep)}"
    if not rates:
        there = [f"{size}.{name}" for size, grids in sweep["rates"].items() for name, values in grids.items() if values]
        where = f"{key}, or take the grid of another size of models with model.scale=..."
        raise unknown("grid of learning rates", f"{scale}.{grid}", there, where=where)
    _once(rates, what=key)
    return tuple(sorted(rates))


def _seeds(sweep: Mapping[str, Any], method: str) -> tuple[int, ...]:
    for_method = (sweep.get("seeds_by_method") or {}).get(method)
    seeds = tuple(sweep["seeds"] if for_method is None else for_method)
    if not seeds:
        raise ActshiftError(f"{method} has no seed: give at least one in seeds or seeds_by_method of {_file(sweep)}")
    _once(seeds, what=f"the seeds of {method} in {_file(sweep)}")
    return seeds


def _exclusions(sweep: Mapping[str, Any]) -> Iterator[Exclusion]:
    """One a cell, by the first rule that matches it. A rule with a name that no axis has would silently do nothing."""
    rules = sweep.get("exclude") or []
    axes = {"model": sweep["models"], "method": sweep["methods"], "dataset": sweep["datasets"]}
    for rule in rules:
        for axis, names in axes.items():
            if rule.get(axis) is not None and rule[axis] not in names:
                raise unknown(f"{axis} to exclude", rule[axis], names, where=_file(sweep))
    for cell in _product(sweep):
        for rule in rules:
            if all(rule.get(axis) in (None, name) for axis, name in zip(axes, cell, strict=True)):
                yield Exclusion(*cell, reason=rule["reason"])
                break


def _product(sweep: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(a, b, c) for a in sweep["models"] for b in sweep["methods"] for c in sweep["datasets"]]


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


def _file(sweep: Mapping[str, Any]) -> str:
    return f"conf/sweep/{sweep['name']}.yaml"
