"""What a model answers on rows: by generation, or by the likelihood of the answers that there are.

Both return one list of predictions a replica, each in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from actshift.data.examples import Example, Rows
from actshift.evaluation.generation import generate, length_batches
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
    pairs = [
        (row, label, Example([*example.ids[: example.prompt_length], *ids], example.prompt_length, label))
        for row, (example, texts) in enumerate(zip(rows, options, strict=True))
        for label, ids in _encoded(base, texts).items()
    ]
    scores: list[list[dict[str, tuple[float, int]]]] = [[{} for _ in options] for _ in range(adaptation.replicas)]
    done = 0
    examples = [example for _, _, example in pairs]
    for batch, loss_AB in _losses(base, adaptation, examples, batch_tokens=batch_tokens):
        for replica, losses in enumerate(loss_AB):
            for index, loss in zip(batch, losses, strict=True):
                row, label, example = pairs[index]
                scores[replica][row][label] = (-loss, len(example.ids) - example.prompt_length)
        done += len(batch)
        progress(done, len(pairs))
    return [
        [_chosen(row, rows[row].label, options[row], logprobs) for row, logprobs in enumerate(own)] for own in scores
    ]


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


@torch.inference_mode()
def _losses(
    base: Base, adaptation: Adaptation, examples: Sequence[Example], *, batch_tokens: int
) -> Iterator[tuple[list[int], list[list[float]]]]:
    """Batches of indices, and of each replica the summed negative log-likelihoods there."""
    replicas = adaptation.replicas
    for batch in length_batches([len(example.ids) for example in examples], tokens=batch_tokens // replicas):
        stacked = collate([examples[index] for index in batch] * replicas, pad_id=base.pad_id, device=base.device)
        yield batch, answer_losses(base, adaptation, stacked).tolist()


def _chosen(row: int, label: str, texts: Mapping[str, str], logprobs: Mapping[str, tuple[float, int]]) -> Prediction:
    ordered = {option: logprobs[option] for option in texts}
    best = max(ordered, key=lambda option: ordered[option][0])
    return Prediction(row, texts[best], label, extracted=best, correct=best == label, logprobs=ordered)


def _by_replica(predictions: Mapping[int, Prediction], replicas: int) -> list[list[Prediction]]:
    rows = len(predictions) // replicas
    return [[predictions[replica * rows + row] for row in range(rows)] for replica in range(replicas)]
