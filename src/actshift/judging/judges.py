"""Judges by name (`conf/judge/`), what makes one the same judge, and asking one about a model's outputs.

Outputs, judgments and statistics are three things: outputs are a file in AlpacaEval's format, every question and
answer goes through the ledger, and what comes out is a file of judgments that `actshift winrate` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from actshift.errors import ActshiftError, impossible, unknown
from actshift.judging.judgments import is_switched, preference_of
from actshift.judging.ledger import Completion, Ledger, question_key
from actshift.judging.prompts import TEMPLATE, Message, judge_messages, template_sha256
from actshift.judging.rows import read_rows
from actshift.paths import conf_dir

KINDS, PARSERS = ("replay",), ("logprob",)
Ask = Callable[[Sequence[Message]], Completion]


@dataclass(frozen=True)
class JudgeConfig:
    """A file of conf/judge. `dollars_per_question` is the most that one can cost, and no part of the identity."""

    name: str
    kind: str
    model: str
    annotator: str
    template: str
    parser: str
    request: Mapping[str, Any]
    dollars_per_question: float

    @property
    def identity(self) -> str:
        """SHA-256 of what can change an answer: kind, model, the template's text, parser, request."""
        counted = [self.kind, self.model, template_sha256(), self.parser, dict(sorted(self.request.items()))]
        return hashlib.sha256(json.dumps(counted).encode()).hexdigest()


def judge_config(name: str) -> JudgeConfig:
    """A judge of conf/judge. Errors: a name, a key, a kind, a parser or a template that does not exist."""
    folder = conf_dir() / "judge"
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in names:
        raise unknown("judge", name, names, where="--judge (files in conf/judge/)")
    given = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    wanted = {each.name for each in fields(JudgeConfig)}
    if not isinstance(given, dict) or set(given) != wanted:
        odd = sorted(set(given or ()) ^ wanted)
        raise ActshiftError(f"conf/judge/{name}.yaml must have the keys {', '.join(sorted(wanted))}; wrong: {odd}")
    config = JudgeConfig(**given)
    for key, allowed in (("kind", KINDS), ("parser", PARSERS), ("template", (TEMPLATE,))):
        if getattr(config, key) not in allowed:
            raise unknown(f"judge.{key}", getattr(config, key), allowed, where=f"conf/judge/{name}.yaml")
    if not config.dollars_per_question >= 0:
        raise impossible("judge.dollars_per_question", config.dollars_per_question, "0 or more")
    return config


def replayed(paths: Sequence[Path]) -> Ask:
    """A judge that gives recorded answers. Errors, when it is asked: a question whose answer is not recorded."""
    answers: dict[str, Completion] = {}
    for path in paths:
        for _, row in read_rows(path):
            if row.get("raw_completion"):
                asked = judge_messages(row["instruction"], reference=row["output_1"], output=row["output_2"])
                answers[question_key("", asked)] = row["raw_completion"]

    def ask(messages: Sequence[Message]) -> Completion:
        key = question_key("", messages)
        if key not in answers:
            raise ActshiftError(
                f"none of the {len(answers)} recorded answers is to this question: {messages[-1]['content'][:200]!r}. "
                "A replay answers for outputs that were judged then; name the files that hold them with --recorded"
            )
        return answers[key]

    return ask


@dataclass(frozen=True)
class Pair:
    """A question: an instruction, the reference's answer and the model's."""

    instruction: str
    dataset: str
    reference: str
    output: str

    def messages(self) -> list[Message]:
        return judge_messages(self.instruction, reference=self.reference, output=self.output)


def pairs_of(outputs: Path, references: Path) -> tuple[list[Pair], str, str]:
    """The pairs of two files of outputs, joined by instruction in the order of the reference's, and both generators.

    Errors: an instruction that is missing in either file or occurs twice in one, and several generators in one.
    """
    ours, generator = _outputs(outputs)
    theirs, reference = _outputs(references)
    alone = set(ours) ^ set(theirs)
    if alone:
        raise ActshiftError(
            f"{len(alone)} instructions stand in {outputs} or in {references} alone, {sorted(alone)[0][:60]!r} among "
            "them. Both must answer the same instructions, with their inputs."
        )
    made = [
        Pair(text, str(row.get("dataset", "")), row["output"], ours[text]["output"]) for text, row in theirs.items()
    ]
    return made, generator, reference


def _outputs(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    rows: dict[str, dict[str, Any]] = {}
    for number, row in read_rows(path):
        missing = [name for name in ("instruction", "output", "generator") if not isinstance(row.get(name), str)]
        if missing:
            raise ActshiftError(f"{path}, row {number} has no text under {', '.join(missing)}: are these outputs?")
        if row["instruction"] in rows:
            raise ActshiftError(f"{path}, row {number}: {row['instruction'][:60]!r} is answered a second time.")
        rows[row["instruction"]] = row
    generators = sorted({row["generator"] for row in rows.values()})
    if len(generators) > 1:
        raise ActshiftError(f"{path} holds outputs of {', '.join(generators)}. Give one file a model.")
    return rows, generators[0]


def open_questions(pairs: Sequence[Pair], config: JudgeConfig, ledger: Ledger) -> list[Pair]:
    """The pairs that are not answered yet; equal answers are no question."""
    asked = (pair for pair in pairs if pair.output != pair.reference)
    return [pair for pair in asked if question_key(config.identity, pair.messages()) not in ledger.answers]


def judged(pair: Pair, config: JudgeConfig, ask: Ask, ledger: Ledger) -> dict[str, Any]:
    """One row of judgments: from the ledger where its question was answered before, else asked, noted, and read."""
    row: dict[str, Any] = {"instruction": pair.instruction, "output_1": pair.reference, "output_2": pair.output}
    row |= {"dataset": pair.dataset, "annotator": config.annotator, "raw_completion": None, "preference": 1.5}
    if pair.output == pair.reference:
        return row
    messages = pair.messages()
    key = question_key(config.identity, messages)
    if key not in ledger.answers:
        ledger.ask(key, dollars=config.dollars_per_question)
        ledger.answer(key, ask(messages), dollars=config.dollars_per_question)
    completion = ledger.answers[key]
    preference = preference_of(completion, switched=is_switched(pair.instruction))
    return row | {"raw_completion": completion, "preference": preference}
