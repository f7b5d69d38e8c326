"""Configurations and code of the user's own, in a folder beside nothing: a method, a task, a sweep over both."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.config.identity import identity_of, ignored_keys
from actshift.errors import ActshiftError
from actshift.paths import CONFIG_DIR

METHOD = """
import torch
from torch import nn
from actshift.methods.base import Adaptation

class Scaled(Adaptation):
    \"\"\"h <- s * h at the output of every layer, s a number a layer.\"\"\"
    def __init__(self, base, *, config, seeds):
        start = config.options["start"]
        self.scales = [nn.Parameter(torch.tensor(float(start))) for _ in range(base.sites.layers)]
        self.hooks = [
            base.sites.hook("post_block", layer, lambda h, s=s: (h.float() * s).to(h.dtype))
            for layer, s in enumerate(self.scales)
        ]
    def named_parameters(self, replica=0):
        yield from ((str(layer), scale) for layer, scale in enumerate(self.scales))
    def detach(self):
        for hook in self.hooks:
            hook.remove()
"""
TASK = """
from actshift.tasks.base import Task

class Parity(Task):
    name = "parity"
    columns = ("bits",)
    def prompt(self, row):
        return f"Bits: {row['bits']}\\n"
    def answer(self, row):
        return f"Answer: {self.label(row)}."
    def label(self, row):
        return "odd" if row["bits"].count("1") % 2 else "even"
    def extract(self, output):
        found = [word for word in ("odd", "even") if word in output]
        return found[0] if len(found) == 1 else None
    def generate(self, rng, **difficulty):
        return {"bits": " ".join(rng.choice("01") for _ in range(8))}
"""
METHOD_YAML = """# A number a layer.
defaults: [custom_schema, _self_]
name: scaled
family: steering
rates: steering_r1_vector
lr: 1e-2
target: my_code:Scaled
options: {start: 1.0}
"""
DATASET_YAML = """# Whether the ones are odd in number.
defaults: [dataset_schema, _self_]
name: parity
version: 1
task: custom
target: my_task:Parity
default: {epochs: 1, max_new_tokens: 5}
procedural: {rows: {train: 64, validation: 16, test: 16}}
splits:
  paper: {train: {source: train}, validation: {source: validation}, test: {source: test}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a space in its name that holds a method, a task and their YAMLs."""
    own = tmp_path / "my configs"
    for name, text in (
        ("my_code.py", METHOD),
        ("my_task.py", TASK),
        ("method/scaled.yaml", METHOD_YAML),
        ("dataset/parity.yaml", DATASET_YAML),
    ):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)
    monkeypatch.setenv(CONFIG_DIR, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield own
    for module in ("my_code", "my_task"):
        sys.modules.pop(module, None)


SWEEP = [
    "sweep",
    "smoke",
    "sweep.name=mine",
    "sweep.models=[tiny]",
    "sweep.methods=[sft,scaled]",
    "sweep.datasets=[parity]",
    "sweep.seeds=[1]",
    "sweep.rates.tiny.steering_r1_vector=[1e-2,1e-3]",
    "execution=separate",
]


def test_a_sweep_over_a_method_and_a_task_of_ones_own(folder: Path, tmp_path: Path) -> None:
    """In processes of its own, so that workers find the folder through their launcher alone."""
    command = [sys.executable, "-m", "actshift", *SWEEP, "--config-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "scaled" in (tmp_path / "results" / "tables" / "mine.md").read_text()
    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "records").glob("*.test.json")]
    (scaled,) = [record for record in records if record["cell"]["method"] == "scaled"]
    assert len(scaled["config"]["method"]["code"]) == 64
    assert len(scaled["config"]["dataset"]["code"]) == 64
    assert scaled["metrics"]["trainable_parameters"] == 4
    # The report needs neither the folder nor the code.
    assert main(["report"]) == 0
    # A dry run of the cluster has the folder in the call that selects.
    shown = subprocess.run(
        [sys.executable, "-m", "actshift", "submit", *SWEEP[1:], "results=other", "--dry-run", "profile=cpu",
         f"--config-dir={folder}"],
        capture_output=True, text=True, env=os.environ, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert f"--config-dir '{folder}'" in shown.stdout


def test_the_variable_of_the_folder_finds_code_as_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_DIR, str(folder))
    assert main(["run", "--cfg", "job", "method=scaled"]) == 0


def test_two_folders_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "method", "--config-dir", str(folder), f"--config-dir={tmp_path}"]) == 2
    assert "there can be one folder" in capsys.readouterr().err


def test_changed_code_is_another_run(folder: Path) -> None:
    assert main(["list", "method", f"--config-dir={folder}"]) == 0
    request = ["method=scaled", "dataset=parity"]
    before = compose(request)
    (folder / "my_code.py").write_text(METHOD.replace("s a number a layer", "s one number for each layer"))
    after = compose(request)
    assert before.method.code != after.method.code
    one, two = (identity_of(config, ignore=ignored_keys()) for config in (before, after))
    assert one != two


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("my_code:Scaled", "my_code:Missing", "has no 'Missing'"),
        ("my_code:Scaled", "nowhere:Scaled", "Python finds no module 'nowhere'"),
        ("my_code:Scaled", "my_code", "must be 'module:Class'"),
        ("my_code:Scaled", "my_task:Parity", "no subclass of actshift.methods.base.Adaptation"),
        ("target: my_code:Scaled", "", "method.target has no value"),
    ],
)
def test_what_cannot_be_loaded_is_said(folder: Path, old: str, new: str, message: str) -> None:
    main(["list", "method", f"--config-dir={folder}"])
    (folder / "method" / "scaled.yaml").write_text(METHOD_YAML.replace(old, new))
    with pytest.raises(ActshiftError, match=message):
        compose(["method=scaled"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_that_name\n", r"broken\.py cannot be imported: ModuleNotFoundError: .* \(line 1\)"),
        ("x = 1\ndef f(:\n", r"broken\.py cannot be imported: SyntaxError: .* \(line 2\)"),
        ("x = 1\n\ny = x / 0\n", r"broken\.py cannot be imported: ZeroDivisionError: division by zero \(line 3\)"),
        (
            "from actshift.methods.base import Adaptation\nclass Scaled(Adaptation):\n    pass\n",
            r"broken:Scaled lacks detach, named_parameters, which every Adaptation has",
        ),
    ],
)
def test_code_that_is_broken_or_unfinished_is_said_with_its_line(folder: Path, code: str, message: str) -> None:
    main(["list", "method", f"--config-dir={folder}"])
    (folder / "broken.py").write_text(code)
    (folder / "method" / "scaled.yaml").write_text(METHOD_YAML.replace("my_code:Scaled", "broken:Scaled"))
    with pytest.raises(ActshiftError, match=message):
        compose(["method=scaled"])
    sys.modules.pop("broken", None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "base, *, config, seeds",
            "base, settings",
            r"built as Scaled\(base, config=..., seeds=...\), which its __init__",
        ),
        (
            "yield from ((str(layer), scale) for layer, scale in enumerate(self.scales))",
            "yield from ()",
            "no parameters",
        ),
        ("h.float() * s", "h.float() * s.detach()", "the loss depends on no parameter of Scaled"),
        (
            "h.float() * s",
            "h.flat() * s",
            r"my_code\.py \(line \d+\): AttributeError: 'Tensor' object has no attribute",
        ),
    ],
)
def test_a_class_that_cannot_train_is_a_sentence(
    folder: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in METHOD
    (folder / "my_code.py").write_text(METHOD.replace(old, new))
    assert main(["run", "method=scaled", "debug=few_steps", f"--config-dir={folder}"]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("actshift: ")
    assert re.search(message, shown)


def test_a_module_that_python_finds_elsewhere_is_refused(folder: Path) -> None:
    main(["list", "method", f"--config-dir={folder}"])
    (folder / "code.py").write_text(METHOD)  # as a module of Python's library is called
    (folder / "method" / "scaled.yaml").write_text(METHOD_YAML.replace("my_code:Scaled", "code:Scaled"))
    with pytest.raises(ActshiftError, match=r"Python finds another module 'code' .* before .*code\.py"):
        compose(["method=scaled"])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("method/other.yml", METHOD_YAML, r"other\.yml would be overlooked: rename it to other\.yaml"),
        ("methods/other.yaml", METHOD_YAML, r"methods is the folder of no config group.*Did you mean 'method'"),
        ("method/other.yaml", METHOD_YAML, r"/method/other\.yaml has the name 'scaled'"),
        (
            "method/other.yaml",
            "defaults: [postblock, _self_]\n",
            r"'postblock'\. Did you mean 'post_block'.*/method/other\.",
        ),
        ("method/other.yaml", "defaults: [post_block, _self_]\nrnk: 3\n", r"'method\.rnk' in /.*/method/other\.yaml"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_folder(folder: Path, file: str, text: str, message: str) -> None:
    main(["list", "method", f"--config-dir={folder}"])
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(text)
    with pytest.raises(ActshiftError, match=message):
        compose(["method=other"])


def test_a_data_set_of_one_protocol_has_its_lengths(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dataset=parity", "protocol=released", f"--config-dir={folder}"]) == 2
    assert "unknown protocol of dataset parity 'released'. Allowed: paper." in capsys.readouterr().err
    assert main(["lengths", "dataset=parity", f"--config-dir={folder}"]) == 0
    assert "released" not in capsys.readouterr().out.partition("Tokens of prompt")[0]


def test_a_name_of_the_package_is_not_taken_over_silently(folder: Path) -> None:
    (folder / "method" / "sft.yaml").write_text(METHOD_YAML)
    assert main(["list", "method", "--config-dir", str(folder)]) == 2
    with pytest.raises(ActshiftError, match="has the name of method=sft of the package"):
        groups()


def test_hydras_other_ways_to_a_folder_are_refused_by_name() -> None:
    with pytest.raises(ActshiftError, match="--config-dir FOLDER"):
        compose(["hydra.searchpath=[file:///tmp]"])
    with pytest.raises(ActshiftError, match="results=FOLDER"):
        compose(["hydra.run.dir=/tmp/x"])
