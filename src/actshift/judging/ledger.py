"""The ledger of what a judge was asked and answered: no pair is paid for twice, and what a kill cost is known.

A folder holds one file a process, JSON lines that are only ever appended and forced to disk: `asked` before a question
leaves, `answered` before its answer counts, `unpaid` where it came back with an error for which nothing is paid, and
`imported` where somebody else had asked and a file of judgments has the answer, which costs nothing here. A
question that was asked and neither answered nor unpaid was in flight when its process ended: it is counted as spent,
and asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import append_line

Completion = Mapping[str, Any]
"""A judge's answer, as the protocol gave it."""


EVENTS = ("asked", "answered", "unpaid", "imported")
HOLDING = ("answered", "imported")
"""The events that hold an answer."""


def question_key(identity: str, messages: Sequence[Mapping[str, str]]) -> str:
    """SHA-256 of a judge's identity and the messages: the same pair of another method or seed has the same key."""
    text = json.dumps([identity, [[each["role"], each["content"]] for each in messages]], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass
class Ledger:
    """The ledger of one judge in `folder`; `file` is this process's own, made with its first entry.

    `answers` holds answers by key; `asked` counts questions, `paid` answers (an answer that two processes paid for at
    once is counted twice), `imported` answers that others had asked for; in dollars `asked_dollars`, the most that the
    questions could cost, and `paid_dollars`.
    """

    folder: Path
    file: Path
    answers: dict[str, Completion] = field(default_factory=dict)
    asked: int = 0
    paid: int = 0
    imported: int = 0
    asked_dollars: float = 0.0
    paid_dollars: float = 0.0
    unpaid_count: int = 0
    in_flight_dollars: dict[str, list[float]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def lost(self) -> int:
        """Questions without an answer: those in flight when a process ended, and those in flight now."""
        return self.asked - self.paid - self.unpaid_count

    @property
    def spent(self) -> float:
        """Dollars: what answers cost, and the most that unanswered questions could have."""
        with self._lock:
            return self.paid_dollars + sum(sum(each) for each in self.in_flight_dollars.values())

    def ask(self, key: str, *, dollars: float = 0.0) -> None:
        """Note a question before it leaves; `dollars` is the most that it can cost."""
        self._add({"event": "asked", "key": key, "dollars": dollars})

    def answer(self, key: str, completion: Completion, *, dollars: float = 0.0) -> None:
        """Note an answer before it counts, and what it cost."""
        self._add({"event": "answered", "key": key, "dollars": dollars, "completion": completion})

    def unpaid(self, key: str) -> None:
        """Note that a question came back with an error for which nothing is paid."""
        self._add({"event": "unpaid", "key": key, "dollars": 0.0})

    def keep(self, key: str, completion: Completion) -> None:
        """Note an answer that was imported."""
        self._add({"event": "imported", "key": key, "dollars": 0.0, "completion": completion})

    def _add(self, entry: Mapping[str, Any]) -> None:
        """Threads may ask and answer at once: their entries stand one after the other."""
        with self._lock:
            append_line(self.file, json.dumps(entry))
            self._count(entry)

    def _count(self, entry: Mapping[str, Any]) -> None:
        key, dollars = entry["key"], float(entry["dollars"])
        if entry["event"] == "imported":
            self.imported += 1
            self.answers.setdefault(key, entry["completion"])
            return
        open_ones = self.in_flight_dollars.setdefault(key, [])
        if entry["event"] == "asked":
            self.asked += 1
            self.asked_dollars += dollars
            open_ones.append(dollars)
        elif entry["event"] == "unpaid":
            self.unpaid_count += 1
            if open_ones:
                open_ones.pop()
        else:
            self.paid += 1
            self.paid_dollars += dollars
            if open_ones:
                open_ones.pop()
            # Two processes may have paid for one pair at once: every reader takes the same answer, the first.
            self.answers.setdefault(key, entry["completion"])


def open_ledger(folder: Path) -> Ledger:
    """The ledger in a folder, as far as it is written; a last line that a kill halved is left out.

    Errors: a file that anything but this module has written.
    """
    ledger = Ledger(folder, folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl")
    for path in sorted(folder.glob("*.jsonl")):
        *whole, last = path.read_bytes().split(b"\n")
        del last  # empty, or halved: every whole entry ends with a line break
        for number, line in enumerate(whole, start=1):
            ledger._count(_entry(line, where=f"{path}, line {number}"))
    return ledger


def _entry(line: bytes, *, where: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
        good = entry["event"] in EVENTS and isinstance(entry["key"], str)
        good = good and isinstance(entry["dollars"], int | float)
        good = good and (entry["event"] not in HOLDING or isinstance(entry["completion"], dict))
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise ActshiftError(
            f"{where} is no entry of a ledger: {line[:60]!r}. Move that file away, its answers would be paid for again."
        )
    checked: Mapping[str, Any] = entry
    return checked
