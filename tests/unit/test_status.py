"""Where a sweep stands, from its files: by cell, with what failed, what is stale and what is left."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from synthetic_sweep import SWEEP, compose, record

from actshift.planning.expand import expand_grid
from actshift.planning.status import headline, status_of
from actshift.schema.building import built
from actshift.schema.config import SweepConfig
from actshift.store.locks import Owner
from actshift.store.store import Store


def test_states_failures_and_stale_runs_by_cell(tmp_path: Path) -> None:
    store, grid = Store(tmp_path), expand_grid(built(SweepConfig, SWEEP), compose)
    done, failed, held, stale, *_ = grid.runs
    store.publish(record(done, {**grid.planned(done.cell).at(done.lr, done.seed)}, correct=5))
    store.fail(failed.identity, "validation", "Traceback\nValueError: boom")
    claim = store.lock(held.identity)
    assert claim is not None
    claims = tmp_path / "runs" / stale.identity / "claims"
    claims.mkdir(parents=True)
    gone = asdict(Owner.here()) | {"started": 1}  # a process of this machine's past
    (claims / "000001.json").write_text(json.dumps(gone))
    seconds = {(planned.cell, "grid"): 60.0 for planned in grid.cells}
    with claim:
        status = status_of(store, [grid], seconds=seconds, queue={"PENDING": 2})
    counts = status.counts("grid")
    assert (counts["done"], counts["failed"], counts["running"], counts["missing"]) == (1, 1, 1, len(grid.runs) - 3)
    (failure,) = status.failures
    assert (failure.identity, failure.last_line, failure.attempts) == (failed.identity, "ValueError: boom", 1)
    assert sum(each.stale for each in status.cells) == 1
    assert sum(each.seconds_left for each in status.cells) == 60.0 * status.unfinished == 60.0 * (len(grid.runs) - 2)
    assert "1 done, 1 running, 1 failed" in headline(status) and "queue: 2 PENDING" in headline(status)
    read = json.loads(json.dumps(status.to_json()))
    assert read["stages"]["grid"]["done"] == 1 and len(read["cells"]) == len(grid.cells)
    assert os.path.exists(claims / "000001.json")
