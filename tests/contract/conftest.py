"""The battery says how many cases it has run."""

from __future__ import annotations

import pytest

BATTERY = "tests/contract/test_methods.py"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    outcomes = {
        outcome: sum(
            BATTERY in report.nodeid and report.when == "call" for report in terminalreporter.getreports(outcome)
        )
        for outcome in ("passed", "failed")
    }
    if any(outcomes.values()):
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        terminalreporter.write_line(f"method contract battery: {sum(outcomes.values())} cases ({counts})")
