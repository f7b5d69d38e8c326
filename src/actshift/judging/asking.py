"""Asking a judge about pairs of answers: through the ledger, within a budget, several questions at once.

Two questions go ahead of the rest: where their answers are not what the judge's parser needs, or come from another
model than its file names, nothing more is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.client import Attempts, Refused, Stop
from actshift.judging.config import JudgeConfig
from actshift.judging.function_calls import ranking_of
from actshift.judging.judgments import is_switched, likelier_of, preference_of, verdict_of
from actshift.judging.ledger import Completion, Ledger, question_key
from actshift.judging.prompts import Message, judge_messages

Ask = Callable[[Sequence[Message], Attempts], Completion]
"""A judge: the completion of a question."""

PROBES = 2
REFUSED = "refused"
"""The key of a completion that holds why a server refused a question."""
IMPORTED = "imported_preference"
"""The key of a completion that holds a preference which was imported without the judge's raw answer; null of none."""
PARSE = {"logprob": preference_of, "likelier": likelier_of, "verdict": verdict_of, "tool": ranking_of}
"""What reads a preference, by the judge's parser."""


@dataclass(frozen=True)
class Question:
    """What one pair is asked in one order of its answers."""

    key: str
    messages: tuple[Message, ...]
    switched: bool


@dataclass(frozen=True)
class Pair:
    """An instruction, the reference's answer and the model's."""

    instruction: str
    dataset: str
    reference: str
    output: str

    def questions(self, config: JudgeConfig) -> list[Question]:
        """The questions of the pair: none of equal answers, one by the instruction's coin, or one in each order."""
        if self.output == self.reference:
            return []
        coin = is_switched(self.instruction)
        return [
            self._question(config, switched) for switched in ((coin,) if config.orders == "coin" else (False, True))
        ]

    def _question(self, config: JudgeConfig, switched: bool) -> Question:
        texts = {"reference": self.reference, "output": self.output}
        messages = judge_messages(self.instruction, **texts, switched=switched, name=config.template)
        return Question(question_key(config.identity, messages), tuple(messages), switched)


def open_questions(pairs: Sequence[Pair], config: JudgeConfig, ledger: Ledger) -> list[Question]:
    """The questions that are not answered yet, each once."""
    found = {question.key: question for pair in pairs for question in pair.questions(config)}
    return [question for key, question in found.items() if key not in ledger.answers]


def answer_all(pairs: Sequence[Pair], config: JudgeConfig, ask: Ask, ledger: Ledger, asker: Asker) -> None:
    """Have every question of the pairs in the ledger. Errors: `Stop`, after which what was answered is kept."""
    left = open_questions(pairs, config, ledger)
    for question in left[:PROBES]:
        asker.ask(question, ask)
    rest = left[PROBES:]
    if not rest:
        return
    with ThreadPoolExecutor(config.concurrency) as pool:
        futures = [pool.submit(asker.ask, question, ask) for question in rest]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((error for future in done if (error := future.exception())), None)
        if failed is not None:
            asker.stop.set()
            pool.shutdown(cancel_futures=True)  # those in flight are waited for: their answers are paid
            raise failed


class Asker:
    """Asks one question after the other or several at once; `stop` ends all of them."""

    def __init__(self, config: JudgeConfig, ledger: Ledger, *, budget: float | None, stop: threading.Event) -> None:
        self.stop = stop
        self._config, self._ledger, self._budget = config, ledger, budget
        self._lock = threading.Lock()
        self._model = next((name for each in ledger.answers.values() if (name := str(each.get("model") or ""))), "")

    def ask(self, question: Question, ask: Ask) -> None:
        """Ask until an answer can be read, and note it. Errors: `Stop`."""
        for _ in range(self._config.attempts):
            if self.stop.is_set():
                raise Stop("another question met an error after which none is asked")
            note = _Noted(self, question)
            try:
                completion = ask(question.messages, note)
            except Refused as refusal:
                self._ledger.ask(question.key)
                self._ledger.answer(question.key, {REFUSED: str(refusal)})
                return
            self._check_model(completion)
            problem = unreadable(completion, self._config)
            if problem is None:
                spent = self._config.billed(completion.get("usage") or {}, question.messages)
                self._ledger.answer(question.key, completion, dollars=spent)
                return
        raise Stop(
            f"judge {self._config.name} answers without what its parser '{self._config.parser}' needs: {problem}. "
            "Name a judge that gives it, or another parser in its file in conf/judge/."
        )

    def pay(self, question: Question) -> None:
        """Note a question before it leaves. Errors: `Stop` where the budget may not hold it."""
        most = self._config.dollars(question.messages)
        with self._lock:
            if self._budget is not None and self._ledger.spent + most > self._budget:
                raise Stop(
                    f"the budget of ${self._budget:.2f} is reached: this ledger has spent ${self._ledger.spent:.2f}, "
                    f"and the next question may cost ${most:.4f}. What is answered is kept; raise --budget to go on."
                )
            self._ledger.ask(question.key, dollars=most)

    def unpaid(self, question: Question) -> None:
        self._ledger.unpaid(question.key)

    def _check_model(self, completion: Completion) -> None:
        """Refuse an answer of another model than the file names, or than the ledger's first answer came from."""
        said, asked = str(completion.get("model") or ""), self._config.model
        with self._lock:
            self._model = self._model or said
        if not is_of_model(completion, asked):
            raise Stop(
                f"judge {self._config.name} asks {asked}, and {said} answers: its numbers would be another judge's"
            )
        if said != self._model:
            raise Stop(
                f"judge {self._config.name} was answered by {self._model or 'a model without a name'} before, and by "
                f"{said or 'a model without a name'} now. Their judgments never mix: give the new one its own file."
            )


def is_of_model(completion: Completion, asked: str) -> bool:
    """Whether a completion names no other model than `asked`, to which a server may add a date."""
    said = str(completion.get("model") or "")
    return said in ("", asked) or said.startswith(f"{asked}-")


class _Noted(Attempts):
    """A question's attempts in the ledger."""

    def __init__(self, asker: Asker, question: Question) -> None:
        self._asker, self._question = asker, question

    def leaves(self) -> None:
        self._asker.pay(self._question)

    def unpaid(self) -> None:
        self._asker.unpaid(self._question)


def unreadable(completion: Completion, config: JudgeConfig) -> str | None:
    """Why no parser can read an answer, in words; None where it can, an undecided one among them."""
    try:
        read(completion, config, switched=False)
    except ActshiftError as error:
        return str(error)
    return None


def read(completion: Completion, config: JudgeConfig, *, switched: bool) -> float | None:
    """The preference in a completion, None where it names neither answer or was refused."""
    if REFUSED in completion:
        return None
    if IMPORTED in completion:
        found: float | None = completion[IMPORTED]
        return found
    return PARSE[config.parser](completion, switched=switched)


def judged(pair: Pair, config: JudgeConfig, ledger: Ledger) -> dict[str, Any]:
    """One row of judgments in AlpacaEval's format, from the ledger; in both orders the mean of the two preferences."""
    row: dict[str, Any] = {"instruction": pair.instruction, "output_1": pair.reference, "output_2": pair.output}
    row |= {"dataset": pair.dataset, "annotator": config.label, "raw_completion": None, "preference": 1.5}
    questions = pair.questions(config)
    if not questions:
        return row
    completions = [ledger.answers[question.key] for question in questions]
    found = [read(each, config, switched=one.switched) for each, one in zip(completions, questions, strict=True)]
    known = [each for each in found if each is not None]
    whole = len(known) == len(found)
    row |= {"raw_completion": completions[0], "preference": sum(known) / len(known) if whole else None}
    if len(questions) > 1:
        row |= {"raw_completions": completions, "preferences": found}
    return row
