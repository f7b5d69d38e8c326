"""What a saved adapter says of itself: the `actshift.json` beside its tensors. Reading it needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actshift.config.composition import check_names, compose
from actshift.config.groups import groups
from actshift.config.identity import changed_keys, hashed_part, ignored_keys
from actshift.errors import ActshiftError
from actshift.schema.building import built, plain
from actshift.schema.config import EVALUATE, Config, ModelConfig
from actshift.schema.method import METHODS, MethodConfig
from actshift.store.records import IDENTITY, read_json

SCHEMA = 1
ADAPTER_CARD = "actshift.json"
TENSORS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
"""The last two are peft's names, which every method's adapter bears as far as it has such a file."""


@dataclass(frozen=True)
class AdapterCard:
    """An adapter: which run trained it, how its method is attached, and over which base model.

    `model` and `method` are the resolved config groups, `model_type` and `commit` what the loaded base model said of
    itself (the hub's commit where it came from there), `sha256` that of the tensors' file.
    """

    identity: str
    model: ModelConfig
    model_type: str
    commit: str | None
    method: MethodConfig
    dataset: str
    source: str
    protocol: str
    precision: str
    lr: float
    seed: int
    trainable_parameters: int
    diverged: bool
    sha256: str
    actshift: str
    schema: int = SCHEMA

    @classmethod
    def of(cls, config: Config, **facts: Any) -> AdapterCard:
        """The description of what a resolved run config trains; `facts` are the fields that no config holds."""
        return cls(
            model=config.model,
            method=config.method,
            dataset=config.dataset.name,
            source=config.data.source,
            protocol=config.protocol.name,
            precision=config.training.precision,
            lr=float(config.lr),
            seed=config.seed,
            actshift=version("actshift"),
            **facts,
        )

    def to_json(self) -> str:
        """The text of the description's file."""
        return json.dumps(plain(self), sort_keys=True, indent=1, allow_nan=False) + "\n"

    def check(self, config: Config, *, where: object) -> None:
        """Refuse a resolved config whose base model or method is another one, naming every key that differs.

        `where` is the adapter's folder, for the message. Keys that count towards no identity may differ.
        """
        for group, what in (("model", "over another base model"), ("method", "by another method")):
            of_adapter, of_request = (
                hashed_part({group: plain(getattr(each, group))}, ignore=ignored_keys()) for each in (self, config)
            )
            if changed := changed_keys(of_adapter, of_request):
                raise ActshiftError(
                    f"the adapter in {where} was trained {what} than the requested one (the adapter's -> the "
                    f"request's): {'; '.join(changed)}. Leave out the overrides of {group}, which the adapter "
                    "brings along, or name the adapter that belongs to them."
                )


def read_adapter_card(folder: Path) -> AdapterCard:
    """The description of the adapter in a folder.

    Errors: no such folder, an adapter of another program or of a newer version, a torn or incomplete description.
    """
    path = folder / ADAPTER_CARD
    if not path.is_file():
        raise ActshiftError(_absent(folder))
    data = read_json(path)
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise ActshiftError(
            f"{path} has schema {schema}, written by actshift {data.get('actshift', '(unknown)')}; this is actshift "
            f"{version('actshift')}, which reads schema {SCHEMA}. Update actshift to use this adapter."
        )
    names = {field.name for field in fields(AdapterCard)}
    if schema != SCHEMA or data.keys() != names:
        keys = set(data) if isinstance(data, dict) else set()
        raise ActshiftError(
            f"{path} does not describe an adapter of schema {SCHEMA}: missing {sorted(names - keys) or 'nothing'}, "
            f"unknown {sorted(keys - names) or 'nothing'}. Restore the file, or delete the folder and train again."
        )
    if not isinstance(data["identity"], str) or not IDENTITY.fullmatch(data["identity"]):
        raise ActshiftError(f"{path}: identity = {data['identity']!r} is not a run's identity. Restore the file.")
    method = built(METHODS.get(data["method"].get("kind"), MethodConfig), data["method"])
    return AdapterCard(**{**data, "model": built(ModelConfig, data["model"]), "method": method})


def adapters_in(results: Path) -> Iterator[tuple[Path, AdapterCard | ActshiftError]]:
    """The adapter folders of a results folder, each with its description or with what is wrong with it."""
    for folder in sorted(results.glob("runs/*/adapter")):
        try:
            yield folder, read_adapter_card(folder)
        except ActshiftError as error:
            yield folder, error


def compose_request(overrides: Sequence[str]) -> Config:
    """`compose`, where an evaluation (stage=evaluate) takes what its overrides leave open from its adapter.

    The base model, the method and the precision come as they were trained; the data set, its source and the protocol
    by name, so that their settings are today's.
    """
    given = _given(overrides)
    if given.get("stage") != EVALUATE or not given.get("adapter"):
        return compose(overrides)
    description = read_adapter_card(Path(str(given["adapter"])))
    known = groups()
    names = {"model": description.model.name, "method": description.method.name}
    names |= {"dataset": description.dataset, "protocol": description.protocol}
    defaults = [f"{group}={name}" for group, name in names.items() if group not in given and name in known[group]]
    defaults += [f"data.source={description.source}"] if "data.source" not in given else []
    config = compose([*defaults, *overrides])
    for group in ("model", "method"):
        if not any(key.split(".")[0] == group for key in given):
            config = replace(config, **{group: getattr(description, group)})
    if "training.precision" not in given:
        config = replace(config, training=replace(config.training, precision=description.precision))
    return config


def _given(overrides: Sequence[str]) -> dict[str, Any]:
    """The values of overrides by key or group."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    check_names(overrides)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    # Quoted text comes as an object that knows its quotes.
    return {one.key_or_group: getattr(one.value(), "text", one.value()) for one in parsed}


def _absent(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no adapter folder {folder}. `actshift adapters` lists those of a results folder."
    if (folder / "adapter" / ADAPTER_CARD).is_file():
        return f"{folder} is a run's folder: its adapter is {folder / 'adapter'}."
    if (folder / PEFT_CONFIG).is_file():
        return (
            f"{folder} holds an adapter of peft's that actshift did not train: it has no {ADAPTER_CARD}. "
            "Load it with peft.PeftModel.from_pretrained."
        )
    return f"{folder} holds no adapter: it has no {ADAPTER_CARD}. `actshift adapters` lists those of a results folder."
