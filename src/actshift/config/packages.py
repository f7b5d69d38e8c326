"""Optional packages: what needs them, and a refusal before anything runs where one is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from actshift.errors import ActshiftError
from actshift.methods.registry import PARAMETERIZATIONS
from actshift.schema.config import OPTIMIZERS, Config
from actshift.schema.method import steering_part


@dataclass(frozen=True)
class OptionalPackage:
    """A package that some configurations need: which, where it comes from, and what to choose instead."""

    module: str
    needed_by: Callable[[Config], str | None]
    """What of a configuration needs it, as the message names it; None where nothing does."""
    install: str
    instead: str


OPTIONAL_PACKAGES = (
    OptionalPackage(
        "torchao",
        lambda config: _if(OPTIMIZERS[config.training.optimizer], f"training.optimizer = {config.training.optimizer}"),
        "pip install 'actshift[optimizers]'",
        "set training.optimizer=adamw",
    ),
    OptionalPackage(
        "wandb",
        lambda config: _if(config.logger.name == "wandb", "logger = wandb"),
        "pip install 'actshift[wandb]'",
        "set logger=none",
    ),
    OptionalPackage(
        "pyreft",
        lambda config: _if(_package(config) == "pyreft", f"method {config.method.name}"),
        "uv pip install -e '.[reft]' in a checkout, which corrects pyreft's requirements",
        "choose another method",
    ),
    OptionalPackage(
        "gguf",
        lambda config: _if(str(config.model.path).endswith(".gguf"), f"model {config.model.name}"),
        "pip install gguf",
        "take a folder of safetensors",
    ),
)


def _if(condition: Any, text: str) -> str | None:
    return text if condition else None


def _package(config: Config) -> str | None:
    """The package that the parameterization of a steering method needs, or of the steering part of joint training."""
    steering = steering_part(config.method)
    entry = PARAMETERIZATIONS.get(steering.parameterization) if steering else None
    return entry.package if entry else None


def validate_installed(config: Config) -> None:
    """Refuse what needs an optional package that is not installed, before any model or data are loaded."""
    for package in OPTIONAL_PACKAGES:
        what = package.needed_by(config)
        if what is not None and find_spec(package.module) is None:
            raise ActshiftError(
                f"{what} needs {package.module}, which is not installed here. Install it ({package.install}), or "
                f"{package.instead}."
            )
