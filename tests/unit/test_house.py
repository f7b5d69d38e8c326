"""The house rules that a reader counts on: short files, short functions, few modules outside of rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import actshift

PACKAGE = Path(actshift.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def test_modules_outside_of_rooms() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert loose <= {"cli", "hub", "paths", "files", "errors"}


def test_no_file_is_longer_than_300_lines() -> None:
    assert len(FILES) >= 150
    assert {str(path): lines for path in FILES if (lines := path.read_text().count("\n")) > 300} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long, functions = {}, 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions += 1
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long[f"{path.name}: {node.name}"] = lines
    assert functions >= 1000
    assert long == {}


def test_few_lines_of_the_configurations_are_repeated() -> None:
    """At most a quarter of the lines of conf/ stand in three files or more: what is common is inherited."""
    files = {file: _lines(file) for file in sorted((Path(__file__).parents[2] / "conf").rglob("*.yaml"))}
    where: dict[str, set[Path]] = {}
    for file, lines in files.items():
        for line in lines:
            where.setdefault(line, set()).add(file)
    everything = [line for lines in files.values() for line in lines]
    repeated = [line for line in everything if len(where[line]) >= 3]
    assert len(files) > 70
    assert len(repeated) <= 0.25 * len(everything), f"{len(repeated)} of {len(everything)}"


def _lines(file: Path) -> list[str]:
    """A YAML file's lines without comments."""
    lines = (line.split(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


CONFIGS = set("config model method dataset training hardware evaluation protocol objective sweep shape options".split())
CONFIGS |= set("scope steering lora gates rule splits limit speed tokens template schedule analysis logger".split())
DOCUMENTS = {"config/identity.py", "models/weights.py"}
"""What hashes the mappings of a configuration, and what reads the config.json of a model."""


def _subscripted(node: ast.expr) -> str | None:
    """The last name of what a subscript is taken of."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def test_no_configuration_is_read_by_string_subscripts() -> None:
    looked_at, found = 0, []
    for file in sorted(PACKAGE.rglob("*.py")):
        if str(file.relative_to(PACKAGE)) in DOCUMENTS:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                looked_at += 1
                if isinstance(node.slice.value, str) and _subscripted(node.value) in CONFIGS:
                    found.append(f"{file.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert looked_at > 500 and found == []
