"""Progress: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import re

import pytest

from actshift.observe.progress import PrintedProgress, Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("actshift.observe.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def work(progress: Progress, clock: Clock, *, steps: int, seconds: float, first: int = 1, note: str = "") -> None:
    progress.start("train")
    for step in range(first, steps + 1):
        clock.now += seconds
        progress.update(step, steps, note)
    progress.end()


def test_elsewhere_it_is_a_line_now_and_then_and_one_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    work(PrintedProgress(stream, every=10), clock, steps=30, seconds=1.0)
    assert stream.getvalue().splitlines() == [
        "train 10/30, 1.0/s, 20s left",
        "train 20/30, 1.0/s, 10s left",
        "train 30/30, 1.0/s",
    ]


def test_on_a_terminal_the_line_is_rewritten_in_place(clock: Clock) -> None:
    stream = Terminal()
    work(PrintedProgress(stream), clock, steps=3, seconds=1.0, note="loss 0.5")
    first, *lines, end = re.split(r"[\r\n]", stream.getvalue())
    assert (first, end) == ("", "")
    assert [line.rstrip() for line in lines] == [
        "train 1/3, loss 0.5",
        "train 2/3, 1.0/s, 1s left, loss 0.5",
        "train 3/3, 1.0/s, loss 0.5",
    ]
    # A shorter line wipes out the longer one before it.
    assert len(lines[2]) == len(lines[1])
    assert stream.getvalue().count("\n") == 1


def test_the_rate_of_resumed_work_counts_from_where_it_resumed(clock: Clock) -> None:
    stream = io.StringIO()
    work(PrintedProgress(stream, every=1), clock, steps=1000, seconds=2.0, first=998)
    assert stream.getvalue().splitlines()[-2:] == ["train 999/1000, 0.5/s, 2s left", "train 1000/1000, 0.5/s"]


def test_a_phase_of_one_instant_has_no_rate(clock: Clock) -> None:
    stream = io.StringIO()
    work(PrintedProgress(stream), clock, steps=1, seconds=0.0)
    assert stream.getvalue() == "train 1/1\n"


def test_rows_that_were_computed_together_have_no_rate(clock: Clock) -> None:
    stream = io.StringIO()
    work(PrintedProgress(stream), clock, steps=16, seconds=0.001)
    assert stream.getvalue() == "train 16/16\n"


def test_each_phase_starts_anew(clock: Clock) -> None:
    stream = io.StringIO()
    progress = PrintedProgress(stream, every=1)
    work(progress, clock, steps=2, seconds=1.0)
    clock.now += 1000
    work(progress, clock, steps=2, seconds=4.0)
    assert stream.getvalue().splitlines()[-1] == "train 2/2, 0.2/s"


def test_silence(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    work(Progress(), clock, steps=3, seconds=100.0)
    assert capsys.readouterr() == ("", "")


def test_by_default_it_goes_to_stderr(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    work(PrintedProgress(), clock, steps=1, seconds=0.0)
    assert capsys.readouterr() == ("", "train 1/1\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (125, "2m05s"),
        (3599.7, "1h00m"),
        (11400, "3h10m"),
        (360000, "100h00m"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
