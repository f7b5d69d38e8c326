"""The dotted keys that a configuration may have, and the values of those that are a choice."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from actshift.errors import ActshiftError
from actshift.methods import KINDS
from actshift.models.architectures import ARCHITECTURES
from actshift.schema import analysis, config, data, method, objective
from actshift.schema.fields import BOUNDS, CHOICES, Bounds
from actshift.tasks import CUSTOM, TASKS
from actshift.tasks.rules import RULES
from actshift.tasks.templated import SCORING_RULES, Templated

SCHEMAS: dict[tuple[str | None, str], type] = {
    ("model", "model_schema"): config.ModelConfig,
    **{("method", f"{name}_schema"): kind for name, kind in method.METHODS.items()},
    ("dataset", "dataset_schema"): data.DatasetConfig,
    ("protocol", "protocol_schema"): config.ProtocolConfig,
    **{("objective", f"{name}_schema"): kind for name, kind in objective.OBJECTIVES.items()},
    ("hardware", "hardware_schema"): config.HardwareConfig,
    ("logger", "logger_schema"): config.LoggerConfig,
    ("sweep", "sweep_schema"): config.SweepConfig,
    ("analysis", "theory_schema"): analysis.TheoryConfig,
    ("analysis", "oracle_schema"): analysis.OracleConfig,
    ("analysis", "overlap_schema"): analysis.OverlapConfig,
    ("analysis", "latency_schema"): analysis.LatencyConfig,
    ("analysis", "shares_schema"): analysis.SharesConfig,
    ("analysis", "cosines_schema"): analysis.CosinesConfig,
    ("analysis", "norms_schema"): analysis.NormsConfig,
    ("analysis", "retention_schema"): analysis.RetentionConfig,
    ("analysis", "continuations_schema"): analysis.ContinuationsConfig,
    (None, "config_schema"): config.Config,
}
"""The structured configurations, by group and the name under which a YAML's defaults list takes them."""

REGISTERED: dict[str, Collection[str | None]] = {
    "model.architecture": ARCHITECTURES,
    "method.kind": KINDS,
    "dataset.task": (*TASKS, Templated.name, CUSTOM),
    "dataset.template.rule": (None, *SCORING_RULES),
    "evaluation.rule": RULES,
}
"""The values of keys that name an entry of one of the project's registries."""


@cache
def choices() -> dict[str, tuple[str | None, ...]]:
    """The values that a key may have, where it is a choice."""
    return _metadata(CHOICES) | {key: tuple(names) for key, names in REGISTERED.items()}


@cache
def bounds() -> dict[str, Bounds]:
    """The bounds of a key that is a number, where the schema declares any."""
    return _metadata(BOUNDS)


@cache
def known_keys() -> list[str]:
    """Every dotted key that the schema declares; `*` stands for a free name (of a data set, a family)."""
    return sorted({key for (group, _), node in SCHEMAS.items() for key, _ in _declared(node, group or "")})


def is_known(name: str) -> bool:
    """Whether the schema declares a dotted key."""
    return any(_matches(name, key) for key in known_keys())


def unknown_key(
    name: str, parent: str, siblings: Iterable[str], *, candidates: Iterable[str] = (), where: str = ""
) -> ActshiftError:
    """The error for a key that does not exist, though `siblings` do below `parent`."""
    there = sorted(siblings)
    known = [*(f"{parent}.{key}".lstrip(".") for key in there), *candidates]
    (group, _, _), (_, _, last) = name.partition("."), name.rpartition(".")
    deeper = [key for key in known if key.startswith(f"{group}.") and key.endswith(f".{last}")]
    near = deeper or difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    level = f"below '{parent}'" if parent else "at the top"
    return ActshiftError(
        f"unknown config key '{name}'{where}.{hint} Allowed {level}: {', '.join(there) or 'nothing'}. "
        "`actshift run --cfg job` prints every key, `actshift list` every group."
    )


def known_below(name: str) -> tuple[str, list[str]]:
    """The longest part of a dotted key that is known, and the keys that there are below it."""
    parts = name.split(".")
    for known in range(len(parts) - 1, -1, -1):
        parent = ".".join(parts[:known])
        below = [key.split(".") for key in known_keys() if key.count(".") == known]
        names = {key[known] for key in below if not known or _matches(parent, ".".join(key[:known]))}
        if names:
            return parent, sorted(names)
    return "", []


def group_keys(node: type) -> Iterator[str]:
    """The dotted keys of a structured config, below each group that it is the schema of."""
    for (group, _), candidate in SCHEMAS.items():
        if candidate is node and group is not None:
            yield from (key for key, _ in _declared(node, group))


def _matches(name: str, key: str) -> bool:
    parts, wanted = name.split("."), key.split(".")
    return len(parts) == len(wanted) and all(w in ("*", part) for part, w in zip(parts, wanted, strict=True))


def _metadata(name: str) -> dict[str, Any]:
    """What the fields of the schema declare under a name of their metadata, by dotted key."""
    declared = (pair for (group, _), node in SCHEMAS.items() for pair in _declared(node, group or ""))
    return {key: entry.metadata[name] for key, entry in declared if entry is not None and name in entry.metadata}


def _declared(node: type, parent: str) -> Iterator[tuple[str, Field[Any] | None]]:
    """Each dotted key of a structured config below a parent, with its field; a free name has none."""
    hints = get_type_hints(node)
    for entry in fields(node):
        key = f"{parent}.{entry.name}".lstrip(".")
        yield key, entry
        yield from _declared_below(hints[entry.name], key)


def _declared_below(hint: Any, key: str) -> Iterator[tuple[str, Field[Any] | None]]:
    if is_dataclass(hint):
        yield from _declared(hint, key)  # type: ignore[arg-type]
    elif get_origin(hint) is dict:
        yield f"{key}.*", None
        yield from _declared_below(get_args(hint)[1], f"{key}.*")
    else:
        for argument in get_args(hint):
            if is_dataclass(argument):
                yield from _declared(argument, key)  # type: ignore[arg-type]
