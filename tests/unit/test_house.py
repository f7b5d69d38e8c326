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
