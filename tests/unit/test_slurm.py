"""The SLURM engine without a cluster: profiles, packing, arrays, dependencies, and what sbatch is called with."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.paths import slurm_dir
from actshift.planning.expand import expand_final, expand_grid
from actshift.planning.manifests import freeze
from actshift.planning.selection import select
from actshift.store.store import Store
from actshift.sweeps import slurm
from actshift.sweeps.profiles import ClusterProfile, profile_of, read_profiles
from actshift.sweeps.slurm import FILL, Job, Work, arrays, pack, read_tasks
from actshift.sweeps.submission import Submission

PROFILES = read_profiles(slurm_dir() / "profiles")
CPU = PROFILES["cpu"]


def work(model: str, seconds: float, seed: int = 0) -> Work:
    return Work(model, "sft", "boolq", "paper", seed, 0.1, "", seconds)


def test_tasks_are_packed_up_to_seven_tenths_of_the_time_limit() -> None:
    """A limit of 1,000 s holds 700 s of runs: of 300 s each two, and 100 s after them."""
    profile = replace(CPU, time="00:16:40")
    given_work = [work("a", 300.0, seed) for seed in range(3)] + [work("a", 400.0, 3), work("a", 1.0, 4)]
    assert profile.seconds == 1000
    sizes = [[each.seconds for each in runs] for _, runs in pack(given_work, {"a": profile})]
    assert sizes == [[300.0, 300.0], [300.0, 400.0], [1.0]]


def test_every_size_of_model_has_a_profile_with_a_gpu() -> None:
    scales = {compose([f"model={name}"]).model.scale for name in ("llama3.2-1b", "qwen3-4b", "llama3.1-8b")}
    chosen = {scale: profile_of(scale, PROFILES, chosen=None) for scale in scales}
    assert {scale: profile.name for scale, profile in chosen.items()} == {
        "1b": "a100-40gb",
        "4b": "a100-40gb",
        "8b": "a100-80gb",
    }
    for profile in PROFILES.values():
        assert compose([f"hardware={profile.hardware}"]).hardware.name == profile.hardware


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("partiton: a", "unknown profile key 'partiton'. Did you mean 'partition'"),
        ("time: 90", "must be 'hours:minutes:seconds'"),
        ("cpus: 0", "cpus = 0 must be a whole number"),
        ('account: "a; rm -rf"', "account = 'a; rm -rf' must be null or what sbatch takes"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(tmp_path: Path, change: str, message: str) -> None:
    key = change.split(":")[0]
    lines = [line for line in (slurm_dir() / "profiles" / "cpu.yaml").read_text().splitlines()]
    (tmp_path / "mine.yaml").write_text("\n".join([*(x for x in lines if not x.startswith(f"{key}:")), change]))
    with pytest.raises(ActshiftError) as refused:
        read_profiles(tmp_path)
    assert message in str(refused.value) and "mine.yaml" in str(refused.value)


def test_an_unknown_profile_and_a_scale_of_no_profile_are_refused() -> None:
    with pytest.raises(ActshiftError, match=r"unknown profile 'a100-40g'.*a100-40gb"):
        profile_of("1b", PROFILES, chosen="a100-40g")
    with pytest.raises(ActshiftError, match="no profile is meant for models of scale '70b'"):
        profile_of("70b", PROFILES, chosen=None)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(1, 2000)), min_size=1, max_size=40), st.integers(1, 5))
def test_packing_loses_nothing_and_fills_no_task_over_its_time(runs: list[tuple[str, float]], size: int) -> None:
    given_work = [work(model, seconds, seed) for seed, (model, seconds) in enumerate(runs)]
    tasks = pack(given_work, {"a": CPU, "b": CPU})
    assert sorted((one for _, task in tasks for one in task), key=lambda one: one.seed) == given_work
    for _, task in tasks:
        assert len({one.model for one in task}) == 1, "a task loads one model"
        assert len(task) == 1 or sum(one.seconds for one in task) <= FILL * CPU.seconds
    jobs = arrays(tasks, name="n", file=Path("f"), size=size)
    assert sum(job.tasks for job in jobs) == len(tasks) and all(1 <= job.tasks <= size for job in jobs)
    starts = [int(job.arguments[2]) for job in jobs]
    assert starts == [sum(job.tasks for job in jobs[:place]) for place in range(len(jobs))]


def test_no_text_reaches_a_shell_unquoted() -> None:
    job = Job("actshift-x-grid", CPU, ("actshift.sweeps.task", "/a b/$(rm -rf x).jsonl", "0"), tasks=2)
    command = job.command(script=Path("/s p/array.sbatch"), logs=Path("/l o"), ids=[])
    assert "/a b/$(rm -rf x).jsonl" in command, "one argument, whatever it holds: sbatch is called without a shell"
    assert shlex.split(shlex.join(command)) == command


def submission(store: Store, *, profile: str | None = None, dry: bool = False) -> tuple[Submission, Any]:
    compose_cell = CachedComposer()
    grid = freeze(store, expand_grid(compose(["sweep=smoke"]).sweep, compose_cell))
    made = Submission(
        store, grid, compose=compose_cell, folder=slurm_dir(), profile=profile, overrides=["data.dir=x"], dry=dry
    )
    return made, grid


def keys(jobs: Sequence[Job], store: Store) -> list[tuple[Any, ...]]:
    found = []
    for job in jobs:
        if job.tasks:
            _, tasks = read_tasks(Path(job.arguments[1]))
            start = int(job.arguments[2])
            found += [run.key for task in tasks[start : start + job.tasks] for run in task["runs"]]
    return found


def test_grid_selection_and_final_follow_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, grid = submission(store, profile="cpu")
    jobs = made.jobs(None, selected=False, queued=set(), size=1000)
    assert [job.name for job in jobs] == ["actshift-smoke-grid", "actshift-smoke-select", "actshift-smoke-final"]
    assert [(job.after, job.strictly) for job in jobs] == [((), False), ((0,), False), ((1,), True)]
    assert [job.arguments[:3] for job in jobs][1] == ("actshift.cli", "select", "smoke")
    assert len(keys(jobs[:1], store)) == len(grid.runs) and len(keys(jobs[2:], store)) == 8
    head, _ = read_tasks(Path(jobs[0].arguments[1]))
    assert head == {"sweep": "smoke", "stage": "grid", "results": str(tmp_path.resolve()), "overrides": ["data.dir=x"]}


def test_what_waits_in_the_queue_or_has_failed_is_not_submitted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, grid = submission(store, profile="cpu")
    first = keys(made.jobs(None, selected=False, queued=set(), size=1000)[:1], store)
    store.fail(grid.runs[0].identity, "validation", "boom")
    left = keys(made.jobs(None, selected=False, queued=set(first[1:3]), size=1000)[:1], store)
    assert left == first[3:]


def test_after_the_selection_only_what_final_misses(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made, grid = submission(store, profile="cpu")
    final = freeze(store, expand_final(grid, select(grid, [], allow_missing=True)))
    assert made.jobs(final, selected=True, queued=set(), size=1000) == [], "nothing selected, nothing left"


def test_an_array_is_split_at_the_sites_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "FILL", 1e-6)  # a run a task, however short the estimate
    folder = tmp_path / "slurm"
    shutil.copytree(slurm_dir(), folder)
    profile = folder / "profiles" / "cpu.yaml"
    profile.write_text(profile.read_text().replace("00:20:00", "00:00:01"))  # a run a task
    store, compose_cell = Store(tmp_path / "results"), CachedComposer()
    grid = freeze(store, expand_grid(compose(["sweep=smoke"]).sweep, compose_cell))
    made = Submission(store, grid, compose=compose_cell, folder=folder, profile="cpu", overrides=[])
    jobs = made.jobs(None, selected=False, queued=set(), size=3)
    assert [job.tasks for job in jobs] == [3, 3, 2, 0, 3, 3, 2]
    assert jobs[3].after == (0, 1, 2) and all(job.after == (3,) for job in jobs[4:])
    assert keys(jobs[:3], store) == [
        (run.cell.model, run.cell.method, run.cell.dataset, run.cell.protocol, run.seed, run.lr, run.variant)
        for run in grid.runs
    ]


def test_a_dry_run_prints_the_calls_and_writes_nothing(tmp_path: Path, file_regression: Any) -> None:
    store = Store(tmp_path / "results")
    made, _ = submission(store, profile="a100-40gb", dry=True)
    text = made.text(made.jobs(None, selected=False, queued=set(), size=1000))
    assert not (tmp_path / "results" / "slurm").exists()
    import sys

    for path, name in ((str(tmp_path), "TMP"), (str(slurm_dir().resolve()), "SLURM"), (sys.executable, "PYTHON")):
        text = text.replace(path, name)
    file_regression.check(text, extension=".sbatch")


def test_task_lists_are_whole_or_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"sweep": "x"}) + '\n{"hardware": "cpu", "runs": [{"model": 1}]}\n')
    with pytest.raises(ActshiftError, match="is not a list of tasks"):
        read_tasks(tmp_path / "t.jsonl")


def test_profiles_give_their_time_in_seconds() -> None:
    def seconds(time: str) -> int:
        return ClusterProfile(**{**vars(CPU), "time": time}).seconds

    assert (seconds("00:01:30"), seconds("2-00:00:00"), seconds("12:00:00")) == (90, 172800, 43200)


@pytest.mark.parametrize(
    ("answer", "size"), [("MaxArraySize            = 1001\n", 1001), ("A = 1\nMaxArraySize = 5\nB = 2\n", 5)]
)
def test_the_size_of_arrays_is_the_clusters(answer: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_call", lambda command: answer)
    assert slurm.array_size() == size


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "it answered nothing"),
        ("slurm_load_ctl_conf error: Unable to contact slurm controller\n", "Unable to contact"),
        ("MaxArraySize = 0\n", "allows no job arrays"),
        ("MaxArraySize = (null)\n", "allows no job arrays"),
    ],
)
def test_a_scheduler_that_does_not_say_is_no_scheduler_without_a_limit(
    answer: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_call", lambda command: answer)
    with pytest.raises(ActshiftError, match=message):
        slurm.array_size()


def test_a_queue_that_does_not_answer_is_no_empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the runs that wait in it would be submitted twice."""

    def silent(command: Sequence[str]) -> str:
        raise ActshiftError("squeue refused: timed out")

    store = Store(tmp_path)
    folder = slurm.jobs_folder(store, "smoke")
    folder.mkdir(parents=True)
    (folder / "jobs.jsonl").write_text('{"arguments": ["actshift.cli"], "job": "1", "name": "n", "tasks": 0}\n')
    monkeypatch.setattr(slurm, "_call", silent)
    for ask in (lambda: slurm.queued(store, "smoke"), lambda: slurm.waiting(store, "smoke", "actshift.cli")):
        with pytest.raises(ActshiftError, match="timed out"):
            ask()
    assert slurm.queue_states(store, "smoke") == {}  # a status without a cluster is a status from files


def test_a_percent_sign_in_a_folder_is_no_pattern_of_sbatch() -> None:
    profile = next(iter(read_profiles(slurm_dir() / "profiles").values()))
    job = slurm.Job("name", profile, ("actshift.sweeps.task", "x", "0"), tasks=2)
    command = job.command(script=Path("s"), logs=Path("/a/50%job/logs"), ids=[])
    assert "--output=/a/50%%job/logs/%A_%a.log" in command
