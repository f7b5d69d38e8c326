"""Where the runs of a table come from: what a reader must know of their data, code and machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from actshift.errors import ActshiftError, unknown
from actshift.planning.manifests import Manifest
from actshift.report import names
from actshift.schema.data import SPLITS
from actshift.schema.objective import GrpoConfig
from actshift.store.records import Record


def _is_dirty(record: Record) -> bool:
    return bool(record.provenance.get("dirty"))


def _is_partial(record: Record) -> bool:
    return bool(record.provenance.get("partial"))


def _is_uncommitted(record: Record) -> bool:
    return not record.provenance.get("commit")


DOUBTS: Mapping[str, tuple[Callable[[Record], bool], str]] = {
    "dirty": (_is_dirty, "of code with changes that were not committed"),
    "uncommitted": (_is_uncommitted, "of an installed package, whose commit is not known"),
    "partial": (_is_partial, "of a data set of which only a part was at hand"),
}
"""What may be doubtful about a run, by the name under which it is left out: the test, and the words for it."""


def without(records: Iterable[Record], doubts: Sequence[str]) -> list[Record]:
    """The records to which none of the named doubts applies. Errors: a doubt that is not of `DOUBTS`."""
    for doubt in doubts:
        if doubt not in DOUBTS:
            raise unknown("doubt", doubt, DOUBTS, where="--without")
    return [record for record in records if not any(DOUBTS[doubt][0](record) for doubt in doubts)]


def origin_facts(records: Sequence[Record]) -> list[str]:
    """Sentences about the runs of a table: what they were trained for where that is no answer, one for each doubt that
    applies to some, and one where machines differ.
    """
    facts = [*_objectives(records), *_outcomes(records)]
    for doubt, (applies, words) in DOUBTS.items():
        count = sum(map(applies, records))
        if count:
            facts.append(f"{count} of {len(records)} runs are {words} (`--without {doubt}` leaves them out).")
    devices = Counter(str(record.provenance.get("device")) for record in records)
    if len(devices) > 1:
        facts.append(f"Runs on different devices: {_counted(devices)}.")
    precisions = {(record.cell, str(record.provenance.get("precision"))) for record in records}
    mixed = sorted({str(cell) for cell, _ in precisions if sum(cell == other for other, _ in precisions) > 1})
    if mixed:
        facts.append(f"Runs of one cell were trained in different precisions: {', '.join(mixed)}.")
    return facts


def limit_facts(manifest: Manifest) -> list[str]:
    """A sentence where the cells of a table train on, or are scored on, the first rows or steps alone."""
    limited: dict[str, list[str]] = {}
    for planned in manifest.cells:
        settings = planned.settings
        rows = [f"{rows:,} {split}" for split in SPLITS if (rows := settings.data.limit.of(split)) is not None]
        parts = [f"the first {', '.join(rows)} rows"] if rows else []
        parts += [f"{steps:,} steps"] if (steps := settings.training.max_steps) is not None else []
        limited.setdefault(" and ".join(parts), []).append(names.dataset(planned.cell.dataset))
    if len(limited) == 1:
        return [f"Limited to {text}." for text in limited if text]
    texts = [f"{text or 'nothing'} ({', '.join(dict.fromkeys(datasets))})" for text, datasets in limited.items()]
    return [f"Limited to {'; '.join(texts)}."] if texts else []


def objective_name(record: Record) -> str:
    """The objective of a run; a record that names none is of SFT."""
    return record.settings.objective.name if isinstance(record.settings.objective, GrpoConfig) else "sft"


def _objectives(records: Sequence[Record]) -> list[str]:
    """What the runs of a table were trained for, where it was not for the answers alone."""
    objectives = [record.settings.objective for record in records]
    rewarded = {each.name: each for each in objectives if isinstance(each, GrpoConfig)}
    if not rewarded:
        return []
    others = ["sft"] if not all(isinstance(each, GrpoConfig) for each in objectives) else []
    return [f"Objective: {'; '.join([*others, *map(_rewarded, rewarded.values())])}."]


def _rewarded(objective: GrpoConfig) -> str:
    weights = [f"{weight:g} x {name}" for name, weight in sorted(objective.rewards.by_name().items()) if weight]
    shuffled = ", shuffled among the completions of a step" if objective.shuffle_rewards else ""
    return f"{objective.name} ({objective.completions} completions a prompt, reward {' + '.join(weights)}{shuffled})"


def _outcomes(records: Sequence[Record]) -> list[str]:
    """How many policies collapsed, or never had a signal to learn from."""
    found = Counter(str(record.metrics.get("reinforcement", {}).get("outcome")) for record in records)
    words = {
        "collapsed": "collapsed: they lost their reward, or repeat themselves",
        "no signal": "never had completions of different rewards, so they learned nothing",
    }
    return [f"{found[name]} of {len(records)} policies {text}." for name, text in words.items() if found[name]]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def refuse_mixed_rows(records: Iterable[Record]) -> None:
    """Refuse to average runs of one cell that saw other rows, or to compare methods that were scored on other rows.

    A data set is one column of a table: every run in it must have scored the same test rows.
    """
    seen: dict[tuple[str, ...], tuple[str, str]] = {}
    for record in records:
        for split, fingerprint in record.provenance.get("data", {}).items():
            of_one_cell = split != "test"
            where = (split, record.cell.dataset, record.cell.protocol, *([str(record.cell)] if of_one_cell else ()))
            identity, first = seen.setdefault(where, (record.identity, fingerprint))
            if first != fingerprint:
                raise ActshiftError(
                    f"runs {identity} and {record.identity} have different {split} rows of {record.cell.dataset} "
                    f"(fingerprints {first} and {fingerprint}): a table cannot average or compare them. Run those of "
                    "the older rows again, in a results folder of their own or after deleting their records."
                )


def refuse_mixed_scoring(records: Iterable[Record]) -> None:
    """Refuse records that were scored in different ways: their accuracies are not of one kind."""
    ways: dict[str, str] = {}
    for record in records:
        ways.setdefault(str(record.provenance.get("scoring", "generation")), f"{record.identity} of {record.cell}")
    if len(ways) > 1:
        named = " and ".join(f"{way} ({record})" for way, record in sorted(ways.items()))
        raise ActshiftError(
            f"a table cannot mix accuracies by {named}: score every run with the same evaluation.scoring, "
            "or give the second opinion a sweep of its own."
        )
