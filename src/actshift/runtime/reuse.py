"""Whether the rows are still those that a kept result was made from.

Local files are not part of a run's identity, so a record, an adapter, a checkpoint or an evaluation is compared by the
fingerprint of its rows before it is used again. Rows of the hub and of a generator follow from the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actshift.data.sources import has_split
from actshift.errors import ActshiftError
from actshift.planning.manifests import Manifest
from actshift.runtime.loaded import LoadedData
from actshift.schema.config import Config
from actshift.store.records import Record
from actshift.store.store import Store


def refuse_changed_rows(config: Config, split: str, *, kept: str | None, what: str, data: LoadedData) -> None:
    """Refuse to reuse `what`, made from rows with the fingerprint `kept`, where `split` has other rows today.

    Nothing is compared where the rows are not in local files, the file is no longer there, or no fingerprint was kept.
    """
    now = _fingerprint(config, split, data=data)
    if kept is None or now is None or kept == now:
        return
    raise ActshiftError(
        f"{what} was made from other {split} rows of {config.dataset.name}: their fingerprint is {kept}, and the "
        f"rows in {config.data.dir} have {now}. Set data.dir to the folder with the old rows, or keep the "
        "results of the new rows apart with results=<another folder>."
    )


def refuse_changed_record(config: Config, record: Record, *, data: LoadedData) -> None:
    """Refuse a record that was scored on, or trained on, rows that have changed since."""
    for split, kept in record.provenance.get("data", {}).items():
        refuse_changed_rows(config, split, kept=kept, what=f"the record of run {record.identity}", data=data)


def refuse_changed_plan(
    manifest: Manifest, store: Store, *, compose: Callable[[list[str]], Config], overrides: Sequence[str]
) -> None:
    """Refuse a sweep whose local data are not those that its finished runs were made from.

    `overrides` are those of this launch, ``data.dir`` among them.
    """
    data = LoadedData()
    for run in manifest.runs:
        planned = manifest.planned(run.cell)
        record = store.record(run.identity, run.split) if planned.settings.data.source == "local" else None
        if record is not None:
            config = compose([*planned.variants[0].overrides, *overrides])
            refuse_changed_record(config, record, data=data)


def _fingerprint(config: Config, split: str, *, data: LoadedData) -> str | None:
    """The fingerprint of a split's rows in local files; None where there are none to look at."""
    rule = config.data.splits.by_name().get(split)
    if config.data.source != "local" or rule is None:
        return None
    if not has_split(config.dataset, rule.source, directory=config.data.dir):
        return None
    return data.split(config, split).fingerprint
