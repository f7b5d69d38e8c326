"""Which devices the workers of this machine compute on: one GPU each, shared with other launchers, or the CPU's cores.

A GPU is claimed by a lock on a file, which the operating system gives back when the launcher that holds it ends.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from actshift.schema.config import HardwareConfig

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Claim:
    """A GPU that this process holds, as CUDA_VISIBLE_DEVICES names it, until `release`; None is the CPU."""

    def __init__(self, gpu: str | None, lock: TextIO | None = None) -> None:
        self.gpu, self._lock = gpu, lock

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's environment has beside the launcher's."""
        return {} if self.gpu is None else {VISIBLE: self.gpu}


class Devices:
    """The devices for the workers of one launcher; `count` is how many workers it may have at most.

    `hardware.workers` null means one worker a GPU, or on a CPU one for every `hardware.threads` cores; a number limits
    that. There are never more workers than GPUs.
    """

    def __init__(self, hardware: HardwareConfig, *, folder: Path | None = None) -> None:
        self._gpus = [] if hardware.device == "cpu" else visible_gpus()
        self._folder = folder or Path(tempfile.gettempdir())
        room = len(self._gpus) or max(1, usable_cores() // hardware.threads)
        wanted = hardware.workers or room
        self.count = min(room, wanted) if self._gpus else wanted

    def claim(self) -> Claim | None:
        """A device for one more worker: a GPU that no launcher of this machine holds; None where all are taken."""
        if not self._gpus:
            return Claim(None)
        for gpu in self._gpus:
            lock = _locked(self._folder / f"actshift-{os.getuid()}-gpu-{gpu}.lock")
            if lock is not None:
                return Claim(gpu, lock)
        return None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by UUID where nvidia-smi tells them, so that launchers agree on names."""
    listed = _nvidia_smi()
    given = os.environ.get(VISIBLE)
    if given is None:
        return [uuid for _, uuid in listed] or [str(index) for index in range(_device_count())]
    names = dict(listed)
    return [names.get(name, name) for each in given.split(",") if (name := each.strip()) not in ("", "-1")]


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _nvidia_smi() -> Sequence[tuple[str, str]]:
    """(index, UUID) of the machine's GPUs; none where there is no nvidia-smi, or torch could not use them."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    if not _device_count():
        return []
    lines = (line.partition(",") for line in done.stdout.splitlines())
    return [(index.strip(), uuid.strip()) for index, _, uuid in lines]


def _device_count() -> int:
    import torch

    return torch.cuda.device_count()


def _locked(path: Path) -> TextIO | None:
    """The file, open and locked by this process alone; None where another has the lock."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
