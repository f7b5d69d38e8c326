"""Private interfaces of other libraries: all that this package uses stand here, each behind a function of its own.

A library may change such an interface in any release. `tests/unit/test_private_interfaces.py` has a test for each, so
that what broke is named. Every import is inside its function, so that none is paid for in vain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, tzinfo
from functools import cache
from typing import Any, Self


def multirun_jobs(parsed_overrides: Sequence[Any]) -> list[list[str]]:
    """The overrides of each job of a multirun, as Hydra's own sweeper combines them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (jobs,) = BasicSweeper.split_arguments(list(parsed_overrides), max_batch_size=None)
    return [list(job) for job in jobs]


def torchao_adamw() -> type:
    """torchao's AdamW over plain tensors, the base class of its low-memory optimizers."""
    import torchao.optim

    kind: type = torchao.optim._AdamW
    return kind


def torchao_state_8bit() -> type:
    """The tensor type in which torchao keeps optimizer states of 8 bits."""
    from torchao.optim.subclass_8bit import OptimState8bit

    kind: type = OptimState8bit
    return kind


def attention_functions() -> Any:
    """transformers' registry of attention implementations by name."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS


def attention_implementation(config: Any) -> str:
    """The name of the attention implementation that a model looks up at each pass."""
    return str(config._attn_implementation)


def set_attention_implementation(config: Any, name: str) -> None:
    """Let a model look up another attention implementation, without rebuilding anything."""
    config._attn_implementation = name


def commit_of(config: Any) -> str | None:
    """The hub's commit that a model was loaded from, where it came from the hub."""
    commit: str | None = getattr(config, "_commit_hash", None)
    return commit


def set_commit(config: Any, commit: str) -> None:
    """Note the hub's commit of a model that was opened as a folder of the hub's cache."""
    config._commit_hash = commit


@contextmanager
def hub_offline() -> Iterator[None]:
    """As if HF_HUB_OFFLINE=1 had been set when huggingface_hub was imported: inside, its clients refuse to connect."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def _clock_of(day: datetime) -> type[datetime]:
    """A `datetime` whose `now` is always this day: one class a day, since prompts are rendered by the thousand."""

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(day.year, day.month, day.day, tzinfo=tz)

    return Fixed


@contextmanager
def day_in_templates(day: datetime) -> Iterator[None]:
    """Let chat templates that ask for today's date be told this one: transformers gives them its `datetime.now`."""
    from transformers.utils import chat_template_utils

    module: Any = chat_template_utils
    before = module.datetime
    module.datetime = _clock_of(day)
    try:
        yield
    finally:
        module.datetime = before
