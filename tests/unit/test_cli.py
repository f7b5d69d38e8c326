"""The command line: what it prints, what it refuses, and what it does not load to do so."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift import cli
from actshift.cli import main
from actshift.commands.requests import split_options
from actshift.config.groups import groups
from actshift.config.keys import SCHEMAS, group_keys, known_keys
from actshift.schema.analysis import TheoryConfig
from actshift.schema.method import SteeringConfig
from actshift.schema.objective import ObjectiveConfig

LIGHT = """
import sys
from actshift.cli import main
from actshift.commands.requests import split_options
codes = []
for line in ("--help", "list", "run --help", "run --cfg job", "run method=srt", "run lr=-1", "run -m method=sft,srt"):
    try:
        codes.append(main(line.split()))
    except SystemExit as exit:
        codes.append(exit.code or 0)
heavy = {"torch", "transformers", "datasets", "peft", "wandb", "pandas"} & set(sys.modules)
print("RESULT", codes, sorted(heavy))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands are given in an empty folder that is not the project's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["actshift"])
    return tmp_path


def leaves(config: dict[str, Any], path: str = "") -> set[str]:
    return {f"{path}{key}" for key in config} | {
        leaf for key, value in config.items() if isinstance(value, dict) for leaf in leaves(value, f"{path}{key}.")
    }


def test_help_and_refusals_load_nothing_heavy(elsewhere: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, cwd=elsewhere)
    assert done.stdout.splitlines()[-1] == "RESULT [0, 0, 0, 0, 2, 2, 2] []"
    assert done.stderr.count("actshift: ") == 3
    assert "Traceback" not in done.stderr
    assert list(elsewhere.iterdir()) == []


def test_help_of_the_module(elsewhere: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "actshift.cli", "--help"], capture_output=True, text=True, check=True, cwd=elsewhere
    )
    for verb in ("run", "sweep", "plan", "select", "status", "tables", "list"):
        assert f"\n    {verb} " in done.stdout


@pytest.mark.parametrize("resolve", [[], ["--resolve"]])
def test_cfg_prints_every_key(resolve: list[str], capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["run", "--cfg", "job", *resolve, "method=post_block_nonlinear", "sweep=demo", "analysis=theory"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    printed = leaves(config)
    # Neither other kinds' keys nor those of a list's entries; an interpolation stands for the keys below it.
    wanted = {key for key in known_keys() if "*" not in key and not key.startswith("sweep.exclude.")}
    own = {key for key in SCHEMAS if key[0] in ("method", "analysis", "objective")}
    chosen = {*group_keys(SteeringConfig), *group_keys(TheoryConfig), *group_keys(ObjectiveConfig)}
    others = {key for group in own for key in group_keys(SCHEMAS[group])} - chosen
    wanted -= others
    below = ("training.schedule.", "data.splits.")
    assert {key for key in wanted - printed if resolve or not key.startswith(below)} == set()
    assert config["method"]["activation"] == "silu"
    assert config["lr"] == (config["method"]["lr"] if resolve else "${method.lr}")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cfg", "job", "seed=7"],
        ["seed=7", "--cfg", "job"],
        ["method=sft", "--cfg", "job", "seed=7"],
        ["seed=7", "-c=job"],
    ],
)
def test_overrides_stand_on_both_sides_of_hydras_flags(
    arguments: list[str], capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    assert main(["run", *arguments]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 7


def test_a_multiruns_flag_stands_between_overrides(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert main(["run", "debug=few_steps", "-m", "seed=1,2", "training.max_steps=1"]) == 0
    assert len(list((elsewhere / "results" / "records").iterdir())) == 2


def test_cfg_refuses_what_a_run_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--cfg", "job", "method.rank=0"]) == 2
    assert "method.rank = 0 is impossible" in capsys.readouterr().err


def test_list_shows_every_option_and_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown, group = {}, ""
    for line in lines:
        if not line.startswith(" "):
            group = line
        else:
            option, about = line.split(maxsplit=1)
            shown.setdefault(group, []).append(option)
            assert len(about) > 10 and about[-1] in ".?", "a whole sentence"
    assert shown == groups()


def test_list_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "method"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["method", *groups()["method"]]
    assert main(["list", "methd"]) == 2
    assert "Did you mean 'method'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "methd.rank=1"], "Did you mean 'method.rank'?"),
        (["run", "method.layers=[0,99]"], "method.layers = [0, 99] is impossible"),
        (["run", "model.source=hub", "model.path=/no/where", "lr=0"], "lr = 0.0 is impossible"),
        (["run", "data.source=local"], "data.dir = null is impossible"),
        (["run", "--config-name=other"], "unknown option 'config-name=other'"),
        (["run", "--debg", "few_steps"], "Did you mean 'debug=...'?"),
        (["run", "-m", "--cfg", "job", "seed=1,2"], "-m runs several jobs, --cfg prints and runs none"),
        (["run", "method.scope=last_prompt"], "method.scope is a group of keys: set one of them (first, kind, last"),
        (["plan", "smoke", "sweep.methods=sft"], "sweep.methods is a list: write sweep.methods=[a,b]"),
        (["run", "model.path=my größe"], "quotation marks within those of the shell: \"model.path='my größe'\""),
        (["run", "method", "=", "sft"], "An override is key=value, with no space beside the equals sign"),
        (["run", "sweep.name=mine"], "sweep.name is set, and no sweep is chosen: name one with sweep=..."),
        (["run", "analysis.rows=3"], "analysis.rows is set, and no analysis is chosen"),
        (["run", "method.family=stering"], "unknown method.family 'stering'. Did you mean 'steering'?"),
        (["explain", "model.scal"], "Did you mean 'model.scale'? Allowed below 'model': architecture"),
        (["run", "method=wide"], "(a file of conf/method/ or FOLDER/method/ with --config-dir FOLDER)"),
        (["run", "dataset=sst2", "dataset.template.rule=leter"], "Did you mean 'letter'?"),
        (["run", "-m", "method=sft,srt", "debug=few_steps"], "Did you mean 'sft'?"),
        (["run", "-m", "lr=1e-3,-1", "debug=few_steps"], "lr = -1.0 is impossible"),
        (["run", "-m", "method=sft,post_block", "method.rank=4"], "unknown config key 'method.rank'"),
        (["run", "-m", "method=glob(x*)"], "unknown method 'glob(x*)'"),
        (["run", "-m", "lr=interval(0,1)"], "cannot be taken apart"),
        (["sweep", "dmeo"], "unknown sweep 'dmeo'. Did you mean 'demo'?"),
        (["sweep", "demo", "sweep.rates.tiny.sft=[]"], "sweep.rates.tiny.sft = [] is impossible"),
        (["plan", "demo", "lr=1"], "which the sweep 'demo' sets itself"),
        (["status", "demo"], "has not been planned"),
        (["select", "demo"], "has not been planned"),
        (["tables", "demo"], "has not been planned"),
        (["tables", "table11"], "'table1' has not been planned"),
        (["figures", "demo"], "has not been planned"),
        (["report"], "nothing is planned"),
        (["show", "row=first"], "row=first: give a row's number"),
    ],
)
def test_wrong_requests_end_with_2_and_leave_nothing(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("actshift: ")
    assert printed.out == ""
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["rnu"], ["sweep"], ["list", "a", "b"]])
def test_argparse_refuses_the_rest(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2


def test_what_is_missing_is_named_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status"])
    assert capsys.readouterr().err.endswith("the following arguments are required: sweep\n")


def test_a_commands_own_words_are_taken_from_the_overrides() -> None:
    given = ["row=1", "method=sft", "row=2", "row", "+row=3", "protocol.row=4", "split="]
    assert split_options(given, ["row", "split"]) == (
        {"row": "2", "split": ""},
        ["method=sft", "row", "+row=3", "protocol.row=4"],
    )


def test_a_sweep_of_a_name_of_its_own_is_known_by_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = ["sweep.name=mine", "sweep.methods=[sft,lora_r8]", "sweep.datasets=[listops]"]
    assert main(["plan", "smoke", *made]) == 0
    assert main(["status", "mine", "--json"]) == 0
    assert main(["submit", "mine", "--dry-run", "profile=cpu"]) == 0
    assert "select mine" in capsys.readouterr().out
    assert main(["plan", "mine", "seed=3"]) == 2
    assert "'mine' is a planned sweep, and its plan is frozen: seed=3" in capsys.readouterr().err
    assert main(["status", "mne"]) == 2
    assert "Did you mean 'mine'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--dry-run", "profile=cpu"], ["profile=cpu", "--dry-run"]])
def test_overrides_stand_before_and_after_flags(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["submit", "smoke", *words]) == 0
    assert "smoke-grid" in capsys.readouterr().out


def test_every_command_shows_an_example_of_itself() -> None:
    for verb, command in cli.COMMANDS.items():
        assert command.example.startswith(f"actshift {verb}")
    version = subprocess.run(
        [sys.executable, "-m", "actshift", "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("actshift ")


def test_a_results_folder_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["plan", "smoke", "results=file/below"]) == 2
    refused = capsys.readouterr().err
    assert refused.startswith("actshift: ") and "file/below" in refused and "Not a directory" in refused
    assert "Traceback" not in refused and sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("actshift.files.os.fsync", full)
        assert main(["plan", "smoke"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert main(["plan", "smoke"]) == 0


def test_python_without_docstrings_is_refused_in_words() -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "actshift", "list"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "leave out -OO" in done.stderr
    assert "Traceback" not in done.stderr
