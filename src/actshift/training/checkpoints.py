"""Folders that are complete or do not exist: mid-run checkpoints and trained adapters.

Everything is safetensors and JSON (see `actshift.files.new_folder`).
"""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from actshift.errors import ActshiftError
from actshift.files import new_folder, write_file
from actshift.methods.base import Adaptation


def write_folder(path: Path, *, tensors: Mapping[str, Mapping[str, torch.Tensor]], facts: Mapping[str, Any]) -> None:
    """Write `<name>.safetensors` for each group of tensors and `facts.json` as one new folder, replacing an old one."""
    with new_folder(path) as partial:
        for name, group in tensors.items():
            save_file({key: tensor.contiguous() for key, tensor in group.items()}, partial / f"{name}.safetensors")
        write_file(partial / "facts.json", json.dumps(facts))


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a folder, or None where there is no complete one."""
    try:
        facts: dict[str, Any] = json.loads((path / "facts.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return facts


def read_tensors(path: Path, name: str) -> dict[str, torch.Tensor]:
    """One group of tensors of a folder."""
    tensors: dict[str, torch.Tensor] = load_file(path / f"{name}.safetensors")
    return tensors


_GROUPS = ("adapter", "optimizer", "random")
"""The groups of tensors that every checkpoint has."""


class Checkpoints:
    """The mid-run checkpoints of one run: ``checkpoint-<step>`` folders, of which the newest complete one counts.

    They are due every so many steps (0: never), after the step at which the process was told to `stop`, and after the
    step `pause`, at which a training pauses to be continued later. `data` is the fingerprint of the rows that are
    trained on: a checkpoint of other rows is refused. `say` is told where a training goes on from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        data: str | None = None,
        stop: threading.Event | None = None,
        pause: int | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._data = data
        self._every = every
        self._stop = stop
        self._pause = pause
        self._say = say
        self.saved_after: int | None = None
        """The step of the last checkpoint that this process wrote."""

    def last(self, steps: int) -> int:
        """The step after which a training of so many steps ends or pauses."""
        return steps if self._pause is None else min(self._pause, steps)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps."""
        if step == self._pause or (self._stop is not None and self._stop.is_set()):
            return True
        return self._every > 0 and step % self._every == 0

    def save(
        self, step: int, *, adaptation: Adaptation, optimizer: torch.optim.Optimizer, facts: Mapping[str, Any]
    ) -> None:
        """Everything that the steps after `step` depend on; other checkpoints go once this one is complete."""
        state = optimizer.state_dict()
        moments = {f"{i}.{key}": tensor for i, group in state["state"].items() for key, tensor in group.items()}
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        folder = self._folder / f"checkpoint-{step:08d}"
        tensors = {"adapter": _state(adaptation), "optimizer": moments, "random": random}
        content = {"tensors": tensors, "facts": {"step": step, "data": self._data, **facts}}
        try:
            write_folder(folder, **content)
        except (OSError, SafetensorError) as error:
            # An older checkpoint is as large as this one: without it there is room again.
            if not _is_full(error) or not self._complete():
                raise
            self._remove()
            write_folder(folder, **content)
        self._remove(keep=folder)
        self.saved_after = step

    def restore(self, *, adaptation: Adaptation, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Take over the newest readable checkpoint and return its facts; None where there is none."""
        for folder in reversed(self._complete()):
            facts = read_facts(folder)
            if facts is None or not all(_readable(folder / f"{name}.safetensors") for name in _GROUPS):
                self._say(f"{folder} is damaged, and is left aside: the training begins from what there is before it")
                continue
            self._refuse_other_rows(facts, folder)
            _load_state(adaptation, read_tensors(folder, "adapter"))
            state = optimizer.state_dict()
            state["state"] = {}
            for key, tensor in read_tensors(folder, "optimizer").items():
                parameter, name = key.split(".", 1)
                state["state"].setdefault(int(parameter), {})[name] = tensor
            optimizer.load_state_dict(state)
            random = read_tensors(folder, "random")
            torch.set_rng_state(random["cpu"])
            if "cuda" in random and torch.cuda.is_available():
                torch.cuda.set_rng_state(random["cuda"])
            self._say(f"the training goes on after step {facts['step']}, from {folder}")
            return facts
        return None

    def _refuse_other_rows(self, facts: Mapping[str, Any], folder: Path) -> None:
        """Refuse to go on, over the rows of today, from what was trained on other rows."""
        kept = facts.get("data")  # checkpoints of older versions have none
        if kept is not None and kept != self._data:
            raise ActshiftError(
                f"{folder} was trained on rows with the fingerprint {kept}, and the training rows now have "
                f"{self._data}. Restore the data to continue this run, or delete the checkpoint to train it anew on "
                "the rows of today."
            )

    def clear(self) -> None:
        """Remove them all: the run is done."""
        self._remove()

    def _remove(self, *, keep: Path | None = None) -> None:
        """Remove the checkpoints, those that a killed process left half-written among them."""
        for folder in [*self._folder.glob("checkpoint-*"), *self._folder.glob(".checkpoint-*")]:
            if folder != keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*"))


def _is_full(error: OSError | SafetensorError) -> bool:
    """Whether a disk or a quota had no room; safetensors has the number of the system's error in its text alone."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in numbers or any(f"os error {number}" in str(error) for number in numbers)


def _state(adaptation: Adaptation) -> dict[str, torch.Tensor]:
    """The state of every replica, its number before each name."""
    states = [adaptation.state_dict(replica) for replica in range(adaptation.replicas)]
    return {f"{replica}/{name}": tensor for replica, state in enumerate(states) for name, tensor in state.items()}


def _load_state(adaptation: Adaptation, state: Mapping[str, torch.Tensor]) -> None:
    for replica in range(adaptation.replicas):
        mark = f"{replica}/"
        of_replica = {name.removeprefix(mark): tensor for name, tensor in state.items() if name.startswith(mark)}
        adaptation.load_state_dict(of_replica, replica)


def _readable(file: Path) -> bool:
    try:
        with safe_open(file, "pt") as tensors:
            return len(tensors.keys()) >= 0
    except (SafetensorError, OSError):
        return False
