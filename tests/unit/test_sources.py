"""Rows of every source: what is there, what is counted, and what an error says."""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dataset_configs import ALL_DATASETS, DATASETS, SCORED, dataset_config, task_of

from actshift.cli import main
from actshift.data.sources import hub_split, partial_splits
from actshift.errors import ActshiftError
from actshift.schema.config import Config
from actshift.schema.data import DataConfig
from actshift.tasks import TASKS, get_task

ROWS = [{"question": f"is {number} odd", "answer": bool(number % 2), "passage": "Numbers."} for number in range(6)]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **keywords: Any) -> None:
        raise AssertionError(f"a network connection was attempted: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def boolq(tmp_path: Path, *, rows: list[Any] | None = None, name: str = "train.jsonl") -> dict[str, Any]:
    """A BoolQ config whose folder holds one file of rows, and which expects that many."""
    folder = tmp_path / "boolq"
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in (ROWS if rows is None else rows))
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    config = dataset_config("boolq")
    config.hub.rows = {"train": len(ROWS)}
    return config


def local(config: dict[str, Any], tmp_path: Path, split: str = "train") -> list[dict[str, Any]]:
    return hub_split(config, split, source="local", directory=str(tmp_path)).to_list()


# --- registry ---------------------------------------------------------------------------------------------------


def test_every_dataset_config_names_a_task() -> None:
    assert {dataset_config(name).task for name in ALL_DATASETS} == {*TASKS, "templated"}
    assert all(get_task(name).name == name for name in TASKS)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ActshiftError, match=r"unknown task 'list_ops'. Did you mean 'listops'\?"):
        get_task("list_ops")


# --- procedural -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_procedural_splits_have_their_rows_and_share_none(name: str, no_network: None) -> None:
    config = dataset_config(name)
    task = get_task(config.task)
    counts = config.procedural.rows
    prompts = []
    for split, count in counts.items():
        rows = hub_split(config, split, source="procedural", directory=None).to_list()
        assert len(rows) == count
        assert set(task.columns) <= set(rows[0])
        prompts += [task.prompt(row) for row in rows]
    assert len(set(prompts)) == len(prompts) == sum(counts.values())


def test_procedural_rows_are_a_function_of_the_config() -> None:
    config = dataset_config("boolq")
    first = hub_split(config, "train", source="procedural", directory=None).to_list()
    assert hub_split(config, "train", source="procedural", directory=None).to_list() == first
    reordered = replace(config.procedural, rows=dict(reversed(config.procedural.rows.items())))
    assert (
        hub_split(replace(config, procedural=reordered), "train", source="procedural", directory=None)[:]
        == (hub_split(config, "train", source="procedural", directory=None)[:])
    )
    config.procedural.seed = 1
    assert hub_split(config, "train", source="procedural", directory=None).to_list() != first


@pytest.mark.parametrize("name", SCORED)
def test_procedural_labels_are_balanced(name: str) -> None:
    config = dataset_config(name)
    task = task_of(name)
    rows = hub_split(config, "train", source="procedural", directory=None).to_list()
    shares = [count / len(rows) for _, count in Counter(map(task.label, rows)).most_common()]
    # GSM8K's results are 1 to 18 and not even: the commonest is one in eight.
    shares_of = {"boolq": 1 / 2, "winogrande": 1 / 2, "arc_challenge": 1 / 4, "listops": 1 / 10}
    even = (shares_of | {"gsm8k": 1 / 8, "aqua": 1 / 3})[task.name]
    assert shares[0] < 1.25 * even, "always giving the commonest answer must score near chance"
    assert name == "gsm8k" or shares[-1] > 0.75 * even


def test_a_difficulty_with_too_few_rows_is_refused() -> None:
    config = dataset_config("listops")
    config.procedural.difficulty = {"max_depth": 2, "max_args": 2, "min_length": 4, "max_length": 4}
    asked = config.procedural.rows["train"] = 500
    with pytest.raises(
        ActshiftError, match=rf"about 400 distinct rows, but {asked} are asked for.*dataset\.procedural"
    ):
        hub_split(config, "train", source="procedural", directory=None)


@pytest.mark.parametrize(
    ("name", "difficulty", "message"),
    [
        ("boolq", {"facts": 17, "traps": 0}, "dataset.procedural.difficulty.*impossible for boolq"),
        ("boolq", {"facts": 0, "traps": 0}, "dataset.procedural.difficulty.*impossible for boolq"),
        ("boolq", {"fact": 3, "traps": 0}, "unknown difficulty of boolq 'fact'. Did you mean 'facts'?"),
        ("boolq", {"facts": 2}, "difficulty of boolq lacks traps"),
        ("boolq", {}, "difficulty of boolq lacks facts, traps"),
        ("winogrande", {"traps": 1}, "unknown difficulty of winogrande 'traps'.*Allowed: none"),
        ("arc_challenge", {"choices": 8}, "impossible for arc_challenge"),
        ("listops", {"max_depth": 2, "max_args": 2, "min_length": 5, "max_length": 6}, "no list expression fits"),
    ],
)
def test_an_impossible_difficulty_is_refused(name: str, difficulty: dict[str, int], message: str) -> None:
    config = dataset_config(name)
    config.procedural.difficulty = difficulty
    with pytest.raises(ActshiftError, match=message.replace("?", r"\?")):
        hub_split(config, "train", source="procedural", directory=None)


def test_unknown_sources_and_splits_are_refused() -> None:
    config = dataset_config("boolq")
    with pytest.raises(ActshiftError, match=r"unknown procedural split of boolq 'test'.*train, validation"):
        hub_split(config, "test", source="procedural", directory=None)
    with pytest.raises(ActshiftError, match=r"unknown data source 'procedual'. Did you mean 'procedural'\?"):
        hub_split(config, "train", source="procedual", directory=None)
    config.procedural.rows["validation"] = 0
    with pytest.raises(ActshiftError, match=r"dataset\.procedural\.rows must be 1 or more.*validation"):
        hub_split(config, "train", source="procedural", directory=None)


# --- local ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_local_rows_come_back_as_they_are(tmp_path: Path, name: str, no_network: None) -> None:
    rows = [*ROWS[:-1], {"question": "naïve — 数?", "answer": True, "passage": "line\nbreak \u2028 and tab\t"}]
    assert local(boolq(tmp_path, rows=rows, name=name), tmp_path) == rows


def test_a_missing_file_says_what_is_there(tmp_path: Path) -> None:
    config = boolq(tmp_path)
    with pytest.raises(
        ActshiftError, match=r"no split 'test' in .*looked for test\.jsonl and test\.jsonl\.gz, found tr"
    ):
        local(config, tmp_path, "test")
    with pytest.raises(ActshiftError, match=r"there is no folder .*nowhere.*data\.dir"):
        local(config, tmp_path / "nowhere")
    config.local.folder = "bolq"
    with pytest.raises(ActshiftError, match=r"there is no folder .*bolq.*dataset\.local\.folder"):
        local(config, tmp_path)
    with pytest.raises(ActshiftError, match=r"set data\.dir"):
        hub_split(config, "train", source="local", directory=None)


def test_the_local_folder_can_be_another(tmp_path: Path) -> None:
    config = boolq(tmp_path)
    (tmp_path / "boolq").rename(tmp_path / "passages")
    config.local.folder = "passages"
    assert local(config, tmp_path) == ROWS


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS[:5], {"question": "q", "answer": True}], r"line 6: no column passage; there is question, answer"),
        ([*ROWS[:5], {**ROWS[5], "passage": None}], r"line 6: no value of passage: null"),
        ([*ROWS[:5], [1]], "line 6: a row is a JSON object, got list"),
        ([*ROWS[:5], {**ROWS[5], "answer": "yes"}], "line 6: answer must be true or false"),
        (ROWS[:5], r"has 5 rows, but 6 are expected.*set dataset\.hub\.rows\.train=5"),
        ([], "holds no rows"),
    ],
)
def test_a_file_that_is_not_the_data_set_is_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        local(boolq(tmp_path, rows=rows), tmp_path)


def test_a_column_of_several_types_is_refused_with_its_rows(tmp_path: Path) -> None:
    """As may be where a data set is a YAML with texts, which says nothing of types."""
    (tmp_path / "sst2").mkdir()
    rows = [{"sentence": text, "label": 0} for text in ("good", "bad", 5)]
    (tmp_path / "sst2" / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(ActshiftError, match=r"the column 'sentence' holds text \(row 1\) and numbers \(row 3\)"):
        hub_split(dataset_config("sst2"), "train", source="local", directory=str(tmp_path), labelled=False)


def test_a_damaged_file_is_refused_by_name_and_line(tmp_path: Path) -> None:
    config = boolq(tmp_path)
    path = tmp_path / "boolq" / "train.jsonl"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(ActshiftError, match=r"train\.jsonl, line 6: not JSON"):
        local(config, tmp_path)
    path.unlink()
    config = boolq(tmp_path, name="train.jsonl.gz")
    path = tmp_path / "boolq" / "train.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ActshiftError, match=r"train\.jsonl\.gz cannot be read"):
        local(config, tmp_path)


def test_another_folder_needs_no_count(tmp_path: Path) -> None:
    config = boolq(tmp_path, name="my_own_part.jsonl", rows=ROWS[:3])
    assert local(config, tmp_path, "my_own_part") == ROWS[:3]


COUNTS = {
    "boolq": {"train": 9427, "validation": 3270},
    "winogrande": {"train": 9248, "validation": 1267, "test": 1767},
    "winogrande_xl": {"train": 40398, "validation": 1267},
    "arc_challenge": {"train": 1119, "validation": 299, "test": 1172},
    "gsm8k": {"train": 7473, "test": 1319},
    "aqua": {"train": 2728, "validation": 254, "test": 254},
    "alpaca_cleaned": {"train": 5000},
}
"""Rows of the real files, two of which hold a part of the hub's train split."""
PARTIAL = {"aqua": ["train"], "alpaca_cleaned": ["train"]}


@pytest.mark.parametrize("name", list(COUNTS))
def test_real_files_have_their_rows(name: str, shared: Path, no_network: None) -> None:
    config = dataset_config(name)
    for split, count in COUNTS[name].items():
        labelled = (name, split) != ("winogrande", "test")
        rows = hub_split(config, split, source="local", directory=str(shared / "data"), labelled=labelled)
        assert len(rows) == count
    whole = {split: count for split, count in COUNTS[name].items() if split not in PARTIAL.get(name, ())}
    asserted = {split: count for split, count in config.hub.rows.items() if split in whole}
    assert asserted == {split: count for split, count in whole.items() if (name, split) != ("winogrande", "test")}


@pytest.mark.parametrize("name", DATASETS)
def test_a_part_of_a_split_is_told_from_the_whole(name: str) -> None:
    config = Config(dataset=dataset_config(name), data=DataConfig("local"))
    assert partial_splits(config) == PARTIAL.get(name, [])
    for source in ("hub", "procedural"):
        assert partial_splits(replace(config, data=DataConfig(source))) == []


def test_a_part_of_a_split_has_a_row_count_of_its_own(tmp_path: Path) -> None:
    config = boolq(tmp_path, name="train_part.jsonl")
    config.hub.rows = {"train": 9427}
    config.local = replace(config.local, files={"train": "train_part"}, rows={"train": len(ROWS)})
    assert local(config, tmp_path) == ROWS
    config.local.rows = {"train": 5}
    with pytest.raises(ActshiftError, match=r"has 6 rows, but 5 are expected"):
        local(config, tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_the_hub_s_revision_is_a_commit_or_openly_none(name: str) -> None:
    revision = dataset_config(name).hub.revision
    assert (revision is None) is (name in ("listops", "code_alpaca"))
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}", revision)
    assert dataset_config(name).hub.rows, "what is not pinned is at least counted"


def test_a_sweep_over_local_data_is_planned_without_their_folder_and_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [f"results={tmp_path}", "sweep.methods=[post_block]", "sweep.reference=post_block"]
    assert main(["plan", "real_paper", *own]) == 0
    assert main(["plan", "real_paper", *own, f"data.dir={tmp_path}"]) == 0, "the folder is no part of the plan"
    assert main(["status", "real_paper", f"results={tmp_path}"]) == 0
    assert main(["sweep", "real_paper", *own]) == 2
    assert "data.dir = null is impossible" in capsys.readouterr().err
    assert not list(tmp_path.glob("records/*"))


# --- hub: the real client on a folder, which needs no network -----------------------------------------------------


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_hub_rows_are_the_local_rows(tmp_path: Path, hub_cache: None, capfd: pytest.CaptureFixture[str]) -> None:
    config = boolq(tmp_path)
    config.hub.path = str(tmp_path / "boolq")
    assert hub_split(config, "train", source="hub", directory=None).to_list() == local(config, tmp_path)
    assert "".join(capfd.readouterr()) == ""


def test_hub_rows_are_counted(tmp_path: Path, hub_cache: None) -> None:
    config = boolq(tmp_path)
    config.hub = replace(config.hub, path=str(tmp_path / "boolq"), rows={"train": 7})
    with pytest.raises(ActshiftError, match=r"6 rows, but 7 are expected.*pin dataset\.hub\.revision"):
        hub_split(config, "train", source="hub", directory=None)
    with pytest.raises(ActshiftError, match=r"unknown split of .*'trian'. Did you mean 'train'"):
        hub_split(config, "trian", source="hub", directory=None)


def test_a_hub_that_cannot_be_reached_is_explained(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from dataset_configs import dataset_config\n"
        "from actshift.data.sources import hub_split\n"
        "hub_split(dataset_config('boolq'), 'train', source='hub', directory=None)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, here], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("actshift.errors.ActshiftError: google/boolq (config None, revision 35b264d0")
    assert last.endswith("Without network: data.source=local data.dir=<folder>, or data.source=procedural.")


def test_local_and_procedural_rows_write_no_cache(tmp_path: Path) -> None:
    boolq(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from dataset_configs import run_config\n"
        "from actshift.data.splits import load_split\n"
        "config = run_config('boolq', source='local', directory=sys.argv[2])\n"
        "config.dataset.hub.rows = {}\n"
        "config.data.overlap = 'ignore'\n"
        "print(len(load_split(config, 'validation').rows))\n"
        "config.data.source = 'procedural'\n"
        "print(len(load_split(config, 'test').rows))\n"
    )
    home = tmp_path / "home"
    environment = os.environ | {"HF_HOME": str(home), "HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-W", "error", "-c", code, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["2", "400"], "")
    assert [path for path in home.rglob("*") if path.is_file()] == []
