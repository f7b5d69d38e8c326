"""A record names the commit that made it, in a checkout, and none elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import actshift

PROBE = "from actshift.observe.provenance import code_provenance as found; print(found()['commit'], found()['dirty'])"
SOURCE = Path(actshift.__file__).parents[1]


def provenance(source: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(source)}
    return subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, env=environment
    ).stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    call = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the package and its configuration in it."""
    if shutil.which("git") is None:
        pytest.skip("no git is installed")
    copied = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(SOURCE / "actshift", tmp_path / "src" / "actshift", ignore=copied)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("")
    (tmp_path / ".gitignore").write_text("installed\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "dirty"),
    [
        (None, False),
        ("src/actshift/paths.py", True),
        ("src/new.py", True),
        ("conf/config.yaml", True),
        ("notes", False),
    ],
)
def test_a_changed_checkout_is_dirty(checkout: Path, changed: str | None, dirty: bool) -> None:
    if changed is not None:
        with (checkout / changed).open("a") as file:
            file.write("\n")
    assert provenance(checkout / "src") == f"{git(checkout, 'rev-parse', 'HEAD')} {dirty}"


def test_an_installed_package_has_no_commit(checkout: Path) -> None:
    """As a virtual environment lies in the checkout of the project that uses it."""
    (checkout / "src" / "actshift").rename(checkout / "installed")
    (checkout / "installed").rename(checkout / "moved")
    (checkout / "installed").mkdir()
    (checkout / "moved").rename(checkout / "installed" / "actshift")
    assert provenance(checkout / "installed") == "None None"
