"""The command that lets tuned models answer AlpacaEval's instructions, for a judge to compare."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError


def outputs_command(request: Namespace) -> int:
    """Write the answers of every final run of a sweep, or of one adapter, as they come."""
    from actshift.observe.progress import PrintedProgress
    from actshift.runtime.outputs import Decoding, trained_config, write_outputs
    from actshift.runtime.session import Session

    if request.limit is not None and request.limit < 1:
        raise ActshiftError(f"--limit {request.limit} is impossible: it must be 1 or more")
    adapters = [Path(request.what)] if Path(request.what).is_dir() else _adapters(request)
    instructions = read_instructions(Path(request.data))[: request.limit]
    session = Session()
    for adapter in adapters:
        config = trained_config(adapter)
        most = request.max_new_tokens or config.evaluation.max_new_tokens
        decoding = Decoding(most, request.temperature, request.top_p, request.seed)
        shared: dict[str, Any] = {"hardware": config.hardware, "session": session, "progress": PrintedProgress()}
        print(write_outputs(adapter, instructions, decoding, **shared))
    return 0


def _adapters(request: Namespace) -> list[Path]:
    """The adapters of a sweep's final stage. Errors: a sweep without one, runs that are not done."""
    from actshift.commands.requests import planned_grid, stages_of

    request.sweep = request.what
    store, grid = planned_grid(request)
    final = stages_of(store, grid)[-1]
    missing = [run.identity for run in final.runs if store.record(run.identity, run.split) is None]
    if final.stage != "final" or missing:
        raise ActshiftError(
            f"{len(missing) or 'the'} runs of the final stage of {grid.sweep} are not done: run `actshift sweep "
            f"{grid.sweep}` first."
        )
    return [store.run_folder(run.identity) / "adapter" for run in final.runs]


def read_instructions(data: Path) -> list[dict[str, Any]]:
    """AlpacaEval's instructions of a folder of data sets. Errors: a row without instruction, input or dataset."""
    from actshift.runtime.outputs import INSTRUCTIONS

    path = data / INSTRUCTIONS
    if not path.exists():
        raise ActshiftError(f"there is no {path}: name the folder of data sets that holds {INSTRUCTIONS} with --data.")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not all(isinstance(row.get(name), str) for name in ("instruction", "input", "dataset")):
            raise ActshiftError(f"{path}, line {number}: a row has texts as instruction, input and dataset")
    return rows
