"""Finished runs as a frame, and some of them against the first: for runs that belong to no sweep.

One run beside another says how the two differ on these rows, and nothing about other seeds: that takes a sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from actshift.config.identity import changed_keys
from actshift.errors import ActshiftError
from actshift.report.evidence import answers
from actshift.report.origins import objective_name
from actshift.report.statistics import holm, mcnemar
from actshift.store.records import Record

RUN_COLUMNS = (
    *("identity", "model", "method", "dataset", "protocol", "objective"),
    *("lr", "seed", "split", "accuracy", "loss", "rows", "diverged", "sweep", "differs"),
)
_ALIKE = ["model", "method", "dataset", "protocol", "objective", "lr", "seed", "split"]
COMPARED_COLUMNS = ("identity", "cell", "lr", "seed", "accuracy", "difference", "only_this", "only_first", "p_holm")


def runs_frame(records: Iterable[Record], *, sweeps: dict[str, list[str]]) -> pd.DataFrame:
    """A row for each record; `sweeps` has the names of the sweeps that plan a run, by identity.

    `differs` says in which keys a run differs from the first one that is otherwise listed alike.
    """
    found = list(records)
    rows = [
        {
            "identity": record.identity,
            **record.cell.to_json(),
            "objective": objective_name(record),
            "lr": record.lr,
            "seed": record.seed,
            "split": record.split,
            "accuracy": record.metrics.get("accuracy"),
            "loss": record.metrics.get("loss"),
            "rows": record.metrics["rows"],
            "diverged": "yes" if record.metrics["diverged"] else "",
            "sweep": ", ".join(sweeps.get(record.identity, [])),
        }
        for record in found
    ]
    frame = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    alike: dict[tuple[object, ...], Record] = {}
    differs = [
        "; ".join(differing_keys(alike.setdefault(row, record), record))
        for row, record in zip(frame[_ALIKE].itertuples(index=False, name=None), found, strict=True)
    ]
    return frame.assign(differs=differs)


def compare(records: Sequence[Record]) -> pd.DataFrame:
    """Each run's accuracy (percent) and its difference to the first one, with the exact paired test over the rows.

    `only_this` and `only_first` count the rows that one of the two answers right. `p_holm` is McNemar's two-sided p
    value, adjusted by Holm for the comparisons made here. Errors: runs that were not scored on the same rows.
    """
    first, *others = records
    for other in others:
        _refuse_other_rows(first, other)
    right = {record.identity: answers(record) for record in records}
    missing = [identity for identity, bits in right.items() if bits is None]
    if missing:
        raise ActshiftError(f"the record of {', '.join(missing)} does not say which rows are right: run it again")
    reference = right[first.identity]
    assert reference is not None
    p_values = {}
    rows = []
    for record in records:
        ours = right[record.identity]
        assert ours is not None
        row = {
            "identity": record.identity,
            "cell": str(record.cell),
            "lr": record.lr,
            "seed": record.seed,
            "accuracy": record.metrics["accuracy"],
        }
        if record is not first:
            p_values[record.identity] = mcnemar(ours, reference)
            row["difference"] = record.metrics["accuracy"] - first.metrics["accuracy"]
            row |= {"only_this": int((ours & ~reference).sum()), "only_first": int((~ours & reference).sum())}
        rows.append(row)
    adjusted = holm(p_values)
    frame = pd.DataFrame(rows, columns=list(COMPARED_COLUMNS))
    frame["p_holm"] = frame["identity"].map(adjusted)
    return frame


def differing_keys(first: Record, other: Record) -> list[str]:
    """The keys of the configuration in which two runs differ, with both values; of another method only its name."""
    lines = changed_keys(first.config, other.config)
    renamed = {line.partition(".name:")[0] for line in lines if ".name:" in line}
    return [line for line in lines if line.partition(".")[0] not in renamed or ".name:" in line]


def _refuse_other_rows(first: Record, other: Record) -> None:
    """Refuse runs whose scores are of different rows, or by different rules of scoring."""
    for what, value in (
        ("split", lambda record: record.split),
        ("rows", lambda record: record.provenance.get("data", {}).get(record.split)),
        ("scoring", lambda record: record.provenance.get("scoring")),
        ("rule", lambda record: record.settings.evaluation.rule),
    ):
        if value(first) != value(other):
            raise ActshiftError(
                f"runs {first.identity} and {other.identity} cannot be compared: their {what} differ "
                f"({value(first)} and {value(other)})."
            )
