"""Between a configuration as dataclasses and as plain mappings, as YAML and JSON have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from actshift.schema.config import Config
from actshift.schema.data import ORIGINS
from actshift.schema.method import METHODS, MethodConfig
from actshift.schema.objective import OBJECTIVES, ObjectiveConfig

Node = TypeVar("Node")


def config_of(values: Mapping[str, Any], **classes: type) -> Config:
    """The dataclasses of a configuration's mappings; a key that the mappings lack has its default.

    `classes` names the class of a group whose keys alone do not tell it. Mappings of a record, which hold only what its
    identity counts, and those of an older version, which may have keys that the schema lacks, are read too.
    """
    config = built(Config, values, classes)
    origin = values.get("data", {}).get("origin")
    if isinstance(origin, Mapping) and config.data.source in ORIGINS:
        config.data.origin = built(ORIGINS[config.data.source], origin)
    return config


def built(kind: type[Node], values: Mapping[str, Any], classes: Mapping[str, type] | None = None) -> Node:
    """A dataclass from a mapping of its fields."""
    given = {
        name: _value((classes or {}).get(name, hint), values[name])
        for name, hint in _hints(cast(Any, kind))
        if name in values
    }
    return kind(**given)


def plain(node: Any) -> Any:
    """Dataclasses as mappings, with all that is below them; what was read in part has no key where it has no value."""
    if is_dataclass(node):
        values = ((name, getattr(node, name)) for name, _ in _hints(cast(Any, type(node))))
        return {name: plain(value) for name, value in values if value != MISSING}
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return node


@cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(kind)
    return tuple((entry.name, hints[entry.name]) for entry in fields(kind))


def _value(hint: Any, value: Any) -> Any:
    """A value as the type of its field wants it."""
    if isinstance(value, list | tuple):
        inner = get_args(hint)[0] if get_origin(hint) is list else Any
        return [_value(inner, each) for each in value]
    if not isinstance(value, Mapping):
        return value
    kind = _dataclass(hint)
    if kind is not None:
        return built(_kind(kind, value), value)
    inner = get_args(hint)[1] if get_origin(hint) is dict else Any
    return {key: _value(inner, each) for key, each in value.items()}


@cache
def _dataclass(hint: Any) -> Any:
    """The dataclass of a type such as `A` or `A | None`."""
    return next((each for each in (hint, *get_args(hint)) if get_origin(hint) is not dict and is_dataclass(each)), None)


def _kind(base: type, values: Mapping[str, Any]) -> type[Any]:
    """The dataclass of a method or an objective, which their `kind` tells."""
    known: dict[type, Mapping[str, type]] = {MethodConfig: METHODS, ObjectiveConfig: OBJECTIVES}
    return known.get(base, {}).get(values.get("kind", MISSING), base)
