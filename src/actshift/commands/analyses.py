"""`actshift analyze`: what an analysis finds, printed and written to FOLDER/analyses."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actshift.commands.requests import console
from actshift.config.composition import compose, groups
from actshift.errors import ActshiftError, unknown
from actshift.files import write_file


def analyze_command(request: Namespace) -> int:
    """Do one analysis. Errors: a name that conf/analysis does not have, or that no code of ours knows."""
    if request.name not in groups()["analysis"]:
        raise unknown("analysis", request.name, groups()["analysis"], where="conf/analysis/")
    if any(override.startswith("analysis=") for override in request.overrides):
        raise ActshiftError("analysis=... : the analysis is the command's first word, as in `actshift analyze theory`")
    config = compose([f"analysis={request.name}", *request.overrides])
    ANALYSES[request.name](config, Path(config["results"]) / "analyses")
    return 0


def theory(config: Mapping[str, Any], folder: Path) -> None:
    """The theory ledger: one line a statement in the terminal; theory.json, theory.csv and theory.md."""
    from actshift.analysis.theory import ledger
    from actshift.commands.terminal_frames import theory_table
    from actshift.report import theory as pages

    entries = ledger.ledger(config["analysis"])
    checks, record = ledger.frame(entries), ledger.record(entries, config["analysis"])
    console().print(theory_table(record))
    texts = {"json": ledger.json_text(record), "csv": checks.to_csv(index=False), "md": pages.markdown(record, checks)}
    for ending, text in texts.items():
        write_file(folder / f"theory.{ending}", text)
        print(folder / f"theory.{ending}")


ANALYSES: dict[str, Callable[[Mapping[str, Any], Path], None]] = {"theory": theory}
"""What does each analysis of conf/analysis."""
