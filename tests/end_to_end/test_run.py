"""The single run, from the command line and as a function: what it records, what it reuses, what it survives."""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from actshift.cli import main
from actshift.config.composition import compose
from actshift.config.identity import identity_of, ignored_keys
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.observe.progress import Progress
from actshift.runtime.run import Busy, run
from actshift.runtime.session import Interrupted, Session
from actshift.schema.config import Config
from actshift.store.records import Record, read_records
from actshift.store.store import Store
from actshift.tasks import get_task

SMALL = ("debug=few_steps", "hardware.threads=1")

# Imported by every Python process that has its folder in PYTHONPATH: no connection leaves the machine unnoticed.
NO_NETWORK = """
import os, socket

def refuse(what):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(f"{what}\\n")
    raise OSError(f"no network here: {what}")

def connect(real):
    def checked(self, address):
        return real(self, address) if self.family == socket.AF_UNIX else refuse(address)
    return checked

socket.socket.connect = connect(socket.socket.connect)
socket.socket.connect_ex = connect(socket.socket.connect_ex)
socket.getaddrinfo = lambda *arguments, **_: refuse(arguments[:2])
"""


class NothingLoads(Session):
    """A session in which a run fails that asks for a model or data."""

    def base(self, config: Config) -> Base:
        raise AssertionError("a model was loaded")

    def split(self, config: Config, name: str) -> Split:
        raise AssertionError("data were loaded")


class Phases(Progress):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def start(self, what: str) -> None:
        self.seen.append(what)


def request(results: Path, *overrides: str) -> Config:
    return compose([*SMALL, *overrides, f"results='{results}'"])


def predictions(store: Store, record: Record) -> list[dict[str, Any]]:
    lines = (store.run_folder(record.identity) / f"predictions-{record.split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and times of the files below a folder, claims apart."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "claims" not in path.parts
    }


@pytest.fixture(scope="module")
def session() -> Session:
    """One warm session for all runs here, as a worker has."""
    return Session()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, session: Session) -> tuple[Store, Record]:
    results = tmp_path_factory.mktemp("results")
    return Store(results), run(request(results, "method=post_block", "seed=1"), session=session)


# --- the command line -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def multirun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], Path]:
    """`actshift run -m` over two methods and two seeds, in a folder of its own, with every connection refused."""
    folder, shim = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("shim")
    (shim / "sitecustomize.py").write_text(NO_NETWORK)
    log = shim / "network.log"
    environment = {**os.environ, "PYTHONPATH": str(shim)}
    probe = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    subprocess.run(probe, capture_output=True, env={**environment, "NETWORK_LOG": str(shim / "probe.log")})
    assert "127.0.0.1" in (shim / "probe.log").read_text()  # the shim sees what it is there to see

    command = [sys.executable, "-m", "actshift.cli", "run", "-m", "method=sft,post_block", "seed=1,2", *SMALL]
    finished = subprocess.run(
        [*command, "results=out"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**environment, "NETWORK_LOG": str(log)},
    )
    return folder, finished, log


def test_a_multirun_does_every_job(multirun: tuple[Path, subprocess.CompletedProcess[str], Path]) -> None:
    folder, finished, _ = multirun
    assert finished.returncode == 0, finished.stderr
    records = read_records(folder / "out" / "records")
    asked = [(method, seed) for method in ("post_block", "sft") for seed in (1, 2)]
    assert sorted((record.cell.method, record.seed) for record in records) == asked
    for record in records:
        assert f"out/records/{record.file_name}" in finished.stdout
        assert f"accuracy {record.metrics['accuracy']:.2f}" in finished.stdout


def test_it_leaves_nothing_beside_the_results(multirun: tuple[Path, subprocess.CompletedProcess[str], Path]) -> None:
    folder, _, _ = multirun
    assert [path.name for path in folder.iterdir()] == ["out"]
    assert {path.name for path in (folder / "out").iterdir()} == {"cache", "records", "runs"}


def test_it_warns_of_nothing(multirun: tuple[Path, subprocess.CompletedProcess[str], Path]) -> None:
    _, finished, _ = multirun
    assert "warning" not in finished.stderr.lower()
    # Progress alone: elsewhere than on a terminal, whole lines.
    assert all(line.startswith(("train ", "evaluate validation ")) for line in finished.stderr.splitlines())


def test_it_attempts_no_connection(multirun: tuple[Path, subprocess.CompletedProcess[str], Path]) -> None:
    _, _, log = multirun
    assert not log.exists(), log.read_text()


def test_another_process_comes_to_the_same_result(
    multirun: tuple[Path, subprocess.CompletedProcess[str], Path], done: tuple[Store, Record]
) -> None:
    folder, _, _ = multirun
    store, here = done
    there = Store(folder / "out").record(here.identity, "validation")
    assert there is not None
    assert there.metrics == here.metrics
    assert predictions(Store(folder / "out"), there) == predictions(store, here)


def test_one_run_prints_its_result_and_is_read_the_second_time(
    done: tuple[Store, Record], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, record = done
    monkeypatch.chdir(tmp_path)
    before = files(store.root)
    assert main(["run", *SMALL, "method=post_block", "seed=1", f"results={store.root}"]) == 0
    printed = capsys.readouterr()
    assert (
        f"tiny / post_block / listops (paper) lr=0.01 seed=1: validation accuracy {record.metrics['accuracy']:.2f}"
        in (printed.out)
    )
    assert (printed.err, files(store.root), list(tmp_path.iterdir())) == ("", before, [])


# --- the record -------------------------------------------------------------------------------------------------


def test_the_record_says_what_was_run(done: tuple[Store, Record]) -> None:
    store, record = done
    config = request(store.root, "method=post_block", "seed=1")
    assert record.identity == identity_of(config, ignore=ignored_keys())
    assert (record.lr, record.seed, record.split) == (config.lr, 1, "validation")
    assert str(record.cell) == "tiny / post_block / listops (paper)"
    assert store.record(record.identity, "validation") == record
    assert store.state(record.identity, "validation") == "done"


def test_the_metrics_are_those_of_the_predictions(done: tuple[Store, Record]) -> None:
    store, record = done
    rows = predictions(store, record)
    task = get_task("listops")
    assert [row["row"] for row in rows] == list(range(16))
    assert all(row["extracted"] == task.extract(row["output"]) for row in rows)
    assert all(row["correct"] == task.score(row["output"], row["label"]) for row in rows)
    correct = sum(row["correct"] for row in rows)
    metrics = record.metrics
    assert (metrics["rows"], metrics["correct"], metrics["accuracy"]) == (16, correct, 100 * correct / 16)
    assert (metrics["steps"], metrics["diverged"]) == (4, False)


@pytest.mark.parametrize(
    ("method", "share"),
    [
        # Two matrices of width x rank a layer.
        ("post_block", lambda shape: 2 * shape.layers * shape.width * 8),
        ("post_block_vector", lambda shape: shape.layers * shape.width),
        ("sft", None),
    ],
)
def test_trainable_parameters_are_counted(method: str, share: Any, tmp_path: Path, session: Session) -> None:
    config = request(tmp_path, f"method={method}", "training.max_steps=1")
    metrics = run(config, session=session).metrics
    total = sum(parameter.numel() for parameter in session.base(config).model.parameters())
    assert metrics["total_parameters"] == total
    assert metrics["trainable_parameters"] == (total if share is None else share(config.model.shape))


def test_the_provenance_names_the_data_and_the_machine(done: tuple[Store, Record], session: Session) -> None:
    store, record = done
    config = request(store.root, "method=post_block", "seed=1")
    facts = record.provenance
    assert facts["data"] == {name: session.split(config, name).fingerprint for name in ("train", "validation")}
    assert (facts["device"], facts["precision"], facts["threads"], facts["source"]) == (
        "cpu",
        "float32",
        1,
        "procedural",
    )
    assert facts["torch"] == torch.__version__
    assert facts["peak_memory_bytes"] > 10**6


def test_the_curves_are_kept_with_the_run(done: tuple[Store, Record]) -> None:
    store, record = done
    curves = json.loads((store.run_folder(record.identity) / "adapter" / "facts.json").read_text())["curves"]
    assert len(curves["loss"]) == len(curves["lr"]) == record.metrics["steps"]
    assert record.metrics["final_loss"] == pytest.approx(sum(curves["loss"]) / 4, abs=1e-6)
    assert [step for step, _ in curves["validation"]] == [4]


# --- once and again ---------------------------------------------------------------------------------------------


def test_what_is_done_is_read_without_loading_anything(done: tuple[Store, Record]) -> None:
    store, record = done
    before = files(store.root)
    assert run(request(store.root, "method=post_block", "seed=1"), session=NothingLoads()) == record
    assert files(store.root) == before


def test_the_final_stage_scores_what_the_grid_trained(tmp_path: Path, session: Session) -> None:
    grid = run(request(tmp_path, "method=lora_r8"), session=session)
    before, phases = files(tmp_path), Phases()
    final = run(request(tmp_path, "method=lora_r8", "stage=final"), session=session, progress=phases)
    after = files(tmp_path)
    assert phases.seen == ["evaluate test"]
    assert (final.identity, final.split) == (grid.identity, "test")
    assert {path: after[path] for path in before} == before
    new = {path for path in after if path not in before and not path.startswith("cache")}
    assert new == {f"records/{final.file_name}", f"runs/{grid.identity}/predictions-test.jsonl"}
    assert final.metrics["final_loss"] == grid.metrics["final_loss"]
    assert final.provenance["data"].keys() == {"train", "test"}


def test_the_same_run_twice_is_the_same_bit_for_bit(tmp_path: Path, session: Session) -> None:
    records = {name: run(request(tmp_path / name, "method=sft"), session=session) for name in ("once", "again")}
    once, again = records["once"], records["again"]
    assert once.metrics == again.metrics
    folders = {name: Store(tmp_path / name).run_folder(record.identity) for name, record in records.items()}
    for file in ("predictions-validation.jsonl", "adapter/adapter_model.safetensors"):
        assert (folders["once"] / file).read_bytes() == (folders["again"] / file).read_bytes()


def test_methods_leave_the_base_as_they_found_it(tmp_path: Path, session: Session) -> None:
    config = request(tmp_path)
    model = session.base(config).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [name for name, _ in model.named_modules()]
    for method in ("sft", "lora_r8", "post_block_nonlinear"):
        run(request(tmp_path, f"method={method}", "training.max_steps=2"), session=session)
    assert session.base(config).model is model
    assert [name for name, _ in model.named_modules()] == modules
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_released_protocol_runs(tmp_path: Path, session: Session) -> None:
    config = request(tmp_path, "protocol=released", "dataset=boolq", "method=post_block_nonlinear")
    record = run(config, session=session)
    assert record.cell.protocol == "released"
    assert record.metrics["steps"] == 2  # 32 rows in batches of 16
    facts = json.loads((tmp_path / "runs" / record.identity / "adapter" / "facts.json").read_text())
    assert facts["curves"]["lr"] == pytest.approx([0.0, 0.01])  # one step of warmup


def test_a_run_in_other_hands_is_left_alone(tmp_path: Path) -> None:
    config = request(tmp_path)
    claim = Store(tmp_path).lock(identity_of(config, ignore=ignored_keys()))
    assert claim is not None
    with claim, pytest.raises(Busy, match="by another process") as refused:
        run(config, session=NothingLoads())
    message = str(refused.value)
    assert f"process {os.getpid()} on {socket.gethostname()}" in message
    assert "last heartbeat is 0 s old" in message or "last heartbeat is 1 s old" in message
    assert "takes the run over once the heartbeat is older than 120 s" in message


def test_a_finished_run_is_read_though_another_process_holds_it(tmp_path: Path) -> None:
    """As while another scores the test split of the same run."""
    config = request(tmp_path)
    record = run(config)
    claim = Store(tmp_path).lock(record.identity)
    assert claim is not None
    with claim:
        assert run(config, session=NothingLoads()) == record


def test_a_session_loads_another_base_for_another_precision_and_keeps_it_for_the_same(tmp_path: Path) -> None:
    session = Session()
    first = session.base(request(tmp_path))
    assert session.base(request(tmp_path, "lr=0.5", "method=sft")) is first
    second = session.base(request(tmp_path, "training.precision=bfloat16"))
    assert second.model.dtype == torch.bfloat16 != first.model.dtype


class Told(Progress):
    """Hears notes, and tells the process to stop after some steps."""

    def __init__(self, session: Session | None = None, *, after: int = 0) -> None:
        self.notes: list[str] = []
        self._session, self._after = session, after

    def update(self, done: int, total: int, note: str = "") -> None:
        if self._session is not None and done >= self._after:
            self._session.stop.set()

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_resumed_run_says_from_which_step(tmp_path: Path) -> None:
    config = request(tmp_path, "training.max_steps=null", "training.epochs=3")
    first, again = Session(), Told()
    with pytest.raises(Interrupted):
        run(config, session=first, progress=Told(first, after=2))
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint-*")
    run(config, progress=again)
    assert again.notes == [f"the training goes on after step 3, from {checkpoint}"]


def test_a_run_that_begins_again_says_why(tmp_path: Path) -> None:
    config = request(tmp_path, "training.max_steps=null", "training.epochs=3")
    first, again = Session(), Told()
    with pytest.raises(Interrupted):
        run(config, session=first, progress=Told(first, after=2))
    (checkpoint,) = tmp_path.glob("runs/*/checkpoint-*")
    (checkpoint / "optimizer.safetensors").write_bytes(b"torn")
    run(config, progress=again)
    assert again.notes == [
        f"{checkpoint} is damaged, and is left aside: the training begins from what there is before it"
    ]


def test_accuracy_is_the_percentage_of_right_rows(tmp_path: Path, session: Session) -> None:
    record = run(request(tmp_path, "dataset=boolq", "evaluation.scoring=likelihood"), session=session)
    right = sum(each["correct"] for each in predictions(Store(tmp_path), record))
    assert 0 < right == record.metrics["correct"] < record.metrics["rows"]
    assert record.metrics["accuracy"] == pytest.approx(100 * right / record.metrics["rows"])


def test_predictions_carry_the_question(tmp_path: Path, session: Session) -> None:
    record = run(request(tmp_path, "dataset=boolq"), session=session)
    kept = predictions(Store(tmp_path), record)
    assert len({each["prompt"] for each in kept}) > 1
    assert all("question" in each["prompt"].lower() for each in kept)


# --- failure ----------------------------------------------------------------------------------------------------


def write_rows(folder: Path) -> None:
    (folder / "boolq").mkdir()
    difficulty = compose(["dataset=boolq"]).dataset.procedural.difficulty
    for seed, (split, rows) in enumerate((("train", 20), ("validation", 8))):
        rng = random.Random(seed)
        lines = [json.dumps(get_task("boolq").generate(rng, **difficulty)) for _ in range(rows)]
        (folder / "boolq" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def test_a_run_that_fails_says_why_and_can_be_run_again(tmp_path: Path, session: Session) -> None:
    (tmp_path / "data").mkdir()
    config = request(
        tmp_path / "results",
        "dataset=boolq",
        "data.source=local",
        f"data.dir='{tmp_path / 'data'}'",
        "dataset.hub.rows.train=20",
        "dataset.hub.rows.validation=8",
    )
    store, identity = Store(tmp_path / "results"), identity_of(config, ignore=ignored_keys())
    with pytest.raises(ActshiftError, match="there is no folder"):
        run(config, session=session)
    assert store.state(identity, "validation") == "failed"
    note = store.failure(identity, "validation")
    assert note is not None
    assert "Traceback" in note["error"]
    assert "there is no folder" in note["last_line"]

    write_rows(tmp_path / "data")
    record = run(config, session=session)
    assert record.identity == identity
    assert store.state(identity, "validation") == "done"
    assert store.failure(identity, "validation") is None
    assert record.provenance["source"] == "local"


def test_a_diverged_run_is_a_record_that_scores_nothing(tmp_path: Path, session: Session) -> None:
    record = run(request(tmp_path, "method=sft", "lr=1e30"), session=session)
    assert record.metrics["diverged"]
    assert (record.metrics["accuracy"], record.metrics["correct"], record.metrics["final_loss"]) == (0.0, 0, None)
    assert record.metrics["rows"] == 16
    final = run(request(tmp_path, "method=sft", "lr=1e30", "stage=final"), session=session)
    assert final.metrics["diverged"]


# --- trackers ---------------------------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_key")
def test_wandb_mirrors_offline_and_changes_nothing(
    tmp_path: Path, session: Session, done: tuple[Store, Record], caplog: pytest.LogCaptureFixture
) -> None:
    record = run(request(tmp_path / "results", "method=post_block", "seed=1", "logger=wandb"), session=session)
    assert (record.identity, record.metrics) == (done[1].identity, done[1].metrics)
    assert warnings_of(caplog) == []
    (mirror,) = (tmp_path / "results" / "runs" / record.identity).glob("wandb/offline-run-*/*.wandb")
    assert mirror.stat().st_size > 0


@pytest.mark.usefixtures("no_key")
def test_a_tracker_that_fails_does_not_stop_the_run(
    tmp_path: Path, session: Session, done: tuple[Store, Record], caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ("method=post_block", "seed=1", "logger=wandb", "logger.project='no/such/name'")
    record = run(request(tmp_path / "results", *overrides), session=session)
    assert record.metrics == done[1].metrics
    assert [warning.split(":")[0] for warning in warnings_of(caplog)] == ["the tracker failed and is off for this run"]


def test_a_tf32_run_is_another_run_and_its_record_says_what_was_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, "dataset=boolq", "model=random-llama", "hardware.device=cpu", f"results={tmp_path}"]
    session = Session()
    plain = run(compose(overrides), session=session)
    rounded = run(compose([*overrides, "training.precision=tf32"]), session=session)
    assert plain.identity != rounded.identity
    assert rounded.config["training"]["precision"] == "tf32"
    assert rounded.provenance["precision"] == "float32"
    assert rounded.metrics["loss_curve"] == plain.metrics["loss_curve"]
    assert capsys.readouterr().err.count("training.precision=tf32 is float32 on this cpu device") == 1
