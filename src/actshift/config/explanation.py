"""What a key of the configuration means and what it may be, from the schema that refuses what it may not be."""

from __future__ import annotations

import fnmatch
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from actshift.config.identity import ignored_keys
from actshift.config.keys import SCHEMAS, bounds, choices, known_below, known_keys, unknown_key
from actshift.schema.config import Config


@dataclass(frozen=True)
class Explanation:
    """One key: its type, the comment beside it in the schema, what it may be, and whether it changes an identity."""

    key: str
    type: str
    about: str
    allowed: tuple[str, ...]
    bounds: str | None
    counts: bool


def explain(key: str) -> list[Explanation]:
    """What there is to say of a key, or of all keys directly below a group. Errors: a key that does not exist."""
    known = known_keys()
    found = [name for name in known if name.count(".") == key.count(".") and fnmatch.fnmatchcase(key, name)]
    if not found:
        raise unknown_key(key, *known_below(key), candidates=known)
    below = [name for name in known if name.startswith(f"{found[0]}.") and name.count(".") == key.count(".") + 1]
    return [_explanation(name) for name in (below or found)]


def _explanation(key: str) -> Explanation:
    kind, about = next(iter(_found(key)), ("", ""))
    allowed = tuple("null" if choice is None else str(choice) for choice in choices().get(key, ()))
    ignored = [entry.partition(" when ")[0] for entry in ignored_keys()]
    counts = not any(key == name or key.startswith(f"{name}.") for name in ignored)
    return Explanation(key, kind, about, allowed, str(bounds()[key]) if key in bounds() else None, counts)


def _found(key: str) -> Iterator[tuple[str, str]]:
    """The type of a key and the comment beside it, from each structured config that declares it."""
    group, _, rest = key.partition(".")
    for (name, _), node in SCHEMAS.items():
        if rest and name == group:
            yield from _below(node, rest.split("."))
    yield from _below(Config, key.split("."))


def _below(node: type, parts: list[str]) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(node)
    name, *rest = parts
    for entry in fields(node):
        if entry.name != name:
            continue
        if not rest:
            yield _type_name(hints[name]), _comments(node).get(name, "")
        if rest == ["*"]:
            yield _type_name(get_args(hints[name])[1]), "any name"
        deeper = rest[1:] if rest[:1] == ["*"] else rest  # the free names of a mapping
        for inner in [hints[name], *get_args(hints[name])]:
            if deeper and is_dataclass(inner):
                yield from _below(inner, deeper)  # type: ignore[arg-type]


def _type_name(hint: Any) -> str:
    plain = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "NoneType": "null"}
    if is_dataclass(hint):
        return "group"
    parts = get_args(hint)
    if getattr(hint, "__name__", "") == "dict":
        return f"mapping to {_type_name(parts[1])}" if parts else "mapping"
    if getattr(hint, "__name__", "") == "list":
        return f"list of {_type_name(parts[0])}" if parts else "list"
    if parts:
        return " or ".join(_type_name(part) for part in parts)
    name = getattr(hint, "__name__", str(hint))
    return plain.get(name, name.lower())


def _comments(node: type) -> Mapping[str, str]:
    """The comments that stand beside the fields of a dataclass, those of its base classes among them."""
    found: dict[str, str] = {}
    for owner in reversed(node.__mro__):
        if not is_dataclass(owner):
            continue
        names = {entry.name for entry in fields(owner)}
        field = ""  # the last one that began: what it may be can take several lines
        for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(owner)).readline):
            if token.type == tokenize.NAME and token.string in names and token.line.startswith(f"    {token.string}:"):
                field = token.string
            if token.type == tokenize.COMMENT and field:
                found[field] = token.string.lstrip("# ").strip()
    return found
