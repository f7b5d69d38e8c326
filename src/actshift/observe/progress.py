"""Progress for people: a live line on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

LEAST_SECONDS = 0.5
"""A rate over less time than this says nothing: rows that were computed together are counted one after the other."""


class Progress:
    """Says nothing. The base of the others, and what a worker of a sweep uses."""

    def start(self, what: str) -> None:
        """A phase begins."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """So much of the phase is done."""

    def note(self, text: str) -> None:
        """Something that is worth a line of its own, such as where a training goes on from."""

    def end(self) -> None:
        """The phase is over."""


class PrintedProgress(Progress):
    """Rate and remaining time: rewritten in place on a terminal, else a line at most every `every` seconds."""

    def __init__(self, stream: TextIO | None = None, *, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._every = 0.1 if self._live else every
        self.start("")

    def start(self, what: str) -> None:
        self._what, self._shown = what, time.monotonic()
        self._first: tuple[int, float] | None = None
        self._last_line = ""

    def update(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        # The rate counts from the first update, so that resumed work is not taken for fast work.
        self._first = self._first or (done, now)
        if now - self._shown < self._every and done < total:
            return
        self._shown = now
        count, seconds = done - self._first[0], now - self._first[1]
        rate = count / seconds if count and seconds >= LEAST_SECONDS else 0.0
        parts = [f"{self._what} {done}/{total}"]
        if rate:
            parts.append(f"{rate:.1f}/s")
        if rate and done < total:
            parts.append(f"{duration((total - done) / rate)} left")
        self._write(", ".join([*parts, note] if note else parts))

    def note(self, text: str) -> None:
        self.end()
        self._stream.write(f"{text}\n")
        self._stream.flush()
        self._last_line = ""

    def end(self) -> None:
        if self._live and self._last_line:
            self._stream.write("\n")
            self._stream.flush()

    def _write(self, line: str) -> None:
        if self._live:
            self._stream.write("\r" + line.ljust(len(self._last_line)))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
        self._last_line = line


def duration(seconds: float) -> str:
    """A length of time for people: 8s, 2m05s, 3h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
