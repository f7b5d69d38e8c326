"""Checkpoints: complete or ignored, and a resumed run that equals an uninterrupted one bit for bit."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import attached, base_of, method_config, perturb, some_rows, training_config

from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.schema.config import ScheduleConfig
from actshift.training.checkpoints import Checkpoints, read_facts, read_tensors, write_folder
from actshift.training.loop import Curves, StepCallback, train

MODEL = "random-llama"
STEPS, EVERY = 8, 2
TENSORS = {"adapter": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}}

State = dict[str, torch.Tensor]


class Interrupted(Exception):
    """What a kill looks like from inside."""


def stop_after(step: int) -> StepCallback:
    def progress(done: int, *_: Any) -> None:
        if done == step:
            raise Interrupted

    return progress


def trained(base: Base, adaptation: Adaptation, *, folder: Path, progress: StepCallback = lambda *_: None) -> Curves:
    """8 steps over a cosine with warmup, so that every step has its own learning rate; a checkpoint every 2."""
    (curves,) = train(
        base,
        adaptation,
        rows=some_rows(base, 16),
        validation_rows=some_rows(base, 4, seed=50),
        training=training_config(
            batch_size=4, epochs=2, schedule=ScheduleConfig("cosine", 0.25), validations=4, weight_decay=0.01
        ),
        lrs=(5e-3,),
        seeds=(3,),
        micro_batch=3,
        checkpoints=Checkpoints(folder, every=EVERY),
        progress=progress,
    )
    return curves


def full_run(
    config: dict[str, Any], folder: Path, *, progress: StepCallback = lambda *_: None
) -> tuple[dict[str, Any], State]:
    """A run to the end, from whatever is in the folder, with a fresh adapter and another state of the generator."""
    torch.seed()
    with attached(base_of(MODEL), config) as adaptation:
        curves = trained(base_of(MODEL), adaptation, folder=folder, progress=progress)
        return dataclasses.asdict(curves), adaptation.state_dict()


def interrupted_run(config: dict[str, Any], folder: Path, *, progress: StepCallback) -> None:
    with attached(base_of(MODEL), config) as adaptation, pytest.raises(Interrupted):
        trained(base_of(MODEL), adaptation, folder=folder, progress=progress)


def assert_same(run: tuple[dict[str, Any], State], expected: tuple[dict[str, Any], State]) -> None:
    assert run[0] == expected[0]
    assert run[1].keys() == expected[1].keys()
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in run[1].items())


def checkpoints_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


CONFIGS = [
    pytest.param(("sft",), id="sft"),
    pytest.param(("lora_r8",), id="lora_r8"),
    pytest.param(("lora_r8", "method.dropout=0.3"), id="lora_r8 with dropout"),
    pytest.param(("post_block",), id="post_block"),
]


@pytest.mark.parametrize("method", CONFIGS)
def test_a_resumed_run_equals_an_uninterrupted_one(method: tuple[str, ...], tmp_path: Path) -> None:
    config = method_config(*method, model=MODEL)
    expected = full_run(config, tmp_path / "whole")
    assert len(expected[0]["loss"]) == STEPS and len(expected[0]["validation"]) == 4
    for step in (4, 7):
        folder, kept, told = tmp_path / f"cut after {step}", step - step % EVERY, []
        interrupted_run(config, folder, progress=stop_after(step))
        assert checkpoints_in(folder) == [f"checkpoint-{kept:08d}"]
        assert_same(full_run(config, folder, progress=lambda done, *_, told=told: told.append(done)), expected)
        assert told == list(range(kept + 1, STEPS + 1)), "no step that was kept is done again"


def test_a_run_can_be_interrupted_more_than_once(tmp_path: Path) -> None:
    config = method_config("post_block", model=MODEL)
    expected = full_run(config, tmp_path / "whole")
    for step in (1, 3, 3, 6):
        interrupted_run(config, tmp_path / "cut", progress=stop_after(step))
    assert_same(full_run(config, tmp_path / "cut"), expected)


def _truncate(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _garble_facts(folder: Path) -> None:
    (folder / "facts.json").write_bytes(b"\xff\xfe\x00{")


DAMAGES = {
    "adapter cut": _truncate("adapter.safetensors"),
    "optimizer cut": _truncate("optimizer.safetensors"),
    "facts cut": _truncate("facts.json"),
    "facts garbled": _garble_facts,
    "facts gone": lambda folder: (folder / "facts.json").unlink(),
    "optimizer gone": lambda folder: (folder / "optimizer.safetensors").unlink(),
    "random gone": lambda folder: (folder / "random.safetensors").unlink(),
    "empty file": lambda folder: (folder / "adapter.safetensors").write_bytes(b""),
    "empty folder": _empty,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], State]:
    return full_run(method_config("post_block", model=MODEL), tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("older", [True, False], ids=["older one there", "no older one"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_ignored(
    damage: Callable[[Path], None], older: bool, whole: tuple[dict[str, Any], State], tmp_path: Path
) -> None:
    config, folder = method_config("post_block", model=MODEL), tmp_path / "run"

    def progress(done: int, *_: Any) -> None:
        if older and done == EVERY:
            shutil.copytree(folder / f"checkpoint-{EVERY:08d}", tmp_path / "aside")
        stop_after(5)(done)

    interrupted_run(config, folder, progress=progress)
    damage(folder / "checkpoint-00000004")
    if older:
        (tmp_path / "aside").rename(folder / f"checkpoint-{EVERY:08d}")
    first: list[int] = []
    assert_same(full_run(config, folder, progress=lambda done, *_: first.append(done)), whole)
    assert first[0] == (EVERY + 1 if older else 1)


def test_a_damaged_newer_checkpoint_does_not_outlive_a_sound_one(tmp_path: Path) -> None:
    config = method_config("post_block", model=MODEL)
    interrupted_run(config, tmp_path, progress=stop_after(7))
    _empty(tmp_path / "checkpoint-00000006")
    interrupted_run(config, tmp_path, progress=stop_after(3))
    assert checkpoints_in(tmp_path) == ["checkpoint-00000002"]
    interrupted_run(config, tmp_path, progress=stop_after(5))
    assert checkpoints_in(tmp_path) == ["checkpoint-00000004"]


def test_of_two_sound_checkpoints_the_newer_one_counts(tmp_path: Path) -> None:
    """A kill between writing a checkpoint and removing the one before leaves both."""
    config = method_config("post_block", model=MODEL)
    interrupted_run(config, tmp_path, progress=stop_after(3))
    shutil.copytree(tmp_path / "checkpoint-00000002", tmp_path.parent / "older")
    interrupted_run(config, tmp_path, progress=stop_after(5))
    (tmp_path.parent / "older").rename(tmp_path / "checkpoint-00000002")
    assert checkpoints_in(tmp_path) == ["checkpoint-00000002", "checkpoint-00000004"]
    first: list[int] = []
    full_run(config, tmp_path, progress=lambda done, *_: first.append(done))
    assert first[0] == 5


def test_clearing_leaves_nothing_even_of_what_was_half_written(tmp_path: Path) -> None:
    interrupted_run(method_config("post_block", model=MODEL), tmp_path, progress=stop_after(5))
    (tmp_path / ".checkpoint-00000006.abc").mkdir()
    (tmp_path / "adapter").mkdir()
    Checkpoints(tmp_path, every=EVERY).clear()
    assert checkpoints_in(tmp_path) == ["adapter"]


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    base, config = base_of(MODEL), method_config("post_block", model=MODEL)
    with attached(base, config) as adaptation:
        before = perturb(adaptation).state_dict()
        optimizer = torch.optim.AdamW(adaptation.parameter_groups(lrs=(0.1,)))
        checkpoints = Checkpoints(tmp_path, every=1)
        checkpoints.save(1, adaptation=adaptation, optimizer=optimizer, facts={})
        (tmp_path / "checkpoint-00000001").rename(tmp_path / ".checkpoint-00000001.abc")
        assert checkpoints.restore(adaptation=adaptation, optimizer=optimizer) is None
        assert all(torch.equal(tensor, before[name]) for name, tensor in adaptation.state_dict().items())


@pytest.mark.parametrize(("every", "due"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (3, [3, 6])])
def test_checkpoints_are_due_every_so_many_steps(every: int, due: list[int], tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every=every)
    assert [step for step in range(1, 7) if checkpoints.due(step)] == due


def test_a_folder_keeps_tensors_and_facts_exactly_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "adapter"
    write_folder(path, tensors={"other": {"x": torch.zeros(1)}}, facts={"step": 1})
    write_folder(path, tensors=TENSORS, facts={"step": 2, "loss": [0.1, 1e-30]})
    assert read_facts(path) == {"step": 2, "loss": [0.1, 1e-30]}
    found = read_tensors(path, "adapter")
    assert found.keys() == TENSORS["adapter"].keys()
    assert all(torch.equal(found[k], t) and found[k].dtype == t.dtype for k, t in TENSORS["adapter"].items())
    assert checkpoints_in(path) == ["adapter.safetensors", "facts.json"]
    assert checkpoints_in(path.parent) == ["adapter"]
    assert read_facts(tmp_path / "nowhere") is None
