"""What docs/own.md shows, from an empty folder with an installed wheel: all of the user's own at once."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_own_code import METHOD, METHOD_YAML

ROOT = Path(__file__).parents[2]
REVIEWS = """# Texts that are good or bad.
defaults: [dataset_schema, _self_]
name: reviews
version: 1
task: templated
template:
  prompt: "Review: {text}\\n"
  answer: "Answer: {label}."
  label: mark
  labels: {"0": bad, "1": good}
  rule: first_option
splits: {paper: {train: {source: train}, validation: {source: dev}, test: {source: test}}}
"""
VARIANT_YAML = """# The paper's method with a larger rank.
defaults: [post_block, _self_]
name: wide
rank: 12
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as its wheel installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("actshift-*.whl")
    install = [*pip, "install", "--quiet", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, cwd=folder)
    return folder / "site"


def call(folder: Path, installed: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HOME": str(folder / "home")}
    command = [sys.executable, "-m", "actshift", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_a_data_set_and_methods_of_ones_own_give_a_table_and_a_report(installed: Path, tmp_path: Path) -> None:
    where = "import actshift, actshift.paths; print(actshift.__file__, actshift.paths.conf_dir())"
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(path).is_relative_to(installed) for path in found.stdout.split()), found.stdout

    own = tmp_path / "own"
    for name, text in (
        ("my_code.py", METHOD),
        ("method/scaled.yaml", METHOD_YAML),
        ("method/wide.yaml", VARIANT_YAML),
        ("dataset/reviews.yaml", REVIEWS),
    ):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)
    rng = random.Random(0)
    for split, rows in (("train", 48), ("dev", 16), ("test", 16)):
        file = tmp_path / "data" / "reviews" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        marks = [rng.randrange(2) for _ in range(rows)]
        file.write_text(
            "".join(json.dumps({"text": f"{'poor' if not mark else 'fine'} {row}", "mark": mark}) + "\n"
                    for row, mark in enumerate(marks))
        )  # fmt: skip
    shutil.copytree(installed / "actshift" / "models" / "tiny_llama", tmp_path / "weights")

    common = ["data.source=local", "data.dir=data", "--config-dir", "own"]
    shown = call(tmp_path, installed, "show", "dataset=reviews", *common)
    assert "Review: " in shown and "Answer: " in shown
    sweep = ["sweep.name=mine", "sweep.models=[local]", "model.path=weights", "model.name=mine", "model.scale=tiny"]
    sweep += ["sweep.methods=[sft,wide,scaled]", "sweep.datasets=[reviews]", "sweep.seeds=[1]", "execution=separate"]
    sweep += ["sweep.rates.tiny={sft:[1e-3],steering_r8:[1e-3,1e-2],steering_r1_vector:[1e-2]}", *common]
    dry = call(tmp_path, installed, "submit", "smoke", *sweep, "results=other", "--dry-run", "profile=cpu")
    assert "sbatch" in dry and "--config-dir" in dry
    call(tmp_path, installed, "sweep", "smoke", *sweep)
    for name in ("status", "tables"):
        assert "reviews" in call(tmp_path, installed, name, "mine").lower()
    assert "mine" in call(tmp_path, installed, "runs", "split=test")
    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "records").glob("*.test.json")]
    assert {record["cell"]["method"] for record in records} == {"sft", "wide", "scaled"}
    assert all(record["cell"]["model"] == "mine" and record["metrics"]["rows"] == 16 for record in records)
    call(tmp_path, installed, "report")
    page = (tmp_path / "results" / "report.html").read_text()
    assert "mine" in page and "wide" in page and "scaled" in page
