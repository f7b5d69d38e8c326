"""What a process keeps between the runs and evaluations that it does: where it computes, what it has loaded."""

from __future__ import annotations

import json
import sys
import threading

import torch

from actshift.errors import ActshiftError
from actshift.models.loading import Base, computed_precision, load_base, set_products
from actshift.runtime.loaded import LoadedData
from actshift.schema.building import plain
from actshift.schema.config import Config, HardwareConfig


class Interrupted(BaseException):
    """The process was told to stop: what was trained so far is in a checkpoint, and the run is not a failed one."""


class Paused(BaseException):
    """A run trained the share of its steps that was asked for: it can be continued, and is not a failed one."""


class Session(LoadedData):
    """What stays warm between the runs of one process: the base model that was loaded last, and its data.

    Once `stop` is set, the run at hand checkpoints and ends in `Interrupted`.
    """

    def __init__(self, *, stop: threading.Event | None = None) -> None:
        super().__init__()
        self.stop = stop or threading.Event()
        self._base: tuple[str, Base] | None = None

    def base(self, config: Config) -> Base:
        """The base model of a configuration, loaded anew only if it is another one than the last.

        From here on the process multiplies matrices in the configuration's precision.
        """
        device, precision = pick_device(config.hardware), config.training.precision
        key = json.dumps([plain(config.model), precision, str(device)], sort_keys=True)
        set_products(precision, device)
        if self._base is None or self._base[0] != key:
            self._base = None  # two base models never share the device
            self._base = key, load_base(config.model, precision=precision, device=device)
            if (computed := computed_precision(precision, device)) != precision:
                print(f"training.precision={precision} is {computed} on this {device.type} device", file=sys.stderr)
        return self._base[1]


def pick_device(hardware: HardwareConfig) -> torch.device:
    """The device of a hardware config; `auto` takes CUDA where there is some. Errors: CUDA where there is none."""
    if hardware.device == "cuda" and not torch.cuda.is_available():
        raise ActshiftError(
            f"hardware.device = cuda (hardware={hardware.name}), but torch {torch.__version__} sees no CUDA device "
            "here. Use hardware=cpu without hardware.device=cuda, or install a CUDA build of torch."
        )
    if hardware.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(hardware.device)


def set_threads(hardware: HardwareConfig) -> None:
    """Let torch use a hardware config's number of threads, where the device is the CPU."""
    if pick_device(hardware).type == "cpu":
        torch.set_num_threads(hardware.threads)
