"""Timing side by side: contestants take turns, ratios are taken within a turn, and the machine is named."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from actshift.analysis.latency import alternate as alternate
from actshift.observe.provenance import code_provenance

T = TypeVar("T")
PRODUCTS = tuple(getattr(torch.ops.aten, name) for name in ("mm", "addmm", "bmm", "baddbmm"))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of some measurements, rounded to four digits."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": digits(middle), "q1": digits(low), "q3": digits(high), "n": len(values)}


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times as long they took, turn by turn."""
    return spread([their / our for their, our in zip(theirs, ours, strict=True)])


def digits(value: float) -> float:
    return float(f"{value:.4g}")


def timed(
    work: Callable[[], T], *, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, T]:
    """Seconds that some work took by `clock`, what it left to do on the device included, and its result."""
    synchronize(device)
    started = clock()
    result = work()
    synchronize(device)
    return clock() - started, result


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(*, device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Operations a second of the best of three shapes of torch's matrix product, a multiply-add counted as two."""
    sizes = (4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        left @ right
        spent, done = 0.0, 0
        while spent < seconds / len(sizes):
            took, _ = timed(lambda left=left, right=right: left @ right, device=device)  # type: ignore[misc]
            spent, done = spent + took, done + 1
            best = max(best, 2 * size**3 / took)
    return best


def mean_matmul_rate(*, device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of square matrix products of 512, all of that time; of this process where it is a CPU's."""
    left, right = (torch.randn(512, 512, device=device, dtype=dtype) for _ in range(2))
    begun, done = time.process_time(), 0
    while (spent := time.process_time() - begun) < seconds:
        left @ right
        done += 1
    return 2 * 512**3 * done / spent


def products(work: Callable[[], object]) -> float:
    """Operations of the matrix products that some work calls, a multiply-add counted as two.

    The attention that a fused kernel computes and all that is no product are left out.
    """
    with _Products() as counted:
        work()
    return counted.operations


class _Products(TorchDispatchMode):
    operations = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in PRODUCTS:
            with self:  # where nothing is recorded for a backward pass, a linear layer comes here as one
                found = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if found is NotImplemented else found
        found = func(*args, **kwargs)
        self.operations += flop_registry[func.overloadpacket](*args, **kwargs, out_val=found)
        return found


def least_seconds(work: Callable[[], object], *, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds that some work would take if its products ran at the machine's rate and nothing else took any time."""
    return products(work) / matmul_rate(device=device, dtype=dtype)


def machine(device: torch.device) -> dict[str, Any]:
    """The processor, its cores, torch's threads, the load beside us, and the versions."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "device": device.type,
        "code": code_provenance(),
    }
    if device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def write(folder: Path, name: str, figures: Mapping[str, Any], *, device: torch.device) -> Path:
    """One bench as `<folder>/<name>.json`, with the machine in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**figures, "machine": machine(device)}, indent=1, sort_keys=True) + "\n")
    return path


class PeakMemory:
    """Bytes above what was held at the start, at the highest: a CUDA device's, or on Linux this process's.

    A process keeps its highest mark until it is told to forget it, which Linux allows.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self._start = _status("VmRSS")

    def bytes(self) -> dict[str, int]:
        cuda = self._device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self._device) if cuda else _status("VmHWM")
        return {"peak_bytes": peak, "above_model_bytes": peak - self._start}


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
