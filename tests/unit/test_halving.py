"""Successive halving: which rates are dropped, that a kept one is the run of the full grid, and what is recorded."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actshift.commands.terminal import status_table
from actshift.config.composition import compose
from actshift.config.identity import identity_of, ignored_keys
from actshift.errors import ActshiftError
from actshift.estimates.sweep import Estimates
from actshift.planning.expand import expand_grid
from actshift.planning.extend import extend
from actshift.planning.halving import (
    SHARES,
    budget,
    dropped,
    kept,
    loss_after,
    pause_step,
    standing,
    states,
    with_losses,
)
from actshift.planning.manifests import Manifest, Run, freeze, read_manifest
from actshift.planning.selection import read_selection, select, write_selection
from actshift.planning.status import headline, status_of
from actshift.runtime.run import run_together
from actshift.runtime.session import Interrupted, Paused, Session
from actshift.runtime.train import trained
from actshift.schema.config import TrainingConfig
from actshift.store.pauses import Pause, read_pause
from actshift.store.records import Record
from actshift.store.store import Store
from actshift.sweeps import slurm
from actshift.sweeps.worker import Event, Worker
from actshift.training.batches import count_steps, step_rows
from actshift.training.checkpoints import read_tensors
from tests.unit.test_selection import manifest

RATES = (0.001, 0.002, 0.005, 0.01, 0.02)


def halving_plan(rates: tuple[float, ...] = RATES) -> Manifest:
    return replace(manifest(rates), selection="halving")


def pause(run: Run, *losses: float, steps: int = 8) -> Pause:
    """A run that has these validation losses at the quarters of its steps."""
    curve = tuple((steps * place // 4, loss) for place, loss in enumerate(losses, start=1))
    return Pause(run.identity, curve[-1][0], steps, curve, 1.0, "data")


# --- the rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidates", "after_quarter", "after_half", "trainings"),
    [
        (1, 1, 1, 1.0),
        (2, 2, 2, 2.0),
        (3, 2, 2, 3 / 4 + 2 * 3 / 4),
        (4, 2, 2, 4 / 4 + 2 * 3 / 4),
        (5, 3, 2, 5 / 4 + 3 / 4 + 2 / 2),
        (10, 5, 2, 10 / 4 + 5 / 4 + 2 / 2),
    ],
)
def test_how_many_go_on_and_what_that_costs(
    candidates: int, after_quarter: int, after_half: int, trainings: float
) -> None:
    assert kept(candidates, candidates, 0.25) == after_quarter
    assert kept(candidates, after_quarter, 0.5) == after_half
    assert budget(candidates) == (pytest.approx(trainings), after_half)


def test_a_cell_goes_from_share_to_share() -> None:
    runs = halving_plan().runs_of(halving_plan().cells[0].cell)
    losses: dict[tuple[float, float], float] = {}

    def now(done: Sequence[str] = ()) -> tuple[list[float], float, dict[float, float]]:
        found = standing(runs, loss_at=lambda run, share: losses.get((run.lr, share)), done=done)
        return [run.lr for run in found.due], found.share, {run.lr: share for run, share in found.dropped.items()}

    assert now() == (list(RATES), 0.25, {})
    losses |= {(0.001, 0.25): 5.0, (0.002, 0.25): 3.0, (0.005, 0.25): 2.0, (0.01, 0.25): 4.0}
    assert now() == ([0.02], 0.25, {}), "nothing is dropped before all have come as far"
    losses[0.02, 0.25] = math.nan
    assert now() == ([0.002, 0.005, 0.01], 0.5, {0.001: 0.25, 0.02: 0.25})
    losses |= {(0.002, 0.5): 1.5, (0.005, 0.5): 1.5, (0.01, 0.5): 1.5}
    assert now() == ([0.002, 0.005], 1.0, {0.001: 0.25, 0.02: 0.25, 0.01: 0.5}), "equal losses: the smaller rates"
    assert now([run.identity for run in runs])[0] == []


def test_steps_of_a_share_and_losses_at_it() -> None:
    steps = [pause_step(steps, share) for steps in (8, 150, 2, 1) for share in SHARES]
    assert steps == [2, 4, 38, 75, None, 1, None, None]
    curve = [(2, 3.0), (4, None), (6, 1.0)]
    assert [loss_after(curve, steps=8, share=share) for share in (*SHARES, 0.75, 1.0)] == [3.0, math.inf, 1.0, None]
    assert [with_losses(TrainingConfig(validations=points)).validations for points in (0, 1, 4, 6, 8)] == [
        4,
        4,
        4,
        4,
        8,
    ]
    for rows, most in ((17, None), (16, None), (17, 5), (3, 100)):
        plan: dict[str, Any] = {"batch_size": 8, "epochs": 3, "max_steps": most}
        assert count_steps(rows, **plan) == len(step_rows(rows, **plan, seed=0))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("execution=replicas", "execution = replicas is impossible"),
        ("training.validation_rows=0", "validation_rows = 0 is impossible"),
    ],
)
def test_settings_that_cannot_be_halved_are_refused(override: str, message: str) -> None:
    assert compose([override])
    with pytest.raises(ActshiftError, match=message):
        compose(["selection=halving", override])


def test_the_selection_changes_no_identity() -> None:
    configs = [compose([f"selection={name}"]) for name in ("grid", "halving")]
    assert len({identity_of(config, ignore=ignored_keys()) for config in configs}) == 1


# --- a grid in a store --------------------------------------------------------------------------------------------


def finished(run: Run, correct: int, *, losses: Sequence[float] = (1.0, 1.0, 1.0, 1.0), diverged: bool = False) -> Any:
    curve = [[2 * place, loss] for place, loss in enumerate(losses, start=1)]
    metrics = {"accuracy": 10.0 * correct, "rows": 10, "correct": correct, "diverged": diverged, "steps": 8}
    metrics["validation_curve"] = curve
    return Record(run.identity, "validation", run.cell, run.lr, run.seed, run_config(run), metrics, {})


def run_config(run: Run) -> dict[str, Any]:
    plan = halving_plan()
    return plan.planned(run.cell).at(run.lr, run.seed, run.variant)


@pytest.fixture
def halved(tmp_path: Path) -> tuple[Manifest, Store]:
    """Five rates: two dropped at a quarter, one at a half, the two best done, of which the larger answers better."""
    plan, store = halving_plan(), Store(tmp_path)
    lowest, low, middle, high, highest = plan.runs
    for run, losses in ((lowest, (5.0,)), (highest, (4.0,)), (high, (3.0, 2.0)), (low, (2.0, 1.5)), (middle, (2.0, 1))):
        store.pause(pause(run, *losses))
    store.publish(finished(low, 6, losses=(2.0, 1.5, 1.0, 1.0)))
    store.publish(finished(middle, 8, losses=(2.0, 1.0, 1.0, 1.0)))
    return plan, store


def test_states_say_who_is_dropped_and_who_waits(tmp_path: Path) -> None:
    plan, store = halving_plan(), Store(tmp_path)
    assert states(plan, store) == ["missing"] * 5
    for run in plan.runs[:4]:
        store.pause(pause(run, run.lr))
    assert states(plan, store) == ["waiting"] * 4 + ["missing"]
    store.fail(plan.runs[4].identity, "validation", "boom")
    assert states(plan, store) == ["missing"] * 3 + ["dropped", "failed"], "a failed run holds nobody up"
    assert states(replace(plan, selection="grid"), store) == ["missing"] * 4 + ["failed"]


def test_a_diverged_run_is_dropped_and_one_without_losses_cannot_be_compared(tmp_path: Path) -> None:
    plan, store = halving_plan(), Store(tmp_path)
    for run in plan.runs[:4]:
        store.pause(pause(run, 1.0))
    store.publish(finished(plan.runs[4], 0, losses=(), diverged=True))
    assert states(plan, store) == ["missing"] * 3 + ["dropped", "done"]
    plain = replace(finished(plan.runs[0], 5), metrics={**finished(plan.runs[0], 5).metrics, "validation_curve": []})
    store.publish(plain)
    with pytest.raises(ActshiftError, match="has no validation losses for"):
        states(plan, store)


def test_selection_is_among_those_that_ended_and_names_the_others(halved: tuple[Manifest, Store]) -> None:
    plan, store = halved
    assert states(plan, store) == ["dropped", "done", "done", "dropped", "dropped"]
    selection = select(plan, store.records("validation"), dropped=dropped(plan, store))
    choice = selection.choices[0]
    assert (choice.lr, choice.accuracy, choice.edge, choice.incomplete) == (0.005, 80.0, None, False)
    assert [rate.dropped_at for rate in choice.rates] == [0.25, None, None, 0.5, 0.25]
    assert [rate.loss for rate in choice.rates] == [5.0, None, None, 2.0, 4.0]
    assert selection.halved and not selection.missing
    write_selection(store, selection)
    assert read_selection(store, plan.sweep) == selection
    with pytest.raises(ActshiftError, match="3 of 5 grid runs"):
        select(plan, store.records("validation"))


def test_a_full_grids_selection_is_written_as_before(tmp_path: Path) -> None:
    plan, store = manifest(RATES), Store(tmp_path)
    selection = select(plan, [finished(run, 5) for run in plan.runs])
    write_selection(store, selection)
    written = json.loads(store.selected_path(plan.sweep).read_text())
    assert set(written) == {"schema", "split", "sweep", "choices", "incomplete", "missing"}
    names = {"lr", "variant", "accuracy", "finished", "planned", "diverged"}
    assert all(set(rate) == names for choice in written["choices"] for rate in choice["rates"])


def test_an_edge_is_one_of_all_rates_that_were_compared() -> None:
    plan = halving_plan()
    lagging = {run.identity: (0.25, 3.0) for run in plan.runs[1:]}
    selection = select(plan, [finished(plan.runs[0], 9)], dropped=lagging)
    assert (selection.choices[0].lr, selection.choices[0].edge) == (0.001, "lowest")
    larger = extend(plan, selection)
    assert larger.cells[0].added == (0.0005,) and larger.halves


def test_a_plan_says_that_it_halves_and_is_priced_so(tmp_path: Path) -> None:
    store, axes = Store(tmp_path), {"models": ["llama3.2-1b"], "methods": ["sft", "lora_r8"], "variants": {}}
    full = expand_grid(replace(compose(["sweep=table1"]).sweep, **axes), compose)
    plan = replace(full, selection="halving")
    freeze(store, plan)
    path = store.manifest_path(plan.sweep, "grid")
    assert read_manifest(path) == plan and "selection" not in full.header()
    with pytest.raises(ActshiftError, match='selection: "halving" -> \\(absent\\)'):
        freeze(store, full)
    whole, halved = (Estimates(Store(tmp_path), each, compose=compose, hardware={}) for each in (full, plan))
    for before, after in zip(whole.rows(), halved.rows(), strict=True):
        grid_share = {"sft": 5 / 5, "lora_r8": 5 / 9}[before.method]  # the first seed at five rates, of all trainings
        saved = 1 - after.hours["float32"] / before.hours["float32"]
        assert saved == pytest.approx(grid_share * 2 / 5, rel=0.1), "2 of 5 trainings, and as many scorings or more"


def test_status_counts_the_dropped_apart(halved: tuple[Manifest, Store]) -> None:
    plan, store = halved
    status = status_of(store, [plan], seconds={})
    assert status.unfinished == 0 and "3 dropped" in headline(status)
    assert status_table(status).row_count == 2
    assert "dropped" not in status_of(store, [replace(plan, selection="grid")], seconds={}).cells[0].states


def test_the_candidates_of_a_cell_are_one_tasks() -> None:
    profile = next(iter(slurm_profiles().values()))
    work = [
        slurm.Work("tiny", method, "boolq", "paper", 42, lr, "", 0.4 * profile.seconds)
        for method in ("sft", "lora_r8")
        for lr in RATES[:3]
    ]
    apart = slurm.pack(work, {"tiny": profile})
    whole = slurm.pack(work, {"tiny": profile}, whole_cells=True)
    assert [len(runs) for _, runs in apart] == [1] * 6
    assert [{each.method for each in runs} for _, runs in whole] == [{"sft"}, {"lora_r8"}]


def slurm_profiles() -> dict[str, Any]:
    from actshift.paths import slurm_dir
    from actshift.sweeps.profiles import read_profiles

    return read_profiles(slurm_dir() / "profiles")


def test_a_pause_is_read_as_it_was_written(tmp_path: Path) -> None:
    store, note = Store(tmp_path), pause(halving_plan().runs[0], 2.0, math.inf)
    store.pause(note)
    assert store.paused(note.identity) == note
    path = tmp_path / "pauses" / f"{note.identity}.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ActshiftError, match="not a pause of schema 1"):
        read_pause(path)


# --- training -----------------------------------------------------------------------------------------------------

SMALL = (
    *("model=random-llama", "dataset=boolq", "data.limit.train=64", "data.limit.validation=8", "data.limit.test=8"),
    *("training.validations=4", "training.validation_rows=8", "hardware.device=cpu", "hardware.threads=1"),
)


@pytest.mark.parametrize("method", ["post_block", "jola", "sft"])
def test_a_run_that_paused_is_the_run_that_did_not(method: str, tmp_path: Path) -> None:
    """Its steps, its curves and its adapter, bit for bit: a schedule that decays shows that it is the whole run's."""
    overrides = [*SMALL, f"method={method}", "training.schedule.kind=linear", "training.schedule.warmup=0.1"]
    session = Session()
    whole = compose([*overrides, f"results={tmp_path / 'whole'}"])
    parts = compose([*overrides, f"results={tmp_path / 'parts'}"])
    (expected,) = run_together([whole], session=session)
    store = Store(tmp_path / "parts")
    for share, step in ((0.25, 2), (0.25, 2), (0.5, 4)):
        with pytest.raises(Paused):
            run_together([parts], session=session, share=share)
        note = store.paused(expected.identity)
        assert note is not None and (note.step, note.steps) == (step, 8)
        assert (store.run_folder(expected.identity) / f"checkpoint-{step:08d}").is_dir()
        assert store.state(expected.identity, "validation") == "missing"
        assert store.failure(expected.identity, "validation") is None
    (found,) = run_together([parts], session=session)
    assert found.metrics == expected.metrics
    folders = [Store(tmp_path / name).run_folder(expected.identity) / "adapter" for name in ("whole", "parts")]
    ours, theirs = (read_tensors(folder, "adapter_model") for folder in folders)
    assert ours.keys() == theirs.keys() and all(bool((ours[name] == theirs[name]).all()) for name in ours)
    note = store.paused(expected.identity)
    kept_facts = trained(store.run_folder(expected.identity))
    assert note is not None and kept_facts is not None
    assert kept_facts.train_seconds > note.train_seconds, "the seconds before a pause count"
    assert [[step, round(loss, 5)] for step, loss in note.curve] == expected.metrics["validation_curve"][:2]


def grid(results: Path) -> tuple[Manifest, Store]:
    """One cell of random weights at five rates, planned to halve."""
    sweep = replace(
        compose(["sweep=demo"]).sweep,
        models=["random-llama"],
        methods=["post_block"],
        datasets=["boolq"],
        reference="post_block",
        rates={"tiny": {"steering_r8": list(RATES)}},
        variants={},
        seeds_by_method={},
        exclude=[],
        overrides=list(SMALL[2:]),
    )
    store = Store(results)
    plan = replace(expand_grid(sweep, compose), selection="halving")
    return freeze(store, plan), store


def test_a_worker_halves_a_cell_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    plan, store = grid(tmp_path / "halved")
    told: list[Event] = []
    stop = threading.Event()

    def tell(event: Event) -> None:
        told.append(event)
        if len([each for each in told if each.kind == "paused"]) == 3:
            stop.set()

    Worker(store.root, overrides=[], tell=tell, stop=stop).work(plan)
    assert [event.kind for event in told].count("paused") == 3 and not store.records()
    ahead: list[Event] = []
    Worker(store.root, overrides=[], tell=ahead.append).work(plan)
    # Two more rates to a quarter, three to a half, two to the end: none of them begins anew.
    ends = [event.kind for event in ahead if event.kind not in ("started", "note")]
    assert ends == ["paused"] * 5 + ["done"] * 2
    assert [event.kind for event in ahead].count("note") == 5, "five of these seven say from which step they go on"
    assert sorted(states(plan, store)) == ["done"] * 2 + ["dropped"] * 3
    assert not list(store.root.glob("runs/*/checkpoint-*")), "neither the dropped nor the done keep one"

    whole = Store(tmp_path / "whole")
    full = replace(plan, selection="grid")
    Worker(whole.root, overrides=["training.validations=4"], tell=lambda event: None).work(full)
    expected = {record.identity: record.metrics for record in whole.records()}
    assert len(expected) == 5
    for record in store.records():
        assert record.metrics == expected[record.identity]
    quarter = {name: metrics["validation_curve"][0][1] for name, metrics in expected.items()}
    best = sorted(quarter, key=lambda name: quarter[name])[:3]
    half = sorted(best, key=lambda name: expected[name]["validation_curve"][1][1])[:2]
    assert {record.identity for record in store.records()} == set(half)


def test_a_stopped_run_is_interrupted_not_paused(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    config = compose([*SMALL, "method=post_block", f"results={tmp_path}"])
    with pytest.raises(Interrupted):
        run_together([config], session=Session(stop=stop), share=0.5)
    assert Store(tmp_path).paused(identity_of(config, ignore=ignored_keys())) is None
