"""From overrides to a resolved, validated configuration: Hydra composes, every error says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from actshift.config.groups import folders_shown, groups, option_shown, search_path
from actshift.config.keys import SCHEMAS, choices, is_known, known_below, known_keys, unknown_key
from actshift.config.overrides import override as quoted
from actshift.config.validation import validate
from actshift.errors import ActshiftError, impossible, unknown
from actshift.libraries.user_code import code_sha256
from actshift.models.weights import describe_weights, weights_path
from actshift.paths import conf_dir
from actshift.schema.building import config_of
from actshift.schema.config import Config, SweepConfig
from actshift.schema.data import ORIGINS
from actshift.tasks import CUSTOM

if TYPE_CHECKING:
    from omegaconf import DictConfig


UNSET = ("analysis", "sweep")
"""The groups of which a configuration chooses no option by itself."""


@cache
def register_schemas() -> None:
    """Put the structured configs where the YAML files' defaults lists look for them."""
    from hydra.core.config_store import ConfigStore

    for (group, name), node in SCHEMAS.items():
        ConfigStore.instance().store(group=group, name=name, node=node)


def compose(overrides: Sequence[str]) -> Config:
    """The resolved configuration of some Hydra overrides.

    Errors: an unknown option or key with its nearest match, a value of the wrong type, an impossible value.
    """
    return resolved(composed(overrides))


def composed(overrides: Sequence[str]) -> DictConfig:
    """What Hydra composes of some overrides: interpolations as they are written, values not checked yet."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register_schemas()
    check_names(overrides)
    GlobalHydra.instance().clear()
    with _explaining():
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = hydra_compose("config", overrides=[*search_path(), *overrides])
        _check_keys(config)
        _check_names_of_files(config, overrides)
    return config


def resolved(config: DictConfig, *, planned: bool = False) -> Config:
    """A composed configuration with its interpolations resolved, and refused where one is impossible (`validate`)."""
    from omegaconf import OmegaConf

    with _explaining():
        # Before the rest is resolved: `data.origin` points to the data set's settings of this name.
        if config.data.source not in ORIGINS:
            raise unknown("data.source", config.data.source, ORIGINS, where="data.source=...")
        _check_prescribed(config)
        if config.model.source == "local" and config.model.sha256 is None:
            for key, value in describe_weights(weights_path(config.model)).items():
                OmegaConf.update(config, f"model.{key}", value)
        for group, is_users in (("method", config.method.kind == "custom"), ("dataset", config.dataset.task == CUSTOM)):
            if is_users:
                where = f"{group}.target"
                OmegaConf.update(config, f"{group}.code", code_sha256(config[group].target, key=where))
        values = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
        analysis = {} if config.analysis is None else {"analysis": cast(type, OmegaConf.get_type(config, "analysis"))}
    typed = config_of(values, **analysis)
    if typed.sweep is not None:
        _check_axes(typed.sweep)
    validate(typed, planned=planned)
    return typed


def _check_prescribed(config: DictConfig) -> None:
    """Refuse a protocol for which a data set has no splits, and a family of methods for which one has no schedule."""
    protocol, dataset = config.protocol, config.dataset
    if protocol.name not in dataset.splits:
        where = f"protocol=..., or add dataset.splits.{protocol.name} to the data set's YAML"
        raise unknown(f"protocol of dataset {dataset.name}", protocol.name, dataset.splits, where=where)
    families = protocol.schedules[dataset.kind]
    if config.method.family not in families:
        raise unknown("method.family", config.method.family, families, where="method.family=... or the method's YAML")


@contextmanager
def _explaining() -> Iterator[None]:
    """What Hydra, OmegaConf and YAML refuse, in our words."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _explained(error) from error


def check_names(overrides: Sequence[str]) -> None:
    """Refuse an override whose group option or key does not exist, before Hydra does, naming the nearest that does."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise ActshiftError(
            f"override '{error.override}' cannot be read: {_unreadable(str(error.override), error)}"
        ) from error
    options = groups()
    chosen = {override.key_or_group for override in parsed}
    for override in parsed:
        name = override.key_or_group
        if re.match(r"hydra([./]|$)", name):
            _refuse_hydra_key(name)
            continue
        if override.is_delete():
            raise ActshiftError(
                f"override '{override.input_line}' deletes a key, and every key is needed: give '{name}' another value"
            )
        if name in options:
            for value in _values(override.value(), options[name]):
                if value not in options[name]:
                    where = f"the override {name}=... (a file of {folders_shown(name)})"
                    raise unknown(name, value, options[name], where=where)
        elif not is_known(name):
            raise unknown_key(name, *known_below(name), candidates=[*known_keys(), *options])
        elif (group := name.partition(".")[0]) in UNSET and group not in chosen:
            raise ActshiftError(f"{name} is set, and no {group} is chosen: name one with {group}=...")
        elif name in choices():
            allowed = sorted("null" if choice is None else choice for choice in choices()[name])
            for value in _values(override.value(), allowed):
                if value not in allowed and "${" not in value:  # an interpolation is checked once it is resolved
                    raise unknown(name, value, allowed, where=f"the override {name}=...")


def _unreadable(given: str, error: Exception) -> str:
    """Why an override cannot be read, and how it would be."""
    key, sign, value = given.partition("=")
    if not sign or not key or key != key.strip():
        return f"{_lines(error)}. An override is key=value, with no space beside the equals sign."
    return f'{_lines(error)}. Such a value takes quotation marks within those of the shell: "{quoted(key, value)}"'


def _refuse_hydra_key(name: str) -> None:
    """Refuse settings of Hydra's that have no effect here, with what does instead."""
    instead = {
        "hydra.searchpath": "give the folder of your own configurations with --config-dir FOLDER",
        "hydra.run.dir": "name the folder of results with results=FOLDER: Hydra writes no folder of its own",
        "hydra.sweep.dir": "name the folder of results with results=FOLDER: Hydra writes no folder of its own",
    }
    raise ActshiftError(
        f"{name} has no effect here: {instead.get(name, 'runs are not configured through the group hydra')}."
    )


def _check_names_of_files(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a file whose `name` is not the file's own, unless the request itself gives another name.

    Tables and records know a thing by that name, and one file would pose as another.
    """
    from omegaconf import OmegaConf

    options = groups()
    given = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    for group in ("model", "method", "dataset", "protocol"):
        option, node = given.get(group), config[group]
        named = option is None or OmegaConf.is_missing(node, "name") or f"{group}.name" in given
        if not named and option in options[group] and node.name != option:
            raise ActshiftError(
                f"{option_shown(group, option)} has the name '{node.name}', and a file's name is the name of what it "
                f"describes: write 'name: {option}' there, or rename the file."
            )


def _check_keys(node: Any, path: str = "") -> None:
    """Refuse a key that the schema does not declare: Hydra lets `+key=value` add one to a structured config."""
    from omegaconf import DictConfig, OmegaConf

    kind = OmegaConf.get_type(node)
    declared = [entry.name for entry in fields(kind)] if is_dataclass(kind) else list(node)
    for key in node:
        if key not in declared:
            raise unknown_key(f"{path}{key}", path.rstrip("."), declared)
        held = not (OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key))
        if held and isinstance(node[key], DictConfig):
            _check_keys(node[key], f"{path}{key}.")


def _check_axes(sweep: SweepConfig) -> None:
    """Refuse a sweep over options that do not exist."""
    options = groups()
    for group, names in {"model": sweep.models, "method": sweep.methods, "dataset": sweep.datasets}.items():
        for name in names:
            if name not in options[group]:
                raise unknown(group, name, options[group], where=f"sweep.{group}s (a file of {folders_shown(group)})")


_KINDS = {"Float": "a number", "Integer": "a whole number", "Boolean": "true or false"}
"""OmegaConf's names of kinds of values."""


def _explained(error: Exception) -> ActshiftError:
    """What Hydra or OmegaConf refuse, in our words where it is a common mistake about a key or its value."""
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        KeyValidationError,
        MissingMandatoryValue,
        ValidationError,
    )

    absent = (ConfigAttributeError, ConfigKeyError)
    causes = [error]
    while isinstance(cause := causes[-1].__cause__ or causes[-1].__context__, Exception):
        causes.append(cause)
    file = re.match(r"In '([\w./-]+)'", str(error))
    where = f" in {option_shown(*file[1].rsplit('/', 1))}" if file and "/" in file[1] else ""
    if lost := re.search(r"Could not load '([\w-]+)/([^']+)'", str(error)):
        options = [*groups()[lost[1]], *(name for group, name in SCHEMAS if group == lost[1])]
        return unknown(f"option of {lost[1]}", lost[2], options, where=f"the defaults list{where}")
    for cause in causes:
        key = getattr(cause, "full_key", None)
        if not key:
            continue
        if isinstance(cause, absent) and cause.parent_node is not None:
            return unknown_key(key, key.rpartition(".")[0], map(str, cause.parent_node), where=where)
        if isinstance(cause, MissingMandatoryValue):
            return ActshiftError(f"{key} has no value, and a run needs one: set it with {key}=... or in its YAML.")
        if isinstance(cause, KeyValidationError):
            return ActshiftError(
                f"{key.rpartition('.')[0]}{where} has a key that YAML does not read as text ({_lines(cause)}). Put it "
                'in quotation marks: "yes", "no", "on", "off", "true" and numbers are other values without them.'
            )
        if re.search(r"is not a subclass of \w+Config", str(cause)):
            _, below = known_below(f"{key}.*")
            return ActshiftError(f"{key}{where} is a group of keys: set one of them ({', '.join(below)}).")
        if "is not a ListConfig" in str(cause):
            return ActshiftError(f"{key}{where} is a list: write {key}=[a,b], within quotation marks for the shell.")
        converted = re.match(r"Value '(.*)' of type .* could not be converted to (\w+)", str(cause))
        if isinstance(cause, ValidationError) and converted and converted[2] in _KINDS:
            return impossible(key, converted[1] or "''", _KINDS[converted[2]])
    message, why = _lines(error), _lines(causes[min(1, len(causes) - 1)])
    return ActshiftError(f"this configuration does not compose: {message if why in message else f'{message}: {why}'}")


def _values(value: Any, options: Sequence[str]) -> Iterable[str]:
    """The options that an override names: one, or each of a sweep such as `a,b` or `glob(a*)`."""
    from hydra.core.override_parser.types import Glob

    if isinstance(value, Glob):
        return value.filter(list(options)) or [f"glob({', '.join(value.include)})"]
    return ["null" if item is None else str(getattr(item, "text", item)) for item in getattr(value, "list", [value])]


def _lines(error: Exception) -> str:
    """A message on one line, without OmegaConf's lines about its own types and Hydra's advice to go around them."""
    noise = ("reference_type=", "object_type=", "To append to your config", "See https://hydra.cc")
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(noise))


def cell_of(config: Config) -> tuple[str, str, str, str]:
    """(model, method, dataset, protocol): the table cell that a run belongs to."""
    return config.model.name, config.method.name, config.dataset.name, config.protocol.name
