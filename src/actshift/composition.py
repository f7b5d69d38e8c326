"""From overrides to a resolved, validated configuration: Hydra composes, every error says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from actshift import schema
from actshift.errors import ActshiftError, unknown
from actshift.paths import conf_dir
from actshift.validation import validate

SCHEMAS = {
    ("model", "model_schema"): schema.ModelConfig,
    ("method", "sft_schema"): schema.SftConfig,
    ("method", "lora_schema"): schema.LoraConfig,
    ("method", "steering_schema"): schema.SteeringConfig,
    ("dataset", "dataset_schema"): schema.DatasetConfig,
    ("protocol", "protocol_schema"): schema.ProtocolConfig,
    ("hardware", "hardware_schema"): schema.HardwareConfig,
    ("logger", "logger_schema"): schema.LoggerConfig,
    ("sweep", "sweep_schema"): schema.SweepConfig,
    (None, "config_schema"): schema.Config,
}


@cache
def register_schemas() -> None:
    """Put the structured configs where the YAML files' defaults lists look for them."""
    from hydra.core.config_store import ConfigStore

    for (group, name), node in SCHEMAS.items():
        ConfigStore.instance().store(group=group, name=name, node=node)


def groups() -> dict[str, list[str]]:
    """The config groups and the options that each has, from the files alone."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(conf_dir().iterdir())
        if folder.is_dir()
    }


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of some Hydra overrides, as plain dicts and lists.

    Errors: an unknown option or key with its nearest match, a value of the wrong type, an impossible value.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    register_schemas()
    check_names(overrides)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra_compose("config", overrides=list(overrides))
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ActshiftError(f"this configuration does not compose: {_first_lines(error)}") from error
    assert isinstance(config, dict)
    validate(config)
    return config  # type: ignore[return-value]


def check_names(overrides: Sequence[str]) -> None:
    """Refuse an override whose group option or key does not exist, before Hydra does, naming the nearest that does."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ActshiftError(f"override '{error.override}' cannot be read: {_first_lines(error)}") from error
    options, keys = groups(), known_keys()
    for override in parsed:
        name = override.key_or_group
        if name.startswith("hydra"):
            continue
        if name in options:
            for value in _values(override.value()):
                if value not in (*options[name], None):
                    raise unknown(name, value, options[name], where=f"the override {name}=... (files in conf/{name}/)")
        elif not override.is_delete() and not any(_matches(name, key) for key in keys):
            near = difflib.get_close_matches(name, [*keys, *options], n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ActshiftError(
                f"unknown config key '{name}' in override '{override.input_line}'.{hint} "
                "`actshift run --cfg job` prints every key, `actshift list` every group."
            )


def known_keys() -> list[str]:
    """Every dotted key that the schema declares; `*` stands for a free name (of a data set, a family)."""
    return sorted(set(_keys(schema.Config)) | {key for node in SCHEMAS.values() for key in _group_keys(node)})


def _group_keys(node: type) -> Iterator[str]:
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


def _matches(name: str, key: str) -> bool:
    parts, wanted = name.split("."), key.split(".")
    return len(parts) == len(wanted) and all(w in ("*", part) for part, w in zip(parts, wanted, strict=True))


def _values(value: Any) -> Iterable[Any]:
    """The options that an override names: one, or each of a sweep `a,b`."""
    if hasattr(value, "list"):
        return [getattr(item, "text", item) for item in value.list]
    return [None] if value in (None, "null") else [getattr(value, "text", value)]


def _first_lines(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:4] if line.strip())


def cell_of(config: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """(model, method, dataset, protocol): the table cell that a run belongs to."""
    return tuple(config[group]["name"] for group in ("model", "method", "dataset", "protocol"))  # type: ignore[return-value]
