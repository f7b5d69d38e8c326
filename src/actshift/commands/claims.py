"""`actshift claims`: the paper's claims with verdicts, printed and written to FOLDER/claims.md and claims.csv."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.commands.requests import console, results_folder, selection_of, stages_of
from actshift.errors import unknown
from actshift.files import write_file
from actshift.planning.manifests import read_manifest
from actshift.store.records import read_json
from actshift.store.store import Store

if TYPE_CHECKING:
    from actshift.report.claims import Judgment


def claims_command(request: Namespace) -> int:
    """Judge every claim on the paper's numbers and on what a results folder holds; with --claim, show one in full."""
    from actshift.commands import terminal_frames
    from actshift.report import claims

    store = Store(results_folder(request))
    judgments = judged(store)
    if request.claim:
        names = [each.claim.name for each in judgments if each.evidence == claims.PAPER]
        if request.claim not in names:
            raise unknown("claim", request.claim, names, where="--claim, or src/actshift/paper/claims.toml")
        console().print(terminal_frames.claim_lines([each for each in judgments if each.claim.name == request.claim]))
        return 0
    console().print(terminal_frames.claims_table(judgments))
    print(*claims.summary(judgments), sep="\n")
    files = {"claims.md": claims.markdown(judgments), "claims.csv": claims.csv(judgments)}
    for name, text in files.items():
        write_file(store.root / name, text)
        print(store.root / name)
    return 0


def judged(store: Store) -> list[Judgment]:
    """Every judgment that a results folder allows: the paper's numbers, its sweeps by name, its analyses."""
    from actshift.report import claims
    from actshift.report.frame import cells

    found = claims.printed(theory_record(store.root / "analyses")) + claims.over_seeds()
    records = store.records("test")
    for sweep in store.planned():
        last = stages_of(store, read_manifest(store.manifest_path(sweep, "grid")))[-1]
        found += claims.measured(cells(last, records, selection_of(store, last.sweep)), last, records)
    return found + claims.analysed(store.root / "analyses")


def theory_record(folder: Path) -> dict[str, Any] | None:
    """What `actshift analyze theory` wrote in a folder of analyses, if it did."""
    path = folder / "theory.json"
    record: dict[str, Any] | None = read_json(path) if path.exists() else None
    return record
