"""Adapters that runs leave: listed, evaluated elsewhere without becoming a record, taken over or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.runtime.evaluate import evaluate
from actshift.runtime.run import run
from actshift.runtime.session import Session
from actshift.schema.config import Config
from actshift.store.adapter_card import ADAPTER_CARD, TENSORS, compose_request, read_adapter_card
from actshift.store.records import Record, read_records
from actshift.store.store import Store

SMALL = ("debug=few_steps", "hardware.threads=1")
FEW = ("data.limit.test=16", "hardware.threads=1")


class NoModel(Session):
    """A session in which whoever asks for a model fails."""

    def base(self, config: Config) -> Base:
        raise AssertionError("a model was loaded")


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, session: Session) -> tuple[Store, Record]:
    """A results folder with a trained adapter and its final record: rank and precision are not the method's own."""
    results = tmp_path_factory.mktemp("results")
    overrides = [*SMALL, "dataset=boolq", "method=lora_r8", "method.rank=4", "training.precision=bfloat16"]
    # Long enough for some right answers, short enough for some wrong ones.
    overrides += ["data.limit.train=64", "training.max_steps=24", f"results='{results}'"]
    run(compose(overrides), session=session)
    return Store(results), run(compose([*overrides, "stage=final"]), session=session)


@pytest.fixture
def folder(trained: tuple[Store, Record]) -> Path:
    store, record = trained
    return store.run_folder(record.identity) / "adapter"


def asked(store: Store, folder: Path, *overrides: str) -> Config:
    return compose_request([*FEW, "stage=evaluate", f"adapter='{folder}'", f"results='{store.root}'", *overrides])


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_an_evaluation_on_its_own_data_is_the_final_score(
    trained: tuple[Store, Record], folder: Path, session: Session
) -> None:
    store, record = trained
    found = evaluate(asked(store, folder), session=session)
    assert (found.dataset, found.split) == ("boolq", "test")
    assert found.metrics == {name: record.metrics[name] for name in ("accuracy", "rows", "correct")}
    assert found.provenance["data"]["test"] == record.provenance["data"]["test"]
    runs = store.run_folder(record.identity)
    assert lines(runs / f"predictions-{found.evaluation}.jsonl") == lines(runs / "predictions-test.jsonl")


def test_an_evaluation_is_no_record(trained: tuple[Store, Record], folder: Path, session: Session) -> None:
    store, record = trained
    found = evaluate(asked(store, folder, "dataset=listops"), session=session)
    assert found.metrics["rows"] == 16
    assert (found.adapter["identity"], found.adapter["dataset"]) == (record.identity, "boolq")
    assert found.file_name == f"{record.identity}.listops.test.{found.evaluation}.json"
    assert {one.cell.dataset for one in read_records(store.root / "records")} == {"boolq"}
    assert len(read_records(store.root / "records")) == 2
    # Moved among the records, it is refused.
    moved = store.root.parent / "moved"
    moved.mkdir()
    shutil.copy(store.root / "evaluations" / found.file_name, moved)
    with pytest.raises(ActshiftError, match="is not a record's file"):
        read_records(moved)


def test_an_evaluation_that_exists_is_read(trained: tuple[Store, Record], folder: Path, session: Session) -> None:
    store, _ = trained
    first = evaluate(asked(store, folder, "dataset=listops"), session=session)
    again = evaluate(asked(store, folder, "dataset=listops", "data.limit.train=9", "lr=3"), session=NoModel())
    assert again == first
    with pytest.raises(AssertionError, match="a model was loaded"):  # other rows: another evaluation
        evaluate(asked(store, folder, "dataset=listops", "data.limit.test=15"), session=NoModel())


def test_the_request_takes_model_method_and_precision_from_the_adapter(
    trained: tuple[Store, Record], folder: Path
) -> None:
    store, _ = trained
    config = asked(store, folder)
    assert (config.method.name, config.method.rank) == ("lora_r8", 4)
    assert (config.model.name, config.training.precision) == ("tiny", "bfloat16")
    assert (config.dataset.name, config.protocol.name) == ("boolq", "paper")
    released = compose(["dataset=boolq", "protocol=released"]).data.splits.test
    assert asked(store, folder, "protocol=released").data.splits.test == released != config.data.splits.test
    assert compose_request(["method=sft"]) == compose(["method=sft"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=sft"], r"by another method .*method\.kind"),
        (["method.rank=5"], r"method\.rank: 4 -> 5"),
        (["model=random-llama"], r'over another base model .*model\.name: "tiny" -> "random-llama"'),
        (["model.revision='2'"], r'model\.revision: "1" -> "2"'),
    ],
)
def test_a_request_for_another_model_or_method_is_refused_before_anything_is_loaded(
    trained: tuple[Store, Record], folder: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ActshiftError, match=message):
        evaluate(asked(trained[0], folder, *overrides), session=NoModel())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stage=evaluate"], "adapter = null is impossible"),
        (["adapter=here"], "adapter = here is impossible"),
        (["stage=evaluate", "adapter=here"], "there is no adapter folder here"),
        (["stage=evaluat"], "Did you mean 'evaluate'"),
    ],
)
def test_half_a_request_is_refused(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run", *overrides, f"results={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_lists_and_evaluates(
    trained: tuple[Store, Record],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, record = trained
    monkeypatch.chdir(tmp_path)
    assert main(["adapters", f"results={store.root}"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if record.identity in line)
    assert all(text in line for text in ("tiny", "lora_r8", "boolq (procedural)", "paper", "0.01", "42", "40,960"))
    assert main(["run", *FEW, "stage=evaluate", f"adapter={folder}", f"results={store.root}", "dataset=listops"]) == 0
    printed = capsys.readouterr().out
    assert f"adapter {record.identity} (tiny / lora_r8, trained on boolq, procedural, paper)" in printed
    assert "on the test split of listops (procedural, paper): accuracy" in printed
    assert "An evaluation is no record: no table shows it." in printed
    assert main(["adapters"]) == 0
    assert capsys.readouterr().out.startswith("no adapters in ")


def test_an_adapter_moved_elsewhere_is_the_same(
    trained: tuple[Store, Record], folder: Path, session: Session, tmp_path: Path
) -> None:
    store, _ = trained
    here = evaluate(asked(store, folder), session=session)
    moved = shutil.copytree(folder, tmp_path / "mine")
    there = evaluate(asked(Store(tmp_path / "other"), moved), session=session)
    assert (there.evaluation, there.metrics) == (here.evaluation, here.metrics)


# --- what a run makes of the adapter that it finds -------------------------------------------------------------------


def small(results: Path, *overrides: str) -> Config:
    return compose([*SMALL, "method=post_block", "training.max_steps=1", *overrides, f"results='{results}'"])


def test_the_final_stage_refuses_an_altered_adapter(tmp_path: Path, session: Session) -> None:
    record = run(small(tmp_path), session=session)
    tensors = tmp_path / "runs" / record.identity / "adapter" / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-8] + bytes(range(8)))
    with pytest.raises(ActshiftError, match="torn or altered"):
        run(small(tmp_path, "stage=final"), session=session)


def test_an_adapter_that_another_run_left_is_refused(tmp_path: Path, session: Session) -> None:
    first = run(small(tmp_path), session=session)
    second = run(small(tmp_path, "seed=1"), session=session)
    for record in (first, second):
        assert read_adapter_card(tmp_path / "runs" / record.identity / "adapter").identity == record.identity
    shutil.rmtree(tmp_path / "runs" / first.identity / "adapter")
    shutil.copytree(tmp_path / "runs" / second.identity / "adapter", tmp_path / "runs" / first.identity / "adapter")
    with pytest.raises(ActshiftError, match=f"belongs to run {second.identity}, not {first.identity}"):
        run(small(tmp_path, "stage=final"), session=session)


def test_a_folder_without_a_description_is_trained_anew(tmp_path: Path, session: Session) -> None:
    record = run(small(tmp_path), session=session)
    (tmp_path / "runs" / record.identity / "adapter" / ADAPTER_CARD).unlink()
    final = run(small(tmp_path, "stage=final"), session=session)
    assert final.metrics["final_loss"] == record.metrics["final_loss"]
    assert (tmp_path / "runs" / record.identity / "adapter" / ADAPTER_CARD).exists()


def test_a_run_that_its_last_step_ruined_has_diverged(tmp_path: Path, session: Session) -> None:
    # The loss is looked at before the step, and there is one step.
    record = run(small(tmp_path, "lr=1e39"), session=session)
    assert (record.metrics["diverged"], record.metrics["steps"], record.metrics["final_loss"]) == (True, 1, None)
    folder = tmp_path / "runs" / record.identity / "adapter"
    curves = json.loads((folder / "facts.json").read_text())["curves"]
    assert (curves["diverged_at"], len(curves["loss"])) == (None, 1)
    assert run(small(tmp_path, "lr=1e39", "stage=final"), session=session).metrics["diverged"]
    with pytest.raises(ActshiftError, match="diverged: there is nothing to evaluate"):
        evaluate(asked(Store(tmp_path), folder), session=NoModel())


def test_run_itself_makes_records_alone(folder: Path, trained: tuple[Store, Record]) -> None:
    with pytest.raises(ActshiftError, match="an adapter that exists is no run"):
        run(asked(trained[0], folder), session=NoModel())
