"""Outputs to judgments: pairs of two files of outputs, and the judge that a configuration names.

Outputs, judgments and statistics are three things: outputs are a file in AlpacaEval's format, every question and
answer goes through the ledger, and what comes out is a file of judgments that `actshift winrate` reads.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.asking import Ask, Asker, Pair, answer_all, judged, open_questions
from actshift.judging.client import Attempts, Refused, Stop
from actshift.judging.config import JudgeConfig
from actshift.judging.judgments import FIRST, SECOND
from actshift.judging.ledger import Completion, Ledger
from actshift.judging.prompts import Message
from actshift.judging.protocols import HttpJudge
from actshift.judging.replay import ReplayServer, recorded_answers, replaying
from actshift.judging.rows import read_rows

UNJUDGED_SHARE = 0.01
"""Above this share of rows without a preference no file of judgments is written, unless it is allowed."""


@dataclass(frozen=True)
class Paired:
    """The pairs of two files of outputs, both generators, and the reference's instructions that the outputs lack."""

    pairs: list[Pair]
    generator: str
    reference: str
    lost: tuple[str, ...] = ()


def paired(outputs: Path, references: Path, *, inner: bool = False) -> Paired:
    """The pairs of two files, joined by instruction in the order of the reference's.

    With `inner`, as upstream does it, instructions of one file alone are left out, and those of the reference counted.
    Errors: such an instruction otherwise, one that occurs twice in a file, several generators in one.
    """
    theirs, reference = outputs_of(references)
    ours, generator = outputs_of(outputs, only=theirs if inner else None)
    alone = set(ours) ^ set(theirs)
    if alone and not inner:
        raise ActshiftError(
            f"{len(alone)} instructions stand in {outputs} or in {references} alone, {sorted(alone)[0][:60]!r} among "
            "them. Both must answer the same instructions, with their inputs; --inner leaves such rows out and says so."
        )
    made = [
        Pair(text, str(row.get("dataset", "")), row["output"], ours[text]["output"])
        for text, row in theirs.items()
        if text in ours
    ]
    return Paired(made, generator, reference, tuple(text for text in theirs if text not in ours))


def outputs_of(path: Path, *, only: Container[str] | None = None) -> tuple[dict[str, dict[str, Any]], str]:
    """The outputs of a file by instruction (`only` some of them), and their generator.

    Errors: a row without texts, an instruction that is answered twice, several generators.
    """
    rows: dict[str, dict[str, Any]] = {}
    for number, row in read_rows(path):
        missing = [name for name in ("instruction", "output", "generator") if not isinstance(row.get(name), str)]
        if missing:
            raise ActshiftError(f"{path}, row {number} has no text under {', '.join(missing)}: are these outputs?")
        if only is not None and row["instruction"] not in only:
            continue
        if row["instruction"] in rows:
            raise ActshiftError(f"{path}, row {number}: {row['instruction'][:60]!r} is answered a second time.")
        rows[row["instruction"]] = row
    if not rows:
        raise ActshiftError(f"{path} answers none of the reference's instructions.")
    generators = sorted({row["generator"] for row in rows.values()})
    if len(generators) > 1:
        raise ActshiftError(f"{path} holds outputs of {', '.join(generators)}. Give one file a model.")
    return rows, generators[0]


@contextmanager
def connected(config: JudgeConfig, *, recorded: Sequence[Path], stop: threading.Event) -> Iterator[Ask]:
    """The judge of a configuration, ready to be asked. Errors: a key that is not in the environment."""
    if config.kind == "transformers":
        yield _local(config)
        return
    if config.kind == "files":
        yield _nobody(config)
        return
    if config.kind == "replay":
        with ReplayServer(replaying(recorded_answers(recorded, config), model=config.model)) as url:
            yield from _over_http(replace(config, base_url=url), stop, protocol="openai")
        return
    yield from _over_http(config, stop, protocol=config.kind)


def _nobody(config: JudgeConfig) -> Ask:
    """A judge of imported judgments, which a question that has none ends."""

    def ask(messages: Sequence[Message], attempts: Attempts) -> Completion:
        raise Stop(
            f"judge {config.name} has imported judgments alone, and none is of this question: "
            f"{str(messages[-1]['content'])[:120]!r}. Import it with --import FILE."
        )

    return ask


def _over_http(config: JudgeConfig, stop: threading.Event, *, protocol: str) -> Iterator[Ask]:
    judge = HttpJudge(config, stop=stop, protocol=protocol)
    try:
        yield judge
    finally:
        judge.close()


def _local(config: JudgeConfig) -> Ask:
    """A model of conf/model on this machine, which names an answer by the probabilities of its first token."""
    from actshift.config.composition import compose
    from actshift.evaluation.first_token import FirstToken
    from actshift.runtime.session import Session, set_threads

    composed = compose([f"model={config.model}", f"training.precision={config.request.get('precision', 'float32')}"])
    set_threads(composed.hardware)
    local = FirstToken(Session().base(composed), options=(FIRST, SECOND))

    def ask(messages: Sequence[Message], attempts: Attempts) -> Completion:
        attempts.leaves()
        try:
            found = local.logprobs(messages)
        except ActshiftError as error:
            raise Refused(str(error)) from error
        tokens = [{"token": token, "logprob": value} for token, value in found.items()]
        likelier = max(found, key=lambda token: found[token])
        message = {"role": "assistant", "content": likelier}
        return {"message": message, "logprobs": {"content": [{"top_logprobs": tokens}]}, "model": config.model}

    return ask


def judge_all(
    given: Paired,
    config: JudgeConfig,
    ledger: Ledger,
    *,
    recorded: Sequence[Path] = (),
    budget: float | None = None,
    allow_unjudged: bool = False,
) -> list[dict[str, Any]]:
    """The judgments of all pairs. Errors: `Stop`; more unjudged rows than `UNJUDGED_SHARE`, unless they are allowed.

    A judge whose every answer is in the ledger is neither connected nor loaded, so that it needs no key.
    """
    stop = threading.Event()
    if open_questions(given.pairs, config, ledger):
        with connected(config, recorded=recorded, stop=stop) as ask:
            answer_all(given.pairs, config, ask, ledger, Asker(config, ledger, budget=budget, stop=stop))
    names = {"generator_1": given.reference, "generator_2": given.generator}
    rows = [judged(pair, config, ledger) | names for pair in given.pairs]
    unjudged = count_unjudged(rows)
    if unjudged > UNJUDGED_SHARE * len(rows) and not allow_unjudged:
        raise ActshiftError(
            f"{unjudged} of {len(rows)} rows are without a preference, more than {UNJUDGED_SHARE:.0%}: nothing is "
            "written. --allow-unjudged writes them, and every table counts these rows."
        )
    return rows


def count_unjudged(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many rows have no preference."""
    return sum(row["preference"] is None for row in rows)
