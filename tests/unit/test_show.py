"""What `actshift show` and `actshift lengths` say is what a run would do."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import dataset_configs
import pytest
from tokenizers_alike import build

from actshift.cli import main
from actshift.commands import lengths
from actshift.commands.show import Shown, shown
from actshift.config.composition import compose
from actshift.data.splits import load_split
from actshift.errors import ActshiftError
from actshift.models.loading import load_tokenizer
from actshift.runtime.train import training_examples

DATASETS = [name for name in dataset_configs.DATASETS if name != "winogrande_xl"]
SMALL = ["data.limit.train=60", "data.limit.validation=10"]


def row_of(*overrides: str, row: int = 3, split: str = "train") -> Shown:
    return shown(compose(overrides), split=split, row=row)


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_shown_row_is_the_one_that_is_trained(dataset: str, protocol: str) -> None:
    overrides = [f"dataset={dataset}", f"protocol={protocol}"]
    config = compose(overrides)
    tokenizer, split = load_tokenizer(config.model), load_split(config, "train")
    example = training_examples(split, config=config, tokenizer=tokenizer, cache=None)[3]
    found = row_of(*overrides)
    assert ([token for token, _ in found.tokens], found.prompt_length) == (example.ids, example.prompt_length)
    assert "right" in found.score or "alpaca" in dataset
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


def test_a_row_that_is_only_asked_is_whole_and_not_trained() -> None:
    found = row_of("dataset=gsm8k", "training.max_tokens=20", "training.overlong=cut", split="test")
    assert (found.mark, found.note) == ("gold", f"{len(found.tokens)} tokens") and len(found.tokens) > 20
    assert f"prompted with the {found.prompt_length} tokens of the prompt; at most 100 new ones" in found.prompting
    assert "ended by '<|end|>'" in found.prompting
    assert row_of("dataset=gsm8k").mark == "trained"
    assert row_of("dataset=gsm8k", "training.max_tokens=20", "training.overlong=drop").mark == "left out"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=sft"], "sft changes weights"),
        (["method=joint"], "joint acts at post_block of every layer, scope all, beside weights"),
        (["method=reft", "method.layers=[0,2]"], "reft acts at post_mlp of layers 0, 2, scope last_prompt"),
    ],
)
def test_where_the_method_acts_is_said(overrides: list[str], said: str) -> None:
    assert row_of("dataset=listops", *overrides).acts.startswith(said)


def test_the_command_prints_it_and_refuses_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "dataset=boolq", "row=1", "split=validation", "method=reft"]) == 0
    text = capsys.readouterr().out
    assert "gold" in text and "last*" in text and "validation split, row 1" in text
    for wrong, said in (("row=10000000", "0 to"), ("row=x", "give a row's number"), ("split=tests", "'test'")):
        assert main(["show", "dataset=boolq", wrong]) == 2
        assert said in capsys.readouterr().err


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    rows = [{"question": f"What are {n} and {n}?", "answer": f"They are {2 * n}.\n#### {2 * n}"} for n in range(20)]
    (tmp_path / "gsm8k").mkdir()
    for name, part in (("train", rows[:12]), ("test", rows[9:])):
        (tmp_path / "gsm8k" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    local = ["dataset=gsm8k", "protocol=released", "data.source=local", f"data.dir={tmp_path}"]
    local += ["dataset.hub.rows.train=12", "dataset.hub.rows.test=11"]
    assert "row 3 of 9 (the first is 0), 3 rows left out" in row_of(*local, "data.overlap=drop").title
    assert "left out" not in row_of(*local, "data.overlap=count").title


def test_lengths_count_what_each_protocol_does(tmp_path: Path) -> None:
    changes = ["training.max_tokens=59", *SMALL]
    configs = [compose(["dataset=gsm8k", f"protocol={name}", *changes]) for name in ("paper", "released")]
    rows = {(row.protocol, row.split): row for row in lengths.lengths(configs)}
    paper, released = rows["paper", "train"], rows["released", "train"]
    assert (paper.rows, released.rows) == (60, 60)
    assert paper.dropped > 0 and paper.cut == paper.lost == 0
    assert released.cut > 0 and released.dropped == 0
    for config, row in zip(configs, (paper, released), strict=True):
        whole = replace(config, training=replace(config.training, max_tokens=None))
        tokenizer, split = load_tokenizer(config.model), load_split(config, "train")
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


def test_splits_that_a_folder_lacks_are_named_and_the_others_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"is {number} a number", "answer": True, "passage": "x"} for number in range(4)]
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq" / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    local = ["data.source=local", f"data.dir={tmp_path}", "dataset.hub.rows.validation=4"]
    assert (
        main(["lengths", "dataset=boolq,winogrande", "protocol=paper", *local, "--csv", str(tmp_path / "out.csv")]) == 0
    )
    said = capsys.readouterr().out
    assert "boolq, paper: no train split in" in said and said.count("winogrande, paper: no ") == 3
    (test,) = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    assert (test["split"], test["rows"], test["limit"]) == ("test", "4", "")


def test_another_tokenizer_counts_other_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(["dataset=boolq", *SMALL])
    bytewise = build("llama")
    bytewise.save_pretrained(tmp_path)
    (train, *_) = lengths.lengths([config], tokenizer=lengths.tokenizer_in(str(tmp_path)))
    (tiny, *_) = lengths.lengths([config])
    assert train.rows == tiny.rows and train.longest > 2 * tiny.longest
    for wrong in (tmp_path / "nowhere", tmp_path.parent):
        assert main(["lengths", "dataset=boolq", "--tokenizer", str(wrong)]) == 2
        assert f"--tokenizer={wrong} cannot be opened" in capsys.readouterr().err


def test_instruction_tuning_is_tested_on_ifeval_s_prompts() -> None:
    found = row_of("dataset=alpaca_cleaned", split="test")
    assert "detectable_format" in found.label and found.answer == ""


def test_a_split_that_a_data_set_lacks_is_named() -> None:
    with pytest.raises(ActshiftError, match="dev"):
        row_of("dataset=boolq", split="dev")
