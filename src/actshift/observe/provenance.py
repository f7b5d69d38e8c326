"""Where a number comes from: versions, commit, machine."""

from __future__ import annotations

import platform
import resource
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actshift.paths import PACKAGE

LIBRARIES = ("torch", "transformers", "peft", "datasets", "tokenizers")


@cache
def code_provenance() -> dict[str, Any]:
    """The versions at work, and the commit of the checkout where there is one (`dirty`: it was changed since)."""
    # An installed package can lie inside somebody else's checkout, whose commit says nothing about it.
    ours = _git("ls-files", "--error-unmatch", str(Path(__file__).relative_to(PACKAGE))) is not None
    commit = _git("rev-parse", "HEAD") if ours else None
    status = None if commit is None else _git("status", "--porcelain", "--", ":/src", ":/conf")
    return {
        "actshift": version("actshift"),
        "commit": commit,
        "dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def now() -> str:
    """This moment in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def reset_peak_memory(device_type: str) -> None:
    """Let `peak_memory` count from here, where that can be: a CPU's process keeps its highest mark."""
    if device_type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_memory(device_type: str) -> int:
    """Bytes: the most that was allocated on a CUDA device, or the most that this process held on a CPU."""
    if device_type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
