"""What a model answers on rows: by generation, or by the likelihood of the answers that there are.

Both return one list of predictions a replica, each in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from actshift.data.examples import Example, Rows
from actshift.evaluation.generation import continuation_logprobs, generate, length_batches
from actshift.evaluation.predictions import Prediction
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.tasks.base import Task
from actshift.training.batches import answer_losses, collate

Done = Callable[[int, int], None]
"""Told how many answers there are, of how many there will be."""


def predict(
    base: Base,
    adaptation: Adaptation,
    *,
    task: Task,
    rows: Rows,
    max_new_tokens: int,
    batch_tokens: int,
    progress: Done,
    ends: Collection[int] | None = None,
    stop: bool = True,
) -> list[list[Prediction]]:
    """Generate from every row's prompt and score the continuations.

    A continuation stops where the task's rule is decided, which changes its text and never its score; `stop=False`
    goes on to the end token, and counts the tokens.
    """
    prompts = [row.ids[: row.prompt_length] for row in rows]

    def decided(ids: list[int]) -> bool:
        # Half a character shows as U+FFFD, and may become any letter.
        return task.decided(continuation_text(base, ids).rstrip("\ufffd"))

    predictions: dict[int, Prediction] = {}
    for index, ids in generate(
        base,
        adaptation,
        prompts=prompts,
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        ends=ends,
        decided=decided if stop and task.first_match else None,
    ):
        output, row = continuation_text(base, ids), index % len(rows)
        label = rows[row].label
        predictions[index] = Prediction(
            row,
            output,
            label,
            extracted=task.extract(output),
            correct=task.score(output, label),
            tokens=None if stop else len(ids),
        )
        progress(len(predictions), adaptation.replicas * len(rows))
    return _by_replica(predictions, adaptation.replicas)


def continuation_text(base: Base, ids: list[int]) -> str:
    """The text of generated tokens, special ones left out."""
    # released: a tokenizer may tidy spaces before punctuation / here: the beginning of ids is the beginning of text.
    text = base.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def choose(
    base: Base,
    adaptation: Adaptation,
    *,
    rows: Rows,
    options: Sequence[Mapping[str, str]],
    batch_tokens: int,
    progress: Done,
) -> list[list[Prediction]]:
    """Of each row's `options` (texts by label), the one with the largest log-likelihood after the prompt.

    log p(answer | prompt) = sum over the answer's tokens of log p(token | what is before it), in nats; the end token
    is not part of it. Ties go to the first option. The labels are compared as they are: no scoring rule is at work.
    """
    asked = [
        _Asked(row.ids[: row.prompt_length], _encoded(base, texts)) for row, texts in zip(rows, options, strict=True)
    ]
    short = [row for row, each in enumerate(asked) if each.answers_are_short]
    long = [row for row, each in enumerate(asked) if not each.answers_are_short]
    scores: list[list[dict[str, tuple[float, int]]]] = [[{} for _ in options] for _ in range(adaptation.replicas)]
    done = 0
    for chosen, likelihoods in ((short, _after_one_prompt), (long, _prompt_by_prompt)):
        for places in length_batches(
            [asked[row].positions for row in chosen], tokens=batch_tokens // adaptation.replicas
        ):
            batch = [chosen[place] for place in places]
            found = likelihoods(base, adaptation, [asked[row] for row in batch])
            for own, of_replica in zip(scores, found, strict=True):
                for row, logprobs in zip(batch, of_replica, strict=True):
                    own[row] = asked[row].by_label(logprobs)
            done += sum(len(asked[row].answers) for row in batch)
            progress(done, sum(len(each.answers) for each in asked))
    return [
        [_chosen(row, rows[row].label, options[row], logprobs) for row, logprobs in enumerate(own)] for own in scores
    ]


TOKEN_BY_TOKEN = 4
"""What a token costs that is computed by itself, in times of one that is computed with its row: an estimate between
what makes BoolQ and Winogrande 1.6 times as fast on the embedded model, and ARC-Challenge's long answers slower."""


@dataclass(frozen=True)
class _Asked:
    """A prompt and its possible answers, as token ids."""

    prompt: Sequence[int]
    answers: Mapping[str, Sequence[int]]

    @property
    def answers_are_short(self) -> bool:
        """Whether computing the prompt once saves more than computing the answers token by token costs."""
        steps = len(self.answers) * max(map(len, self.answers.values()))
        return (len(self.answers) - 1) * len(self.prompt) > TOKEN_BY_TOKEN * steps

    @property
    def positions(self) -> int:
        """What its rows hold of a batch: prompt and longest answer, once for each answer."""
        return len(self.answers) * (len(self.prompt) + max(map(len, self.answers.values())))

    def by_label(self, logprobs: Sequence[float]) -> dict[str, tuple[float, int]]:
        """The log-likelihood of each answer, and the number of its tokens."""
        return {
            label: (logprob, len(ids)) for (label, ids), logprob in zip(self.answers.items(), logprobs, strict=True)
        }


def _after_one_prompt(base: Base, adaptation: Adaptation, asked: Sequence[_Asked]) -> list[list[list[float]]]:
    """log p by replica, place and answer: each prompt is computed once, and its answers continue it token by token."""
    answers = [list(each.answers.values()) for each in asked]
    return continuation_logprobs(base, adaptation, [each.prompt for each in asked], answers)


def _prompt_by_prompt(base: Base, adaptation: Adaptation, asked: Sequence[_Asked]) -> list[list[list[float]]]:
    """log p by replica, place and answer: each answer is computed in one pass with its prompt."""
    examples = [
        Example([*each.prompt, *ids], len(each.prompt), label="") for each in asked for ids in each.answers.values()
    ]
    found = [iter(losses) for losses in _batch_losses(base, adaptation, examples)]
    return [[[-next(losses) for _ in each.answers] for each in asked] for losses in found]


def _encoded(base: Base, texts: Mapping[str, str]) -> dict[str, list[int]]:
    encoded = base.tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"]
    return dict(zip(texts, encoded, strict=True))


@dataclass(frozen=True)
class AnswerLoss:
    """The summed negative log-likelihood of rows' answers, and the tokens that it is summed over."""

    nats: float
    tokens: int


def answer_loss(
    base: Base, adaptation: Adaptation, *, rows: Rows, batch_tokens: int, progress: Done
) -> list[AnswerLoss]:
    """The loss of each replica on the answers of rows, as they are trained: each is given what is before it."""
    nats, done = [0.0] * adaptation.replicas, 0
    examples = list(rows)
    for batch, loss_AB in _losses(base, adaptation, examples, batch_tokens=batch_tokens):
        nats = [sum(losses, start=before) for before, losses in zip(nats, loss_AB, strict=True)]
        done += len(batch)
        progress(done, len(examples))
    tokens = sum(len(example.ids) - example.prompt_length for example in examples)
    return [AnswerLoss(each, tokens) for each in nats]


def _losses(
    base: Base, adaptation: Adaptation, examples: Sequence[Example], *, batch_tokens: int
) -> Iterator[tuple[list[int], list[list[float]]]]:
    """Batches of indices, and of each replica the summed negative log-likelihoods there."""
    lengths = [len(example.ids) for example in examples]
    for batch in length_batches(lengths, tokens=batch_tokens // adaptation.replicas):
        yield batch, _batch_losses(base, adaptation, [examples[index] for index in batch])


@torch.inference_mode()
def _batch_losses(base: Base, adaptation: Adaptation, examples: Sequence[Example]) -> list[list[float]]:
    """The summed negative log-likelihood of each example's answer, by replica."""
    stacked = collate([*examples] * adaptation.replicas, pad_id=base.pad_id, device=base.device)
    found: list[list[float]] = answer_losses(base, adaptation, stacked).tolist()
    return found


def _chosen(row: int, label: str, texts: Mapping[str, str], logprobs: Mapping[str, tuple[float, int]]) -> Prediction:
    ordered = {option: logprobs[option] for option in texts}
    best = max(ordered, key=lambda option: ordered[option][0])
    return Prediction(row, texts[best], label, extracted=best, correct=best == label, logprobs=ordered)


def _by_replica(predictions: Mapping[int, Prediction], replicas: int) -> list[list[Prediction]]:
    rows = len(predictions) // replicas
    return [[predictions[replica * rows + row] for row in range(rows)] for replica in range(replicas)]
