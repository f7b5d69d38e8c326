"""What a worker does with a run that took its process down."""

from __future__ import annotations

from pathlib import Path

from actshift.planning.manifests import Run
from actshift.store.records import Cell
from actshift.store.store import Store
from actshift.sweeps.worker import retry_smaller

RUN = Run("0123456789abcdef", Cell("tiny", "sft", "boolq", "paper"), 1e-3, 42, "validation", ())


def test_a_run_that_died_is_tried_once_more_and_not_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not retry_smaller(store, RUN), "it has not failed"
    store.fail(RUN.identity, RUN.split, "ValueError: no")
    assert not retry_smaller(store, RUN), "an error of its own would come again"
    store.clear_failure(RUN.identity, RUN.split)
    store.fail(RUN.identity, RUN.split, "killed", died=True)
    assert retry_smaller(store, RUN) and store.failure(RUN.identity, RUN.split) is None
    store.fail(RUN.identity, RUN.split, "killed", died=True)
    assert not retry_smaller(store, RUN)
    assert store.deaths(RUN.identity, RUN.split) == 2 and store.failure(RUN.identity, RUN.split) is not None
