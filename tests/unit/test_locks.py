"""RunLocks: one owner a run, whoever races, dies, sleeps or has a wrong clock."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actshift.errors import ActshiftError
from actshift.store.locks import Clock, Owner, RunLock
from actshift.store.store import Store

RUN = "0123456789abcdef"


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has said its first line; it is killed at the end if it still runs."""
    command = [sys.executable, "-c", "import random, sys, time\n" + code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


HOLD = """
from actshift.store.store import Store
store = Store(sys.argv[1], expiry=float(sys.argv[3]))
claim = store.lock(sys.argv[2])
print("lost the race" if claim is None else claim.generation, flush=True)
sys.stdin.readline()
print(claim.lost, flush=True)
claim.release()
print("released", flush=True)
sys.stdin.readline()
"""


def foreign(store: Store, *, age: float, text: str | None = None, generation: int = 1) -> Path:
    """A claim of a process on another machine whose last heartbeat was `age` seconds ago by the file's own stamp."""
    owner = {"host": "elsewhere", "boot_id": "b", "pid_namespace": "n", "pid": 1, "started": 1, "token": "t"}
    path = store.run_folder(RUN) / "claims" / f"{generation:06d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner) if text is None else text)
    stamp = path.stat().st_mtime - age
    os.utime(path, (stamp, stamp))
    return path


def taken(store: Store) -> RunLock:
    claim = store.lock(RUN)
    assert claim is not None
    return claim


def test_a_claim_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    one, two = Store(tmp_path), Store(tmp_path)
    with taken(one) as claim:
        assert two.lock(RUN) is None and one.lock(RUN) is None
        assert two.state(RUN, "test") == "running"
        assert not claim.lost
    assert two.state(RUN, "test") == "missing"
    with taken(two) as later:
        assert later.generation > claim.generation


def test_an_exception_releases(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), taken(store):
        raise RuntimeError
    taken(store).release()


def test_a_held_lock_beats(tmp_path: Path) -> None:
    """Its file's time moves on while it is held, several times within an expiry, and no longer once it is released."""
    store = Store(tmp_path, expiry=0.6)
    lock = taken(store)
    (path,) = tmp_path.glob("runs/*/claims/*.json")
    for _ in range(2):
        os.utime(path, ns=(0, 0))  # as if it had been silent for long
        eventually(lambda: path.stat().st_mtime_ns > 0)
    lock.release()
    os.utime(path, ns=(0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime_ns == 0


def test_releasing_twice_or_after_the_folder_is_gone_is_harmless(tmp_path: Path) -> None:
    store = Store(tmp_path)
    claim = taken(store)
    claim.release()
    claim.release()
    other = taken(store)
    for path in (store.run_folder(RUN) / "claims").iterdir():
        path.unlink()
    assert other.lost
    other.release()


def test_a_late_release_takes_nothing_from_a_later_owner(tmp_path: Path) -> None:
    store = Store(tmp_path, expiry=0.3)
    late = taken(store)
    path = store.run_folder(RUN) / "claims" / "000001.json"
    owner = json.loads(path.read_text()) | {"host": "elsewhere"}
    late._ended.set()  # it stands still from here on
    late._thread.join()
    path.write_text(json.dumps(owner))
    os.utime(path, (0, 0))
    with taken(store) as now:
        assert late.lost and not now.lost
        late.release()
        assert not now.lost and store.lock(RUN) is None


RACE = """
from actshift.store.store import Store
store, rng = Store(sys.argv[1]), random.Random(sys.argv[2])
runs = [f"{n:016x}" for n in range(int(sys.argv[3]))]
rng.shuffle(runs)
print("ready", flush=True)
sys.stdin.readline()
held = {run: claim for run in runs if (claim := store.lock(run)) is not None}
print(" ".join(sorted(held)), flush=True)
sys.stdin.readline()
"""


def test_processes_that_claim_the_same_runs_get_each_of_them_once(tmp_path: Path) -> None:
    runs = 80
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(child(RACE, tmp_path, seed, runs)) for seed in range(4)]
        assert [says(racer) for racer in racers] == ["ready"] * 4
        for racer in racers:
            tell(racer)
        won = Counter(run for racer in racers for run in says(racer).split())
        assert won == Counter({f"{n:016x}": 1 for n in range(runs)})


WORK = """
from actshift.config.identity import identity_of
from actshift.store.records import Cell, Record
from actshift.store.store import Store

def planned_record(seed):
    names = {"model": "tiny", "method": "sft", "dataset": "boolq", "protocol": "paper"}
    config = {group: {"name": name} for group, name in names.items()} | {"lr": 0.001, "seed": seed}
    metrics = {"accuracy": 50.0, "rows": 2, "correct": 1, "diverged": False}
    return Record(identity_of(config, ignore=()), "validation", Cell(**names), 0.001, seed, config, metrics, {})

store, rng, seeds = Store(sys.argv[1]), random.Random(sys.argv[2]), list(range(int(sys.argv[3])))
print("ready", flush=True)
sys.stdin.readline()
while seeds:
    seed = rng.choice(seeds)
    record = planned_record(seed)
    if store.state(record.identity, "validation") == "done":
        seeds.remove(seed)
        continue
    claim = store.lock(record.identity)
    if claim is None:
        continue
    with claim:
        if store.state(record.identity, "validation") != "done":
            with open(store.root / "work.log", "a") as log:
                log.write(f"{seed}\\n")
            time.sleep(rng.uniform(0, 0.004))
            store.publish(record, lock=claim)
"""


def test_launchers_that_share_a_sweep_do_every_run_once(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(child(WORK, tmp_path, seed, 60)) for seed in range(3)]
        assert [says(worker) for worker in workers] == ["ready"] * 3
        for worker in workers:
            tell(worker)
        assert [worker.wait(timeout=60) for worker in workers] == [0] * 3
    done = Counter(int(line) for line in (tmp_path / "work.log").read_text().split())
    assert done == Counter(dict.fromkeys(range(60), 1))
    assert len(Store(tmp_path).records("validation")) == 60


def test_workers_killed_in_the_middle_leave_runs_that_others_finish(tmp_path: Path) -> None:
    for number in range(5):
        with child(WORK, tmp_path, number, 40) as worker:
            assert says(worker) == "ready"
            tell(worker)
            time.sleep(0.01 * (number + 1))
            worker.send_signal(signal.SIGKILL)
    started = Counter((tmp_path / "work.log").read_text().split())
    before = {record.seed for record in Store(tmp_path).records()}
    with child(WORK, tmp_path, 99, 40) as worker:
        tell(worker)
        assert worker.wait(timeout=60) == 0
    assert len(Store(tmp_path).records("validation")) == 40
    finished = Counter((tmp_path / "work.log").read_text().split())
    assert all(finished[str(seed)] == started[str(seed)] for seed in before), "what was done was done again"


def test_a_killed_process_on_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path, expiry=10_000)
    with child(HOLD, tmp_path, RUN, 10_000) as holder:
        assert says(holder) == "1"
        assert store.lock(RUN) is None and store.state(RUN, "test") == "running"
        holder.send_signal(signal.SIGKILL)
        # Nobody has waited for it yet: it is a zombie, which is as dead.
        eventually(lambda: store.state(RUN, "test") == "missing")
        with taken(store) as claim:
            assert claim.generation == 2
    with taken(store) as claim:
        assert claim.generation == 3


def test_a_process_that_runs_here_keeps_its_claim_however_long_the_machine_slept(tmp_path: Path) -> None:
    with child(HOLD, tmp_path, RUN, 1000) as holder:
        assert says(holder) == "1"
        os.utime(tmp_path / "runs" / RUN / "claims" / "000001.json", (0, 0))
        store = Store(tmp_path, expiry=0.2)
        assert store.lock(RUN) is None and store.state(RUN, "test") == "running"


def test_a_stopped_process_loses_its_claim_and_learns_it(tmp_path: Path) -> None:
    store = Store(tmp_path, expiry=0.4)
    with child(HOLD, tmp_path, RUN, 0.4) as holder:
        assert says(holder) == "1"
        time.sleep(0.6)
        assert store.lock(RUN) is None  # its heartbeat is what keeps it
        holder.send_signal(signal.SIGSTOP)
        eventually(lambda: store.state(RUN, "test") == "missing")
        with taken(store) as claim:
            holder.send_signal(signal.SIGCONT)
            tell(holder)
            assert [says(holder), says(holder)] == ["True", "released"]
            assert not claim.lost and store.lock(RUN) is None


@pytest.mark.parametrize("text", [None, "", '{"host": "elsew', "[]", '{"host": "elsewhere"}'])
def test_another_machines_claim_counts_until_its_heartbeat_is_old(tmp_path: Path, text: str | None) -> None:
    patient, store = Store(tmp_path), Store(tmp_path, expiry=0.3)
    foreign(patient, age=0, text=text)
    assert patient.state(RUN, "test") == "running" and patient.lock(RUN) is None
    foreign(store, age=1000, text=text)
    assert store.state(RUN, "test") == "missing"
    with taken(store) as claim:
        assert claim.generation == 2


def test_the_time_of_this_machine_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    foreign(store, age=60)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    monkeypatch.setattr(time, "time_ns", lambda: 10**21)
    assert store.lock(RUN) is None


def test_a_heartbeat_from_a_clock_that_is_minutes_behind_is_not_mistaken_for_silence(tmp_path: Path) -> None:
    """Some file systems stamp files with the client's clock: then a living owner may look five minutes silent."""
    store = Store(tmp_path, expiry=2.4)
    path = foreign(store, age=300)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(path, (time.time() - 300, time.time() - 300))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert store.lock(RUN) is None
    finally:
        ended.set()
        thread.join()
    taken(store).release()


def test_a_heartbeat_in_the_future_is_not_old(tmp_path: Path) -> None:
    store = Store(tmp_path, expiry=0.1)
    foreign(store, age=-500)
    assert store.lock(RUN) is None


def test_the_highest_generation_is_the_one_that_counts(tmp_path: Path) -> None:
    store = Store(tmp_path, expiry=0.1)
    foreign(store, age=1000, generation=1)
    foreign(store, age=0, generation=9)
    store_slow = Store(tmp_path)
    assert store_slow.lock(RUN) is None
    foreign(store, age=1000, generation=9)
    with taken(store) as claim:
        assert claim.generation == 10


def test_a_copied_claim_that_was_released_stays_released(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = foreign(store, age=0)
    path.with_suffix(".released").touch()
    taken(store).release()


def test_where_no_file_can_be_written_nothing_is_judged_stale(tmp_path: Path) -> None:
    assert Clock(tmp_path / "absent").now() is None
    clock = Clock(tmp_path)
    first = clock.now()
    assert first is not None and list(tmp_path.iterdir()) == []


KILLED_WHILE_CLAIMING = """
import os, signal
from actshift.store.store import Store
sys.addaudithook(lambda event, _: event == "os.link" and os.kill(os.getpid(), signal.SIGKILL))
Store(sys.argv[1]).lock(sys.argv[2])
"""


def test_a_process_killed_while_it_claims_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with child(KILLED_WHILE_CLAIMING, tmp_path, RUN) as claimer:
        assert claimer.wait(timeout=60) == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.state(RUN, "test") == "missing"
    with taken(store) as claim:
        assert claim.generation == 1


def test_where_the_file_system_has_no_hard_links_one_still_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    with taken(Store(tmp_path)):
        assert Store(tmp_path).lock(RUN) is None
    with taken(Store(tmp_path)) as claim:
        assert claim.generation == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_process_of_the_same_number_is_not_the_same_process() -> None:
    here = Owner.here()
    assert here.running() is True
    assert here.started is not None
    assert Owner(**vars(here) | {"started": here.started - 1}).running() is False
    assert Owner(**vars(here) | {"boot_id": "another boot"}).running() is None
    assert Owner(**vars(here) | {"pid_namespace": "pid:[1]"}).running() is None
    assert Owner(**vars(here) | {"host": "another"}).running() is None


def test_a_run_is_named_by_its_identity_only(tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match="16 hex digits"):
        Store(tmp_path).lock("../../etc")
