"""Classes of the user's own, named in a YAML as ``module:Class``, and the checksum of the file that they stand in.

A module is found wherever Python finds modules: in an installed package, in PYTHONPATH, or in the folder of
``--config-dir``.
"""

from __future__ import annotations

import hashlib
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError, shown

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def code_sha256(path: str | None, *, key: str) -> str:
    """The SHA-256 of the file in which the module of a ``module:Class`` path stands, without importing that module.

    Errors: no such path, no such module, a module that is not one file of Python code.
    """
    file = _file(path, key=key)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def load_user_class(path: str, base: type, *, key: str) -> Any:
    """The class of a ``module:Class`` path. Errors: none of that name, one that is no subclass of `base`."""
    _file(path, key=key)
    module, _, name = path.partition(":")
    found = getattr(import_module(module), name, None)
    if found is None:
        raise ActshiftError(f"{key} = {path}: the module '{module}' has no '{name}'. Correct the name in your YAML.")
    if not isinstance(found, type) or not issubclass(found, base):
        raise ActshiftError(
            f"{key} = {path} is no subclass of {base.__module__}.{base.__qualname__}: write `class "
            f"{name}({base.__qualname__})`."
        )
    return found


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
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ActshiftError(
            f"{key} = {path}: Python finds no module '{module}'. Put {module.replace('.', '/')}.py into the folder of "
            "--config-dir, or set PYTHONPATH to the folder that has it."
        )
    return Path(spec.origin)
