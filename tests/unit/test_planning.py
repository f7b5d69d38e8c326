"""Plans: axes to runs, frozen byte for byte, and refused once the code has moved on."""

from __future__ import annotations

import copy
import json
import multiprocessing
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actshift.config.identity import identity_of, ignored_keys
from actshift.errors import ActshiftError
from actshift.planning.expand import expand_final, expand_grid
from actshift.planning.manifests import Manifest, freeze, read_manifest, verify
from actshift.planning.selection import Choice, Selection
from actshift.schema.building import built, config_of, plain
from actshift.schema.config import Config, SweepConfig
from actshift.schema.data import DatasetConfig
from actshift.store.records import Cell
from actshift.store.store import Store

Values = dict[str, Any]

SWEEP: Values = {
    "name": "small",
    "title": "A small table",
    "table": "table1",
    "models": ["tiny", "big"],
    "methods": ["sft", "post_block"],
    "datasets": ["listops", "boolq", "gsm8k"],
    "reference": "sft",
    "rates": {
        "tiny": {"sft": [1e-3], "steering": [1e-2, 1e-3, 3e-3]},
        "1b": {"sft": [1e-5, 1], "steering": [1e-3, 2e-3]},
    },
    "seeds": [42, 43, 44],
    "seeds_by_method": {"sft": [7]},
    "exclude": [
        {"reason": "too long", "model": "big", "dataset": "gsm8k", "method": None},
        {"reason": "never matches first", "model": "big", "dataset": "gsm8k", "method": "sft"},
    ],
    "overrides": ["data.limit.train=100"],
}
MODELS = {"tiny": {"name": "tiny", "scale": "tiny"}, "big": {"name": "big", "scale": "1b"}}
METHODS = {
    "sft": {"name": "sft", "rates": "sft", "lr": 1e-3},
    "post_block": {"name": "post_block", "kind": "steering", "rates": "steering", "lr": 1e-2, "rank": 8},
}
PLAIN: Values = {
    "protocol": {"name": "paper"},
    "training": {"epochs": 1, "validations": 4},
    "data": {"dir": None, "limit": {"train": None}},
    "hardware": {"name": "cpu", "workers": 2},
    "stage": "grid",
    "seed": 42,
}


def compose(overrides: list[str], *, plain: Values = PLAIN) -> Config:
    """What Hydra does, in small: groups by name, then dotted keys, typed as JSON where that is possible."""
    config = copy.deepcopy(plain)
    groups = dict(override.split("=", 1) for override in overrides)
    config |= {"model": copy.deepcopy(MODELS[groups["model"]]), "method": copy.deepcopy(METHODS[groups["method"]])}
    config |= {"dataset": {"name": groups["dataset"]}, "lr": config["method"]["lr"]}
    for key, text in groups.items():
        if key not in ("model", "method", "dataset"):
            *path, last = key.split(".")
            inner = config
            for part in path:
                inner = inner[part]
            assert last in inner, key
            inner[last] = json.loads(text) if re.fullmatch(r"[-\d].*|null|true|false", text) else text
    return config_of(config)


def changed(**plain: Any) -> Callable[[list[str]], Config]:
    return lambda overrides: compose(overrides, plain=PLAIN | plain)


def choose(grid: Manifest, pick: Callable[[tuple[float, ...]], float | None] = max) -> Selection:
    choices = tuple(
        Choice(planned.cell, pick(planned.rates), "", None, (), (), None, (), False) for planned in grid.cells
    )
    return Selection(grid.sweep, choices, False, ())


GRID = expand_grid(built(SweepConfig, SWEEP), compose)
LISTOPS = Cell("tiny", "post_block", "listops", "paper")


def test_every_cell_is_composed_once_in_table_order() -> None:
    calls: list[list[str]] = []

    def counting(overrides: list[str]) -> Config:
        calls.append(overrides)
        return compose(overrides)

    grid = expand_grid(built(SweepConfig, SWEEP), counting, extra=["hardware.workers=1"])
    names = [(call[0], call[1], call[2]) for call in calls]
    assert names[0] == ("model=tiny", "method=sft", "dataset=listops") and len(set(names)) == len(names) == 10
    assert calls[0][3:] == ["data.limit.train=100", "hardware.workers=1", "stage=grid"]
    assert [f"{cell.cell.model} {cell.cell.method} {cell.cell.dataset}" for cell in grid.cells][:4] == [
        "tiny sft listops",
        "tiny sft boolq",
        "tiny sft gsm8k",
        "tiny post_block listops",
    ]


def test_the_grid_is_every_rate_at_the_first_seed_on_validation() -> None:
    assert [(run.lr, run.seed, run.split) for run in GRID.runs_of(LISTOPS)] == [
        (0.001, 42, "validation"),
        (0.003, 42, "validation"),
        (0.01, 42, "validation"),
    ]
    assert {run.seed for run in GRID.runs if run.cell.method == "sft"} == {7}
    assert len(GRID.runs) == 3 * 3 + 2 * 2 + 2 * 2


def test_a_cell_with_one_rate_has_nothing_to_choose() -> None:
    one_rate = [Cell("tiny", "sft", dataset, "paper") for dataset in ("listops", "boolq", "gsm8k")]
    assert list(GRID.untuned) == one_rate
    assert not any(run.cell in one_rate for run in GRID.runs)
    final = expand_final(GRID, choose(GRID))
    assert [run.lr for run in final.runs_of(one_rate[0])] == [0.001]


def test_a_run_is_the_one_that_its_overrides_compose() -> None:
    for manifest in (GRID, expand_final(GRID, choose(GRID))):
        for run in manifest.runs:
            config = compose(list(run.overrides))
            assert identity_of(config, ignore=ignored_keys()) == run.identity
            verify(run, config, manifest)


def test_the_final_stage_is_the_chosen_rate_at_every_seed_on_test() -> None:
    final = expand_final(GRID, choose(GRID))
    assert [(run.lr, run.seed, run.split) for run in final.runs_of(LISTOPS)] == [
        (0.01, 42, "test"),
        (0.01, 43, "test"),
        (0.01, 44, "test"),
    ]
    assert [run.seed for run in final.runs if run.cell.method == "sft"] == [7] * 5
    # The adapter that the grid trained at the first seed is the same run, scored on another split.
    assert final.runs_of(LISTOPS)[0].identity == GRID.runs_of(LISTOPS)[2].identity
    assert final.runs[0].overrides[-3:] == ("stage=final", "lr=0.001", "seed=7")


def test_a_cell_without_a_choice_stays_planned_and_does_not_run() -> None:
    final = expand_final(GRID, choose(GRID, lambda rates: None if len(rates) == 3 else rates[0]))
    assert final.runs_of(LISTOPS) == () and final.planned(LISTOPS).seeds == (42, 43, 44)
    assert final.runs


def test_a_selection_of_something_else_is_refused() -> None:
    selection = choose(GRID)
    with pytest.raises(ActshiftError, match="does not belong"):
        expand_final(GRID, Selection("other", selection.choices, False, ()))
    with pytest.raises(ActshiftError, match="does not belong"):
        expand_final(GRID, Selection("small", selection.choices[1:], False, ()))
    with pytest.raises(ActshiftError, match="does not belong"):
        expand_final(expand_final(GRID, selection), selection)
    with pytest.raises(ActshiftError, match="not one of its planned"):
        expand_final(GRID, choose(GRID, lambda rates: 0.5))


def test_exclusions_keep_their_reasons() -> None:
    gone = [(one.model, one.method, one.dataset, one.reason) for one in GRID.exclusions]
    assert gone == [("big", "sft", "gsm8k", "too long"), ("big", "post_block", "gsm8k", "too long")]
    assert Cell("big", "sft", "gsm8k", "paper") not in [planned.cell for planned in GRID.cells]


def test_an_override_of_the_command_line_wins_and_stands_once() -> None:
    grid = expand_grid(built(SweepConfig, SWEEP), compose, extra=["data.limit.train=5"])
    assert [text for text in grid.runs[0].overrides if "limit" in text] == ["data.limit.train=5"]
    assert grid.cells[0].config["data"]["limit"]["train"] == 5


BAD: list[tuple[Config, str]] = [
    (
        {"rates": SWEEP["rates"] | {"1b": {"sft": [1e-5]}}},
        r"'1b\.steering'.*Did you mean.*rates\.1b\.steering in conf/sweep/small\.yaml",
    ),
    ({"rates": SWEEP["rates"] | {"1b": {"sft": [], "steering": [1.0]}}}, r"rates\.1b\.sft in conf/sweep/small\.yaml"),
    ({"rates": {"tiny": {"sft": [1e-3, 0.001], "steering": [1]}}}, r"rates\.tiny\.sft.*0\.001.*more than once"),
    ({"seeds": [42, 43, 42]}, r"seeds of post_block.*42.*more than once"),
    ({"seeds_by_method": {"sft": []}}, "sft has no seed"),
    ({"exclude": [{"reason": "typo", "dataset": "bolq"}]}, "unknown dataset to exclude 'bolq'. Did you mean 'boolq'"),
    ({"exclude": [{"reason": "all"}]}, "excludes every cell"),
    ({"overrides": ["seed=1"]}, "'seed=1' sets 'seed', which the sweep 'small' sets itself"),
    ({"overrides": ["++stage=final"]}, "sets 'stage'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_an_impossible_sweep_says_where_to_change_it(changes: Values, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        expand_grid(built(SweepConfig, SWEEP | changes), compose)


def test_a_config_that_bears_another_name_than_its_file_is_refused() -> None:
    def blind(overrides: list[str]) -> Config:
        return replace(compose(overrides), dataset=DatasetConfig("listops"))

    with pytest.raises(ActshiftError, match="dataset=boolq composes to the name 'listops'"):
        expand_grid(built(SweepConfig, SWEEP), blind)


def test_one_model_of_the_users_own_has_its_name_in_the_table_and_several_take_files() -> None:
    def renamed(overrides: list[str]) -> Config:
        assert "model.name=mine" in overrides
        config = compose(overrides)
        return replace(config, model=replace(config.model, name="mine"))

    one = SWEEP | {"models": SWEEP["models"][:1], "exclude": []}
    grid = expand_grid(built(SweepConfig, one), renamed, extra=["model.name=mine"])
    assert grid.models == ("mine",)
    assert {planned.cell.model for planned in grid.cells} == {"mine"}
    with pytest.raises(ActshiftError, match=r"names every model of sweep\.models"):
        expand_grid(built(SweepConfig, SWEEP | {"exclude": []}), renamed, extra=["model.name=mine"])


def test_a_manifest_is_the_same_bytes_however_its_configs_are_ordered(tmp_path: Path) -> None:
    def disordered(overrides: list[str]) -> Config:
        items = list(plain(compose(overrides)).items())
        random.Random(len(str(overrides))).shuffle(items)
        return config_of(dict(items))

    text = GRID.to_text()
    assert expand_grid(built(SweepConfig, SWEEP), disordered).to_text() == text
    freeze(Store(tmp_path), GRID)
    path = Store(tmp_path).manifest_path("small", "grid")
    assert path.read_text() == text and read_manifest(path) == GRID and read_manifest(path).to_text() == text
    kinds = [json.loads(line)["kind"] for line in text.splitlines()]
    assert kinds == ["sweep"] + ["cell"] * len(GRID.cells) + ["run"] * len(GRID.runs)


def test_freezing_again_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert freeze(store, GRID) == GRID
    before = store.manifest_path("small", "grid").stat()
    assert freeze(store, expand_grid(built(SweepConfig, SWEEP), compose)) == GRID
    assert freeze(store, GRID, replan=True) == GRID
    after = store.manifest_path("small", "grid").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_other_hardware_is_no_drift(tmp_path: Path) -> None:
    store = Store(tmp_path)
    freeze(store, GRID)
    other = expand_grid(built(SweepConfig, SWEEP), compose, extra=["hardware.workers=8"])
    assert freeze(store, other).runs[0].overrides == other.runs[0].overrides
    assert read_manifest(store.manifest_path("small", "grid")) == GRID


def test_drift_of_the_code_is_refused_with_the_keys_that_changed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    freeze(store, GRID)
    drifted = expand_grid(built(SweepConfig, SWEEP), changed(training={"epochs": 3, "validations": 9, "clip": 1.0}))
    with pytest.raises(ActshiftError) as caught:
        freeze(store, drifted)
    message = str(caught.value)
    assert "17 runs added, 17 removed, 17 in all" in message
    assert "training.epochs: 1 -> 3 (10 cells)" in message and "training.clip: (absent) -> 1 (10 cells)" in message
    assert "validations" not in message, "what does not count is no drift"
    assert "small.grid.jsonl" in message and "--replan" in message
    assert read_manifest(store.manifest_path("small", "grid")) == GRID


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"datasets": ["listops", "boolq"], "exclude": []},
            ["cell removed: tiny / sft / gsm8k (paper)", "0 runs added, 3"],
        ),
        ({"seeds": [42, 43]}, ["seed: [42,43,44] -> [42,43] (5 cells)", "0 runs added, 0 removed"]),
        ({"title": "Another"}, ['title: "A small table" -> "Another"']),
        ({"rates": SWEEP["rates"] | {"1b": {"sft": [1e-5, 1], "steering": [2e-3, 5e-3]}}}, ["2 runs added, 2 removed"]),
    ],
)
def test_a_changed_sweep_file_is_refused_with_what_changed(tmp_path: Path, changes: Values, lines: list[str]) -> None:
    store = Store(tmp_path)
    freeze(store, GRID)
    with pytest.raises(ActshiftError) as caught:
        freeze(store, expand_grid(built(SweepConfig, SWEEP | changes), compose))
    assert all(line in str(caught.value) for line in lines), str(caught.value)


def test_a_long_list_of_changes_is_cut(tmp_path: Path) -> None:
    store = Store(tmp_path)
    freeze(store, GRID)
    many = {f"key{number}": 1 for number in range(40)}
    another = expand_grid(built(SweepConfig, SWEEP), changed(data=PLAIN["data"] | {"origin": many}))
    with pytest.raises(ActshiftError, match=r"\.\.\. and \d+ more"):
        freeze(store, another)


def test_replanning_keeps_the_old_manifest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    freeze(store, GRID)
    new = expand_grid(built(SweepConfig, SWEEP | {"seeds": [1]}), compose)
    assert freeze(store, new, replan=True) == new
    path = store.manifest_path("small", "grid")
    assert read_manifest(path) == new
    assert read_manifest(path.with_name(path.name + ".old")) == GRID


def test_a_worker_refuses_a_run_that_has_drifted() -> None:
    run = GRID.runs_of(LISTOPS)[1]
    config = changed(training={"epochs": 2, "validations": 4})(list(run.overrides))
    with pytest.raises(ActshiftError) as caught:
        verify(run, config, GRID)
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines[1:-1]] == ["training.epochs: 1 -> 2"]
    assert run.identity in lines[0] and "--replan" in lines[-1]


def test_a_worker_refuses_another_rate_another_stage_and_an_edited_manifest() -> None:
    run = GRID.runs[0]
    other = replace(compose(list(run.overrides)), lr=0.5)
    with pytest.raises(ActshiftError, match=r"lr: 1e-05 -> 0\.5|lr: 0\.001 -> 0\.5"):
        verify(run, other, GRID)
    with pytest.raises(ActshiftError, match="planned for validation, stage=final"):
        verify(run, replace(compose(list(run.overrides)), stage="final"), GRID)
    edited = json.loads(json.dumps(run.to_json()))["identity"].translate(str.maketrans("0123456789", "1234567890"))
    with pytest.raises(ActshiftError, match="the manifest itself was edited"):
        verify(type(run)(**vars(run) | {"identity": edited}), compose(list(run.overrides)), GRID)


@pytest.mark.parametrize("cut", [0, 10, -1, -30])
def test_a_torn_manifest_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "small.grid.jsonl"
    path.write_text(GRID.to_text()[:cut])
    with pytest.raises(ActshiftError, match=r"small\.grid\.jsonl is not a whole manifest"):
        read_manifest(path)
    with pytest.raises(ActshiftError, match="plan the sweep first"):
        read_manifest(tmp_path / "none.jsonl")


def freeze_many(root: str, barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put(freeze(Store(root), GRID) == GRID)


def test_launchers_that_freeze_at_the_same_time_agree(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    launchers = [spawn.Process(target=freeze_many, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for launcher in launchers:
        launcher.start()
    assert [results.get(timeout=60) for _ in launchers] == [True] * 2
    for launcher in launchers:
        launcher.join()
    assert read_manifest(Store(tmp_path).manifest_path("small", "grid")) == GRID


def test_variants_are_candidates_beside_the_rates(tmp_path: Path) -> None:
    scopes = {"post_block": {"low": ["method.rank=4"], "high": ["method.rank=16"]}}
    grid = expand_grid(built(SweepConfig, SWEEP | {"variants": scopes}), compose)
    runs = grid.runs_of(LISTOPS)
    assert [(run.lr, run.variant) for run in runs][:3] == [(1e-3, "low"), (1e-3, "high"), (3e-3, "low")]
    assert len(runs) == 6 and len({run.identity for run in runs}) == 6
    assert [override for override in runs[1].overrides if "rank" in override] == ["method.rank=16"]
    store = Store(tmp_path)
    freeze(store, grid)
    assert read_manifest(store.manifest_path("small", "grid")) == grid
    verify(runs[1], compose(list(runs[1].overrides)), grid)
    with pytest.raises(ActshiftError, match=r"method\.rank: 16 -> 4"):
        verify(runs[1], compose([*runs[1].overrides, "method.rank=4"]), grid)
    with pytest.raises(ActshiftError, match="not the one frozen"):
        freeze(store, GRID)
    with pytest.raises(ActshiftError, match="unknown method with variants 'reft'"):
        expand_grid(built(SweepConfig, SWEEP | {"variants": {"reft": {"a": []}}}), compose)
