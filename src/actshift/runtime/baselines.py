"""The base model before adaptation, scored on a test split, and the share of the split's most common label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import nn

from actshift.data.splits import Split
from actshift.evaluation.predictions import Prediction
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.observe.progress import Progress
from actshift.observe.provenance import code_provenance, host, now
from actshift.runtime.evaluate import answer
from actshift.runtime.reuse import refuse_changed_rows
from actshift.runtime.session import Session, set_threads
from actshift.schema.config import Config
from actshift.store.baselines import (
    Baseline,
    baseline_config,
    baseline_identity,
    read_baseline,
    write_baseline,
)
from actshift.store.store import Store
from actshift.tasks import scoring_task, task_of

SPLIT = "test"


class Unadapted(Adaptation):
    """No adaptation: the base model as it is. Trains nothing."""

    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ()

    def detach(self) -> None:
        """There is nothing to take off."""


def baseline(config: Config, *, session: Session | None = None, progress: Progress | None = None) -> Baseline:
    """The baseline of a resolved config's model and test split; one that exists is only read.

    Errors: test rows that have changed since the baseline was made.
    """
    store, session, progress = Store(Path(config.results)), session or Session(), progress or Progress()
    identity = baseline_identity(config)
    found = read_baseline(store.root, identity)
    if found is not None:
        kept = found.provenance["data"][SPLIT]
        refuse_changed_rows(config, SPLIT, kept=kept, what=f"the baseline {identity}", data=session)
        return found
    set_threads(config.hardware)
    split = session.split(config, SPLIT)
    label, share = majority(config, split)
    base = session.base(config)
    ways = ["generation", *(["likelihood"] if task_of(config.dataset).multiple_choice else [])]
    scores = {way: _score(config, base, split, way, session, store, progress) for way in ways}
    made = Baseline(
        identity=identity,
        model=config.model.name,
        dataset=config.dataset.name,
        protocol=config.protocol.name,
        rows=len(split.rows),
        majority_label=label,
        majority=share,
        generation=scores["generation"],
        likelihood=scores.get("likelihood"),
        config=baseline_config(config),
        provenance={
            **code_provenance(),
            "created": now(),
            "host": host(),
            "device": base.device.type,
            "device_name": base.device_name,
            "hardware": config.hardware.name,
            "data": {SPLIT: split.fingerprint},
        },
    )
    write_baseline(store.root, made)
    return made


def majority(config: Config, split: Split) -> tuple[str, float]:
    """The most common label of a split and its share in percent; of several, the first in the order of the alphabet."""
    task = scoring_task(config.dataset, SPLIT, rule=config.evaluation.rule)
    counts = Counter(task.label(row) for row in split.rows)
    label = min(counts, key=lambda each: (-counts[each], each))
    return label, 100 * counts[label] / len(split.rows)


def _score(
    config: Config, base: Base, split: Split, way: str, session: Session, store: Store, progress: Progress
) -> float:
    """The base model's accuracy in percent, by generation or by likelihood."""
    scored_so = replace(config, evaluation=replace(config.evaluation, scoring=way))
    (predictions,) = answer(
        scored_so,
        base,
        Unadapted(),
        split=split,
        name=SPLIT,
        session=session,
        cache=store.cache,
        progress=progress,
    )
    return accuracy(predictions)


def accuracy(predictions: list[Prediction]) -> float:
    """The share of right predictions in percent."""
    return 100 * sum(prediction.correct for prediction in predictions) / len(predictions)
