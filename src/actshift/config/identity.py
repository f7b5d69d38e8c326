"""Which run is this? A hash of everything in the resolved config that can change its result."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from actshift.config.keys import choices, known_keys
from actshift.errors import ActshiftError, shown, unknown
from actshift.paths import conf_dir
from actshift.schema.building import plain
from actshift.schema.config import Config

ABSENT = "(absent)"


def identity_of(config: Config | Mapping[str, Any], *, ignore: Sequence[str]) -> str:
    """The first 16 hex digits of sha256 over the canonical JSON of the part of `config` that counts.

    Canonical: keys sorted, no spaces, ASCII, and equal numbers written alike (``1``, ``1.0`` and ``10e-1`` are one
    value, ``True`` is not a number), so the same request is the same run however it was typed.
    """
    return hashlib.sha256(canonical_json(hashed_part(config, ignore=ignore)).encode("ascii")).hexdigest()[:16]


def hashed_part(config: Config | Mapping[str, Any], *, ignore: Sequence[str]) -> dict[str, Any]:
    """The part of a resolved config that counts, in canonical form: sorted keys, integral floats as ints.

    An entry of `ignore` is a dotted key, or ``key=value``: ignored at exactly that value, and counted at any other, or
    ``key when other``: ignored where the key `other` has a value. A
    mapping that ignoring leaves empty is dropped, so a new group of ignored keys changes no identity. Raises
    ActshiftError on a value that has no canonical form: a missing one (``???``), NaN, infinity, a foreign type.
    """
    values = config if isinstance(config, Mapping) else plain(config)
    return _mapping(values, frozenset(_entries(values, ignore)), ())


def _entries(config: Mapping[str, Any], ignore: Sequence[str]) -> Iterator[str]:
    """The entries of `ignore` without conditions, those left out whose condition does not hold for this config."""
    for entry in ignore:
        key, _, other = entry.partition(" when ")
        if not other or _value(config, other) is not None:
            yield key


def _value(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


_TRAINING = [f"data.{kind}.{split}" for kind in ("splits", "limit") for split in ("train", "validation")]
_TRAINING += ["data.overlap"]
"""Keys that a run's identity counts and that the test split does not depend on."""


def scored_part(
    config: Config | Mapping[str, Any], *, ignore: Sequence[str], groups: Sequence[str] = ()
) -> dict[str, Any]:
    """The part of a config that the scores of its base model on the test split depend on; `groups` are counted too."""
    values = config if isinstance(config, Mapping) else plain(config)
    counted = {name: values[name] for name in ("model", "dataset", "data", "evaluation", *groups)}
    protocol = {name: values["protocol"][name] for name in ("name", "chat")}
    precision = {"precision": values["training"]["precision"]}
    return hashed_part({**counted, "protocol": protocol, "training": precision}, ignore=[*_TRAINING, *ignore])


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Sorted lines ``dotted.key: old -> new``; a key that one side lacks reads ``(absent)``. Lists compare whole."""
    before, after = dict(leaves(old, "")), dict(leaves(new, ""))
    return [
        f"{key}: {before.get(key, ABSENT)} -> {after.get(key, ABSENT)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    ]


@cache
def _read_ignored(path: str) -> tuple[str, ...]:
    import yaml

    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    keys = document.get("ignore") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ActshiftError(f"{path} must hold one key, 'ignore', with a list of dotted config keys")
    for key in keys:
        _check_ignored(key, where=path)
    return tuple(keys)


def ignored_keys() -> list[str]:
    """What does not count, from conf/identity.yaml: dotted keys, and ``key=value`` for one value of a key.

    A key that no schema declares is an error, and a value that the key cannot have.
    """
    return list(_read_ignored(str(conf_dir() / "identity.yaml")))


def canonical_json(value: Any) -> str:
    """One line of JSON with sorted keys, no spaces and ASCII only: equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _mapping(config: Mapping[str, Any], ignore: frozenset[str], path: tuple[str, ...]) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for key, value in sorted(config.items(), key=lambda item: str(item[0])):
        where = (*path, str(key))
        if not isinstance(key, str):
            raise ActshiftError(f"config key {'.'.join(where)} is a {type(key).__name__}; keys must be strings")
        if ".".join(where) in ignore:
            continue
        inner = _canonical(value, ignore, where)
        if not isinstance(inner, dict) and f"{'.'.join(where)}={_written(inner)}" in ignore:
            continue
        if inner != {} or not value:
            part[key] = inner
    return part


def _written(value: Any) -> str:
    """A canonical value as it is written after ``key=``: text bare, anything else as JSON."""
    return value if isinstance(value, str) else canonical_json(value)


def _canonical(value: Any, ignore: frozenset[str], path: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return _mapping(value, ignore, path)
    if isinstance(value, list | tuple):
        # Keys inside a list have no dotted name, so nothing in a list can be ignored.
        return [_canonical(item, frozenset(), (*path, str(index))) for index, item in enumerate(value)]
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if value is None or (isinstance(value, bool | int | str) and value != "???"):
        return value
    raise ActshiftError(
        f"config key {'.'.join(path)} has the value {value!r}, which cannot identify a run: "
        "allowed are text, finite numbers, true/false, null, and lists and mappings of these. "
        "Set it in conf/ or on the command line."
    )


def leaves(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as canonical JSON; an empty mapping is a leaf."""
    if isinstance(value, Mapping) and (value or not prefix):
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, canonical_json(_canonical(value, frozenset(), tuple(prefix.split("."))))


def _check_ignored(key: str, *, where: str) -> None:
    """Refuse a key that no config can have: it would look ignored and count."""
    key, _, condition = key.partition(" when ")
    if condition:
        _check_ignored(condition, where=where)
    key, _, value = key.partition("=")
    known = known_keys()
    if not any(fnmatch.fnmatchcase(key, pattern) for pattern in known):
        siblings = [name for name in known if name.split(".")[0] == key.split(".")[0] or "." not in name]
        raise unknown("ignored config key", key, siblings, where=where)
    if value and key in choices() and value not in map(shown, choices()[key]):
        raise unknown(f"ignored value of {key}", value, choices()[key], where=where)
