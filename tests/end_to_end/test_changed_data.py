"""Local data that changed after a result was made: nothing old is taken for a result of the new rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.data.splits import load_split
from actshift.errors import ActshiftError
from actshift.runtime.evaluate import evaluate
from actshift.runtime.run import run
from actshift.runtime.session import Interrupted, Session
from actshift.schema.config import Config

WORDS = {0: ("dull", "poor", "flat", "weak"), 1: ("warm", "bright", "fine", "sharp")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a data set of film reviews, `sst2` in the columns of the hub."""
    folder = tmp_path / "data"
    write_reviews(folder, "train", rows=30)
    write_reviews(folder, "validation", rows=8)
    return folder


def write_reviews(folder: Path, split: str, *, rows: int, flip: bool = False) -> None:
    (folder / "sst2").mkdir(parents=True, exist_ok=True)
    lines = []
    for row in range(rows):
        label = row % 2
        sentence = f"{split} {row}: a {WORDS[label][row // 2 % 4]} film"
        lines.append(json.dumps({"sentence": sentence, "label": 1 - label if flip else label}))
    (folder / "sst2" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def words(tmp_path: Path, folder: Path) -> list[str]:
    return [
        "model=tiny",
        "method=post_block_vector",
        "dataset=sst2",
        "data.source=local",
        f"data.dir='{folder}'",
        "dataset.hub.rows={train: 30, validation: 8}",
        "training.validations=0",
        "data.limit.train=8",
        f"results='{tmp_path / 'results'}'",
    ]


def request(tmp_path: Path, folder: Path, *overrides: str) -> Config:
    return compose([*words(tmp_path, folder), *overrides])


def test_an_old_record_is_not_the_score_of_new_rows(tmp_path: Path, data: Path) -> None:
    config = request(tmp_path, data)
    old = run(config)
    assert run(request(tmp_path, data), session=Session()) == old
    write_reviews(data, "train", rows=30, flip=True)
    with pytest.raises(ActshiftError) as caught:
        run(request(tmp_path, data), session=Session())
    new = load_split(config, "train").fingerprint
    kept = old.provenance["data"]["train"]
    assert kept != new
    for part in (kept, new, "data.dir", "results="):
        assert part in str(caught.value)
    # The way out: a results folder for the new rows.
    assert run(compose([*words(tmp_path / "new", data)])).provenance["data"]["train"] == new


def test_a_record_is_read_where_its_data_no_longer_are(tmp_path: Path, data: Path) -> None:
    old = run(request(tmp_path, data))
    for file in (data / "sst2").iterdir():
        file.unlink()
    assert run(request(tmp_path, data), session=Session()) == old


def test_an_adapter_is_not_scored_as_one_of_new_rows(tmp_path: Path, data: Path) -> None:
    run(request(tmp_path, data))
    write_reviews(data, "train", rows=30, flip=True)
    with pytest.raises(ActshiftError, match=r"the adapter in .* other train rows"):
        run(request(tmp_path, data, "stage=final"), session=Session())


def test_an_evaluation_is_not_that_of_new_test_rows(tmp_path: Path, data: Path) -> None:
    record = run(request(tmp_path, data))
    adapter = tmp_path / "results" / "runs" / record.identity / "adapter"
    scored = ["stage=evaluate", f"adapter='{adapter}'"]
    first = evaluate(request(tmp_path, data, *scored))
    assert evaluate(request(tmp_path, data, *scored), session=Session()) == first
    write_reviews(data, "validation", rows=8, flip=True)
    with pytest.raises(ActshiftError, match=r"the evaluation .* other test rows"):
        evaluate(request(tmp_path, data, *scored), session=Session())


class StopsAfterTwoSteps:
    """A `stop` event that is set once a training has asked for it five times: after its second step or so."""

    def __init__(self) -> None:
        self.asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > 4


def test_a_checkpoint_of_other_rows_is_not_continued(tmp_path: Path, data: Path) -> None:
    epochs = ["training.epochs=4", "training.batch_size=4"]
    with pytest.raises(Interrupted):
        run(request(tmp_path, data, *epochs), session=Session(stop=StopsAfterTwoSteps()))  # type: ignore[arg-type]
    assert list((tmp_path / "results").glob("runs/*/checkpoint-*"))
    write_reviews(data, "train", rows=30, flip=True)
    with pytest.raises(ActshiftError, match=r"checkpoint-.* trained on rows with the fingerprint"):
        run(request(tmp_path, data, *epochs), session=Session())
    write_reviews(data, "train", rows=30)
    assert run(request(tmp_path, data, *epochs), session=Session()).metrics["steps"] == 8


def test_a_sweep_over_changed_rows_is_refused_before_anything_trains(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ["sweep.name=mine", "sweep.models=[tiny]", "sweep.methods=[sft]", "sweep.datasets=[sst2]", "sweep.seeds=[1]"]
    shared = [word for word in words(tmp_path, data) if not word.startswith(("model=", "method=", "dataset=sst2"))]
    command = ["sweep", "smoke", *axes, *shared, "data.limit.validation=4", "data.limit.test=4"]
    assert main(command) == 0
    before = sorted((tmp_path / "results" / "runs").iterdir())
    write_reviews(data, "train", rows=30, flip=True)
    more = [word.replace("seeds=[1]", "seeds=[1,2]") for word in command]
    assert main([*more, "--replan"]) == 2
    assert "made from other train rows of sst2" in capsys.readouterr().err
    assert sorted((tmp_path / "results" / "runs").iterdir()) == before
