"""Arguments of transformers' forward passes whose names differ between its versions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from torch import nn
from transformers import Cache

from actshift.errors import ActshiftError

CACHE_NAMES = ("cache", "past_key_values")
"""The key/value cache of a forward pass: `cache` since transformers 5.24, `past_key_values` before."""


def cache_argument(model: nn.Module) -> str:
    """The name of the argument under which this model's forward pass takes its key/value cache.

    Errors: a model whose forward pass has no argument of a known name.
    """
    return _cache_argument(type(model).forward)


def passed_cache(arguments: Mapping[str, Any]) -> Cache | None:
    """The key/value cache among the bound arguments of a forward pass, under any of its names; None where none is.

    transformers still takes the older name, which `inspect.Signature.bind` then lists under "kwargs".
    """
    named = dict(arguments.get("kwargs", {})) | dict(arguments)
    return next((named[name] for name in CACHE_NAMES if named.get(name) is not None), None)


@lru_cache
def _cache_argument(forward: Callable[..., Any]) -> str:
    parameters = inspect.signature(forward).parameters
    for name in CACHE_NAMES:
        if name in parameters:
            return name
    raise ActshiftError(
        f"{forward.__qualname__} takes no key/value cache by a name that actshift knows ({', '.join(CACHE_NAMES)}). "
        "The installed transformers is newer than this version of actshift: `make setup` installs a tested one."
    )
