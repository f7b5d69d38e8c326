"""Where a run's time goes, by phase, and a trace of its first steps (``actshift run profile=true``)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

PHASES = ("data", "forward", "backward", "optimizer", "evaluation", "trace")
"""What is timed (`trace` is taking the trace itself); everything else is `other`."""
TRACED = 20
"""Training steps in the trace: enough to look at, few enough to open."""

_current: ContextVar[TimeProfile | None] = ContextVar("profile", default=None)


class TimeProfile:
    """Seconds by phase, a phase within another counted to the inner one alone.

    On CUDA each phase ends with a synchronization, so that it is charged with what it started; that slows a run.
    """

    def __init__(self, trace: Path) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._path, self._started = trace, time.perf_counter()
        self._stack: list[str] = ["other"]
        self._mark = self._started
        self._trace: Any = None
        self._steps = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge()
        self._stack.append(name)
        try:
            with torch.profiler.record_function(name):
                yield
        finally:
            self._charge()
            self._stack.pop()

    def step(self) -> None:
        """A training step begins: the trace starts with the first and is written after `TRACED` of them."""
        self._steps += 1
        if self._steps == 1:
            with self.phase("trace"):
                self._trace = torch.profiler.profile()
                self._trace.__enter__()
        elif self._steps > TRACED:
            self.end_trace()

    def end_trace(self) -> None:
        """Write the trace, if one is being taken."""
        if self._trace is not None:
            trace, self._trace = self._trace, None
            with self.phase("trace"):
                trace.__exit__(None, None, None)
                self._path.parent.mkdir(parents=True, exist_ok=True)
                trace.export_chrome_trace(str(self._path))

    def text(self) -> str:
        """The phases as lines: seconds, and shares of the whole."""
        self._charge()
        whole = sum(self.seconds.values())
        lines = [
            f"{name:<12}{self.seconds[name]:>9.2f} s {self.seconds[name] / whole:>7.1%}" for name in (*PHASES, "other")
        ]
        trace = [f"trace of {min(self._steps, TRACED)} steps: {self._path}"] if self._path.exists() else []
        return "\n".join([f"{'all':<12}{whole:>9.2f} s", *lines, *trace])

    def _charge(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._mark
        self._mark = now


@contextmanager
def profiling(trace: Path) -> Iterator[TimeProfile]:
    """Time the phases of what is done inside."""
    profile = TimeProfile(trace)
    token = _current.set(profile)
    try:
        yield profile
    finally:
        _current.reset(token)
        profile.end_trace()


def phase(name: str) -> AbstractContextManager[None]:
    """A phase of whatever is being profiled; costs nothing where nothing is."""
    profile = _current.get()
    return nullcontext() if profile is None else profile.phase(name)


def step() -> None:
    """A training step of whatever is being profiled begins."""
    profile = _current.get()
    if profile is not None:
        profile.step()
