"""What `actshift show` and `actshift lengths` say is what a run would do."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from actshift import lengths
from actshift.cli import main
from actshift.composition import compose, groups
from actshift.errors import ActshiftError
from actshift.models.loading import load_tokenizer
from actshift.show import Shown, shown
from actshift.tasks.splits import load_split
from actshift.train import training_examples

DATASETS = [name for name in groups()["dataset"] if name != "winogrande_xl"]
SMALL = ["data.limit.train=60", "data.limit.validation=10"]


def row_of(*overrides: str, row: int = 3, split: str = "train") -> Shown:
    return shown(compose(overrides), split=split, row=row)


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_shown_row_is_the_one_that_is_trained(dataset: str, protocol: str) -> None:
    overrides = [f"dataset={dataset}", f"protocol={protocol}"]
    config = compose(overrides)
    tokenizer, split = load_tokenizer(config["model"]), load_split(config, "train")
    example = training_examples(split, config=config, tokenizer=tokenizer, cache=None)[3]
    found = row_of(*overrides)
    assert ([token for token, _ in found.tokens], found.prompt_length) == (example.ids, example.prompt_length)
    assert "right" in found.score or dataset == "alpaca_cleaned"
    assert found.label == example.label
    assert tokenizer.decode(example.ids[found.prompt_length :], skip_special_tokens=True) == found.answer


def test_scopes_are_marked_where_they_act() -> None:
    found = row_of(
        "dataset=gsm8k", "method=reft", "method.scope.kind=first_last", "method.scope.first=2", "method.scope.last=3"
    )
    n = found.prompt_length
    assert found.scopes["all"] == set(range(len(found.tokens)))
    assert found.scopes["prompt"] == set(range(n))
    assert found.scopes["last_prompt"] == {n - 1}
    assert found.scopes["first_last"] == {0, 1, n - 3, n - 2, n - 1}


def test_what_a_limit_does_is_said() -> None:
    cut = row_of("dataset=gsm8k", "training.max_tokens=20", "training.overlong=cut")
    assert len(cut.tokens) == 20 and "cut to 20 from the right" in cut.note
    assert "left out of training" in row_of("dataset=gsm8k", "training.max_tokens=20", "training.overlong=drop").note
    assert "no limit" in row_of("dataset=gsm8k").note


def test_the_command_prints_it_and_refuses_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dataset=boolq", "row=1", "split=validation", "method=reft"]) == 0
    text = capsys.readouterr().out
    assert "trained" in text and "last*" in text and "validation split, row 1" in text
    for wrong, said in (("row=10000000", "0 to"), ("row=x", "give a row's number"), ("split=tests", "'test'")):
        assert main(["show", "dataset=boolq", wrong]) == 2
        assert said in capsys.readouterr().err


def test_lengths_count_what_each_protocol_does(tmp_path: Path) -> None:
    changes = ["training.max_tokens=59", *SMALL]
    configs = [compose(["dataset=gsm8k", f"protocol={name}", *changes]) for name in ("paper", "released")]
    rows = {(row.protocol, row.split): row for row in lengths.lengths(configs)}
    paper, released = rows["paper", "train"], rows["released", "train"]
    assert (paper.rows, released.rows) == (60, 60)
    assert paper.dropped > 0 and paper.cut == paper.lost == 0
    assert released.cut > 0 and released.dropped == 0
    for config, row in zip(configs, (paper, released), strict=True):
        whole = {**config, "training": {**config["training"], "max_tokens": None}}
        tokenizer, split = load_tokenizer(config["model"]), load_split(config, "train")
        counts = sorted(training_examples(split, config=whole, tokenizer=tokenizer, cache=None).lengths.tolist())
        assert (row.median, row.longest) == (counts[29], counts[-1])
        assert row.dropped + row.cut == sum(count > 59 for count in counts)
    assert rows["paper", "test"].limit is None, "evaluation has no limit"


def test_lengths_as_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "lengths.csv", tmp_path / "lengths.md"]
    request = [
        "lengths",
        "dataset=boolq",
        "protocol=paper",
        *SMALL,
        "--csv",
        str(files[0]),
        "--markdown",
        str(files[1]),
    ]
    assert main(request) == 0
    (train, *_) = csv.DictReader(io.StringIO(files[0].read_text()))
    assert (train["dataset"], train["split"], train["rows"]) == ("boolq", "train", "60")
    assert f"| boolq | paper | train | 60 | {train['median']} |" in files[1].read_text()


def test_a_split_that_a_data_set_lacks_is_named() -> None:
    with pytest.raises(ActshiftError, match="test"):
        row_of("dataset=alpaca_cleaned", split="test")
