"""Judgments that somebody else recorded, taken into the ledger as answers of a judge by name.

Files in AlpacaEval's format are read and checked as a whole before anything is written, so that a wrong row changes
nothing. An answer that the ledger has already is left as it is: the same file again, or after a kill, adds what is
missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.asking import IMPORTED, Pair, Question, is_of_model, read
from actshift.judging.config import JudgeConfig
from actshift.judging.judges import Paired
from actshift.judging.judgments import NEEDED, preference_in
from actshift.judging.ledger import Completion, Ledger
from actshift.judging.recorded import as_completion
from actshift.judging.rows import read_rows

TEXTS = ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator")
CLOSE = 1e-6
"""How far a preference may be from what its raw answer gives: files round."""


@dataclass(frozen=True)
class Row:
    """A row of a file, the preference in it (from 1 to 2; None of none), and where it stands, in words."""

    values: Mapping[str, Any]
    preference: float | None
    where: str


@dataclass(frozen=True)
class Plan:
    """What an import adds to a ledger: answers by key, how many there were already, and draws of equal answers."""

    entries: Mapping[str, Completion]
    known: int
    equal: int

    def keep(self, ledger: Ledger) -> None:
        """Write the answers, each forced to disk before the next."""
        for key, completion in self.entries.items():
            ledger.keep(key, completion)


def read_import(paths: Sequence[Path], config: JudgeConfig) -> dict[str, list[Row]]:
    """The rows of files of judgments by the generator that is judged.

    Errors: a row without a field, rows of another annotator than the judge's or of several, an impossible preference,
    an instruction that is judged twice for one generator.
    """
    rows = [_row(values, f"{path}, row {number}") for path in paths for number, values in read_rows(path)]
    annotators = sorted({row.values["annotator"] for row in rows})
    if annotators != [config.label]:
        raise ActshiftError(
            f"the judgments to import are by the annotator {' and by '.join(annotators)}, and judge {config.name} is "
            f"{config.label}. Judgments of several never mix: give files of one, and name its judge with --judge, or "
            "write it a file of its own in conf/judge/ (kind: files, as in humans.yaml)."
        )
    seen = Counter((row.values["generator_2"], row.values["instruction"]) for row in rows)
    _refuse(
        [row for row in rows if seen[row.values["generator_2"], row.values["instruction"]] > 1],
        "judge an instruction of one generator more than once. Keep one row of each.",
    )
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.values["generator_2"], []).append(row)
    return found


def _row(values: dict[str, Any], where: str) -> Row:
    missing = [name for name in NEEDED if name not in values]
    odd = [name for name in TEXTS if name not in missing and not isinstance(values[name], str)]
    if missing or odd:
        raise ActshiftError(
            f"{where} has no {', '.join(missing + odd)}: judgments in AlpacaEval's format have texts under "
            f"{', '.join(TEXTS)}, and a preference."
        )
    return Row(values, preference_in(values["preference"], where), where)


def planned(
    rows: Sequence[Row],
    given: Paired,
    config: JudgeConfig,
    held: Mapping[str, Completion],
    *,
    allow_unjudged: bool = False,
) -> Plan:
    """What the rows of one generator add to the answers that are `held` already, in the ledger or to be written there.

    Errors: another generator or reference than the pairs', an instruction that no pair has, answers that differ from
    the pair's, a row without a preference unless `allow_unjudged`, a preference that does not follow from its raw
    answer, and one that differs from what is held of the same pair.
    """
    _check_answers(rows, given)
    _check_preferences(rows, allow_unjudged=allow_unjudged)
    pairs = {pair.instruction: pair for pair in given.pairs}
    answers: dict[str, Completion] = {}
    wrong: dict[str, Row] = {}
    other: dict[str, Row] = {}
    for row in rows:
        for question, completion, preference in _parts(row, pairs[row.values["instruction"]], config):
            if not _follows(completion, preference, config, question):
                wrong[row.where] = row
            before = held.get(question.key)
            if before is not None and not _follows(before, preference, config, question):
                other[row.where] = row
            answers[question.key] = completion
    _refuse(
        wrong.values(),
        f"have a preference that does not follow from raw_completion by the parser '{config.parser}' of judge "
        f"{config.name} and its model {config.model}. Name the judge that made them; without raw_completion the "
        "preference alone is taken.",
    )
    _refuse(
        other.values(),
        "have another preference than the ledger, or another of these rows, has of the same pair of answers. Both "
        "cannot be kept as one judge's: name another folder with --ledger.",
    )
    new = {key: each for key, each in answers.items() if key not in held}
    return Plan(new, len(answers) - len(new), sum(_is_equal(row) for row in rows))


def _check_preferences(rows: Sequence[Row], *, allow_unjudged: bool) -> None:
    """Refuse rows without a preference, unless they are allowed, and a preference of one of two equal answers."""
    if not allow_unjudged:
        _refuse(
            [row for row in rows if row.preference is None],
            "have no preference. Leave them out and their questions stay open, or take them as unjudged for good with "
            "--allow-unjudged.",
        )
    _refuse(
        [row for row in rows if _is_equal(row) and row.preference not in (None, 1.5)],
        "prefer one of two equal answers. Such a pair is a draw and is asked of nobody.",
    )


def _check_answers(rows: Sequence[Row], given: Paired) -> None:
    """Refuse rows that are not about the pairs. An instruction without its input is another instruction."""
    pairs = {pair.instruction: pair for pair in given.pairs}
    names = {"generator_1": given.reference, "generator_2": given.generator}
    for field, name in names.items():
        said = f"have another {field} than {name}: output_1 is the reference's answer, output_2 the model's."
        _refuse([row for row in rows if row.values[field] != name], said)
    _refuse(
        [row for row in rows if row.values["instruction"] not in pairs],
        f"judge an instruction that {given.generator} was not compared on: instructions must be the outputs' and the "
        "reference's, with their inputs, to the letter.",
    )
    whose: dict[str, tuple[str, Callable[[Pair], str]]] = {
        "output_1": (given.reference, lambda pair: pair.reference),
        "output_2": (given.generator, lambda pair: pair.output),
    }
    for field, (name, answer) in whose.items():
        _refuse(
            [row for row in rows if row.values[field] != answer(pairs[row.values["instruction"]])],
            f"judge another {field} than {name} has written. Judgments hold for the outputs that were judged: import "
            "them for those, or judge these anew.",
        )


def _is_equal(row: Row) -> bool:
    return bool(row.values["output_1"] == row.values["output_2"])


def _parts(row: Row, pair: Pair, config: JudgeConfig) -> Iterable[tuple[Question, Completion, float | None]]:
    """The questions of a row with an answer and a preference each: one by the coin, or one in each order."""
    questions = pair.questions(config)
    if not questions:
        return
    raw: Any = [row.values.get("raw_completion")]
    preferences: Any = [row.preference]
    if len(questions) > 1:
        raw, preferences = row.values.get("raw_completions") or [None] * 2, row.values.get("preferences")
        if not (_is_pair(raw) and _is_pair(preferences) and _same(_mean(preferences), row.preference)):
            raise ActshiftError(
                f"{row.where} is not judged in both orders, as judge {config.name} asks: it must have preferences and "
                "raw_completions of each order, and their mean as its preference. Nothing is imported."
            )
    for question, each, preference in zip(questions, raw, preferences, strict=True):
        completion = None if config.kind == "files" else as_completion(each, config)
        if completion is None:
            completion = {IMPORTED: preference, **({"raw_completion": each} if each else {})}
        yield question, completion, preference


def _follows(completion: Completion, preference: float | None, config: JudgeConfig, question: Question) -> bool:
    """Whether a preference is what the judge's parser makes of a completion, by a model of the judge's name."""
    try:
        found = read(completion, config, switched=question.switched)
    except ActshiftError:
        return False
    return _same(found, preference) and is_of_model(completion, config.model)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _mean(preferences: Sequence[float | None]) -> float | None:
    known = [each for each in preferences if each is not None]
    return sum(known) / len(known) if len(known) == len(preferences) else None


def _same(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else abs(one - other) < CLOSE


def _refuse(rows: Iterable[Row], said: str) -> None:
    """Errors: any rows, with their number and the first of them."""
    refused = list(rows)
    if refused:
        first = refused[0]
        begin = first.values["instruction"][:60]
        raise ActshiftError(
            f"{len(refused)} of the judgments to import {said} The first is {first.where}, of {begin!r}. Nothing is "
            "imported."
        )
