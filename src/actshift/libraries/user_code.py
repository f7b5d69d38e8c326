"""Classes of the user's own, named in a YAML as ``module:Class``, and the checksum of the file that they stand in.

A module is found wherever Python finds modules: in an installed package, in PYTHONPATH, or in the folder of
``--config-dir``.
"""

from __future__ import annotations

import hashlib
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from inspect import isabstract, signature
from pathlib import Path
from traceback import extract_tb
from typing import Any

from actshift.errors import ActshiftError, shown

_LOADED: set[Path] = set()
"""The files of the user's from which this process has taken a class."""
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def code_sha256(path: str | None, *, key: str) -> str:
    """The SHA-256 of the file in which the module of a ``module:Class`` path stands, without importing that module.

    Errors: no such path, no such module, a module that is not one file of Python code.
    """
    file = _file(path, key=key)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def load_user_class(path: str, base: type, *, key: str) -> Any:
    """The class of a ``module:Class`` path.

    Errors: a module that cannot be imported, with the line where it fails; none of that name; one that is no subclass
    of `base`, or lacks methods that `base` asks for.
    """
    file = _file(path, key=key)
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name, None)
    except Exception as error:  # whatever the user's own code raises
        raise ActshiftError(f"{key} = {path}: {file} cannot be imported: {_told(error, file)}") from error
    if found is None:
        raise ActshiftError(f"{key} = {path}: the module '{module}' has no '{name}'. Correct the name in your YAML.")
    if not isinstance(found, type) or not issubclass(found, base):
        raise ActshiftError(
            f"{key} = {path} is no subclass of {base.__module__}.{base.__qualname__}: write `class "
            f"{name}({base.__qualname__})`."
        )
    if isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise ActshiftError(
            f"{key} = {path} lacks {missing}, which every {base.__qualname__} has: define them in {file}."
        )
    _LOADED.add(file)
    return found


def refuse_other_arguments(found: Any, path: str, *given: str, key: str, **named: str) -> None:
    """Refuse a class that cannot be built with these arguments; `given` and `named` are what the message calls them."""
    try:
        signature(found).bind(*given, **named)
    except TypeError as error:
        call = f"{path.partition(':')[2]}({', '.join([*given, *(f'{name}=...' for name in named)])})"
        raise ActshiftError(f"{key} = {path} is built as {call}, which its __init__ does not take: {error}.") from error


def raised_in_user_code(error: Exception) -> str | None:
    """The file and line of the user's classes in which an error arose, and the error; None where it arose elsewhere."""
    for frame in reversed(extract_tb(error.__traceback__)):
        if Path(frame.filename) in _LOADED:
            return f"{frame.filename} (line {frame.lineno}): {type(error).__name__}: {error}"
    return None


def _told(error: Exception, file: Path) -> str:
    """An error in a module of the user's, with the last line of that file that led to it."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if Path(frame.filename) == file]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = "" if line is None else f" (line {line})"
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}{where}"


def _file(path: str | None, *, key: str) -> Path:
    """The file of the module of a ``module:Class`` path."""
    if path is None or not _PATH.fullmatch(path):
        raise ActshiftError(
            f"{key} = {shown(path)} is impossible: it must be 'module:Class', as in 'my_methods:Scaled'."
        )
    module = path.partition(":")[0]
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        spec = None
    found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    for folder in sys.path:  # the folder of --config-dir stands last there
        file = Path(folder, *module.split(".")).with_suffix(".py")
        if file.is_file() and file.resolve() != found:
            raise ActshiftError(
                f"{key} = {path}: Python finds another module '{module}' ({found}) before {file}. Give your file "
                "another name."
            )
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ActshiftError(
            f"{key} = {path}: Python finds no module '{module}'. Put {module.replace('.', '/')}.py into the folder of "
            "--config-dir, or set PYTHONPATH to the folder that has it."
        )
    return Path(spec.origin)
