"""Commands about finished runs, whether a sweep planned them or not: list them, set them side by side."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from actshift.commands.requests import console, results_folder, split_options, write_copies
from actshift.errors import ActshiftError, unknown
from actshift.planning.manifests import read_manifest
from actshift.store.records import IDENTITY, Record
from actshift.store.store import Store

FILTERS = ("model", "method", "dataset", "protocol", "split", "seed")


def runs_command(request: Namespace) -> int:
    """List every finished run of a results folder with its score, or those that some `key=value` words choose."""
    from actshift.commands.terminal_frames import frame_table
    from actshift.report.comparison import runs_frame

    wanted, request.overrides = split_options(request.overrides, FILTERS)
    store = Store(results_folder(request))
    frame = runs_frame(store.records(), sweeps=_sweeps(store))
    for key, value in wanted.items():
        frame = frame[frame[key].astype(str) == value]
    if frame.empty:
        named = "".join(f" {key}={value}" for key, value in wanted.items())
        print(f"no finished run{named} in {store.root.resolve()}")
        return 0
    optional = ("loss", "diverged", "sweep", "differs")
    empty = [column for column in optional if frame[column].isna().all() or frame[column].eq("").all()]
    console(200).print(frame_table(frame.drop(columns=empty)))
    write_copies(frame, (request.csv, lambda rows: rows.to_csv(index=False)))
    return 0


def compare_command(request: Namespace) -> int:
    """Set finished runs beside the first of them: scores, differences, an exact paired test over the rows."""
    from actshift.commands.terminal_frames import frame_table
    from actshift.report.comparison import compare, differing_keys

    named, rest = split_options(request.overrides, ["split"])
    request.overrides = [word for word in rest if "=" in word]
    identities = [word for word in rest if "=" not in word]
    if len(identities) < 2:
        raise ActshiftError("compare needs at least two identities, as `actshift runs` lists them")
    store = Store(results_folder(request))
    records = _records(store, identities, split=named.get("split"))
    frame = compare(records)
    screen = console(200)
    screen.print(f"{records[0].split} split, {records[0].metrics['rows']} rows; differences to {records[0].identity}")
    screen.print(frame_table(frame))
    for other in records[1:]:
        keys = differing_keys(records[0], other)
        shown = "; ".join(keys[:8]) + (f"; and {len(keys) - 8} more" if len(keys) > 8 else "")
        screen.print(f"{other.identity} differs in {shown or 'nothing'}")
    print("One run a side: the test is over rows, and says nothing about other seeds.")
    write_copies(frame, (request.csv, lambda rows: rows.to_csv(index=False)))
    return 0


def beside_command(request: Namespace) -> int:
    """Set sweeps beside each other, method by method, and keep the table among the first one's."""
    from actshift.commands.terminal_frames import frame_table
    from actshift.files import write_file
    from actshift.report.beside import beside, markdown

    sweeps = [word for word in request.overrides if "=" not in word]
    request.overrides = [word for word in request.overrides if "=" in word]
    if len(sweeps) < 2:
        raise ActshiftError("beside needs at least two sweeps, as `actshift status` lists them")
    store = Store(results_folder(request))
    manifests = []
    for sweep in sweeps:
        path = store.manifest_path(sweep, "final")
        if not path.exists():
            raise ActshiftError(f"'{sweep}' has no final stage in {store.root.resolve()}: `actshift sweep {sweep}`")
        manifests.append(read_manifest(path))
    frame = beside(manifests, store.records("test"))
    console(200).print(frame_table(frame))
    name = store.tables / ".beside.".join(sweeps)
    for suffix, text in (("md", markdown(frame, manifests)), ("csv", frame.to_csv(index=False, lineterminator="\n"))):
        path = name.with_name(f"{name.name}.{suffix}")
        write_file(path, text)
        print(path)
    return 0


def _records(store: Store, identities: list[str], *, split: str | None) -> list[Record]:
    """The records of some runs: of the split that is asked for, else of test where all have it, else of validation."""
    there = sorted({path.name.partition(".")[0] for path in Path(store.root / "records").glob("*.json")})
    whole = [_whole(identity, there, store=store) for identity in identities]
    for name in [split] if split else ["test", "validation"]:
        found = [store.record(identity, name) for identity in whole]
        if all(found):
            return [record for record in found if record is not None]
    raise ActshiftError(
        f"not all of {', '.join(identities)} have a score of the same split in {store.root.resolve()}: `actshift runs` "
        "lists what there is."
    )


def _whole(identity: str, there: list[str], *, store: Store) -> str:
    """The identity that begins so. Errors: none, or several."""
    found = [name for name in there if name.startswith(identity)]
    if len(found) == 1:
        return found[0]
    if found or not there:
        raise ActshiftError(f"'{identity}' is the beginning of {len(found)} runs in {store.root.resolve()}")
    kind = "run" if IDENTITY.fullmatch(identity) else "run (identities are 16 hex digits)"
    raise unknown(kind, identity, there[:20], where=f"what `actshift runs results={store.root}` lists")


def _sweeps(store: Store) -> dict[str, list[str]]:
    """The sweeps that plan a run, by identity."""
    names: dict[str, list[str]] = {}
    for path in sorted((store.root / "manifests").glob("*.jsonl")):
        manifest = read_manifest(path)
        for run in manifest.runs:
            if manifest.sweep not in names.setdefault(run.identity, []):
                names[run.identity].append(manifest.sweep)
    return names
