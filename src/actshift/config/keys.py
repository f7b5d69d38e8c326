"""The dotted keys that a configuration may have, and the values of those that are a choice."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from actshift.config import analysis_schema, data_schema, schema
from actshift.config.schema import EVALUATE, EXECUTIONS, OPTIMIZERS, SCORINGS, SELECTIONS, STAGES
from actshift.data.chat import FORMS
from actshift.data.splits import OVERLAPS
from actshift.methods import KINDS
from actshift.models.architectures import ARCHITECTURES
from actshift.tasks import CUSTOM, TASKS
from actshift.tasks.rules import RULES
from actshift.tasks.templated import Templated

SCHEMAS: dict[tuple[str | None, str], type] = {
    ("model", "model_schema"): schema.ModelConfig,
    **{("method", f"{name}_schema"): kind.config for name, kind in KINDS.items()},
    ("dataset", "dataset_schema"): data_schema.DatasetConfig,
    ("protocol", "protocol_schema"): schema.ProtocolConfig,
    ("hardware", "hardware_schema"): schema.HardwareConfig,
    ("logger", "logger_schema"): schema.LoggerConfig,
    ("sweep", "sweep_schema"): schema.SweepConfig,
    ("analysis", "theory_schema"): analysis_schema.TheoryConfig,
    ("analysis", "oracle_schema"): analysis_schema.OracleConfig,
    ("analysis", "overlap_schema"): analysis_schema.OverlapConfig,
    ("analysis", "shares_schema"): analysis_schema.SharesConfig,
    ("analysis", "cosines_schema"): analysis_schema.CosinesConfig,
    ("analysis", "norms_schema"): analysis_schema.NormsConfig,
    ("analysis", "retention_schema"): analysis_schema.RetentionConfig,
    ("analysis", "continuations_schema"): analysis_schema.ContinuationsConfig,
    (None, "config_schema"): schema.Config,
}
"""The structured configurations, by group and the name under which a YAML's defaults list takes them."""

CHOICES: dict[str, Collection[str | None]] = {
    "stage": (*STAGES, EVALUATE),
    "execution": EXECUTIONS,
    "selection": SELECTIONS,
    "model.source": ("hub", "embedded", "random", "local", "package"),
    "model.architecture": ARCHITECTURES,
    "model.attention": ("sdpa", "eager"),
    "method.kind": KINDS,
    "dataset.task": (*TASKS, Templated.name, CUSTOM),
    "dataset.kind": ("benchmark", "instruction"),
    "data.source": ("hub", "local", "procedural"),
    "data.overlap": OVERLAPS,
    "training.schedule.kind": ("constant", "linear", "cosine"),
    "training.precision": ("float32", "tf32", "bfloat16"),
    "training.optimizer": OPTIMIZERS,
    "training.overlong": ("cut", "drop"),
    "protocol.chat": (*FORMS, None),
    "evaluation.rule": RULES,
    "evaluation.scoring": SCORINGS,
    "hardware.device": ("auto", "cpu", "cuda"),
    "logger.mode": (None, "online", "offline"),
}
"""The values that a key may have, where it is a choice."""


@cache
def known_keys() -> list[str]:
    """Every dotted key that the schema declares; `*` stands for a free name (of a data set, a family)."""
    return sorted(set(_keys(schema.Config)) | {key for node in SCHEMAS.values() for key in group_keys(node)})


def group_keys(node: type) -> Iterator[str]:
    """The dotted keys of a structured config, below each group that it is the schema of."""
    for (group, _), candidate in SCHEMAS.items():
        if candidate is node and group is not None:
            yield from (f"{group}.{key}" for key in _keys(node))


def _keys(node: type) -> Iterator[str]:
    hints = get_type_hints(node)
    for entry in fields(node):
        yield entry.name
        yield from (f"{entry.name}.{key}" for key in _keys_below(hints[entry.name]))


def _keys_below(hint: Any) -> Iterator[str]:
    if is_dataclass(hint):
        yield from _keys(hint)  # type: ignore[arg-type]
    elif get_origin(hint) is dict:
        yield "*"
        yield from (f"*.{key}" for key in _keys_below(get_args(hint)[1]))
    else:
        for argument in get_args(hint):
            if is_dataclass(argument):
                yield from _keys(argument)  # type: ignore[arg-type]
