"""How far a model is from the fine-tuned one at each token of the fine-tuned model's own greedy continuations.

Shapes: B rows, T tokens, V words of the vocabulary.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pandas as pd
import torch

from actshift.analysis.activations import batch_of, record, tokens_BT
from actshift.analysis.adapters import Trained, attached, trained
from actshift.analysis.maps import BLOCK, fit_all_layers, kinds, steered
from actshift.data.examples import Example
from actshift.evaluation.generation import generate
from actshift.models.loading import Base
from actshift.runtime.session import Session
from actshift.runtime.train import training_examples
from actshift.schema.analysis import ContinuationsConfig
from actshift.schema.config import Config
from actshift.training.batches import Batch, collate

BASE = "base model"
BATCH_TOKENS = 4096
COLUMNS = ("model", "token", "count", "kl", "low", "high", "kl_left")
NORMAL = 1.96
"""The 97.5th percentile of the normal distribution: bands are of means over many prompts."""


def continuations(config: Config, *, session: Session | None = None) -> pd.DataFrame:
    """One row a model and token of the continuation, the end token among them:

    kl: KL(fine-tuned || model) in nats, the mean over the prompts whose continuation goes so far (`count`) and over the
    model's seeds; low and high: its 95% interval over prompts. kl_left: kl over that of the base model.
    The models are the base, the base steered at every block by maps fitted to training rows, and trained adapters.
    """
    session, analysis = session or Session(), config.analysis_as(ContinuationsConfig)
    tuned_by, others = _adapters(config)
    base = session.base(config)
    train = batch_of(config, base, rows=analysis.rows, session=session)
    with attached(base, tuned_by, train.prompt_BT):
        _, wanted = record(base, train, sites=(BLOCK,))
    batch = _continued(config, base, tuned_by, session=session)
    reference = _log_probabilities(base, batch, attached(base, tuned_by, batch.prompt_BT))
    found = {BASE: [_divergences(reference, _log_probabilities(base, batch, None))]}
    for name, fit in kinds(analysis, width=base.sites.model_width).items():
        maps = fit_all_layers(base, train, wanted, tokens_BT(train), fit)
        found[f"map: {name}"] = [_divergences(reference, _log_probabilities(base, batch, steered(base, maps)))]
    for each in others:
        with_adapter = _log_probabilities(base, batch, attached(base, each, batch.prompt_BT))
        found.setdefault(each.method, []).append(_divergences(reference, with_adapter))
    rows = [
        row
        for name, divergences in found.items()
        for row in _summaries(name, _along(torch.stack(divergences).mean(0), batch))
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    base_kl = frame[frame["model"].eq(BASE)].set_index("token")["kl"]
    return frame.assign(kl_left=frame["kl"] / frame["token"].map(base_kl))


def _adapters(config: Config) -> tuple[Trained, list[Trained]]:
    """The fine-tuned model's adapter (its first seed), and those of the other methods."""
    analysis, every = config.analysis_as(ContinuationsConfig), trained(config)
    first = next(each for each in every if each.method == analysis.reference)
    return first, [each for each in every if each.method != analysis.reference]


def _continued(config: Config, base: Base, each: Trained, *, session: Session) -> Batch:
    """Prompts of the validation split with the fine-tuned model's continuations in the place of answers."""
    split = session.split(config, "validation")
    examples = training_examples(split, config=config, tokenizer=base.tokenizer, cache=None)
    analysis = config.analysis_as(ContinuationsConfig)
    rows = [examples[row] for row in range(min(analysis.rows, len(examples)))]
    prompts = [row.ids[: row.prompt_length] for row in rows]
    longest, end = analysis.new_tokens, base.tokenizer.eos_token_id
    adaptation = each.adapter.attach(base)
    try:
        made = generate(base, adaptation, prompts=prompts, max_new_tokens=longest, batch_tokens=BATCH_TOKENS)
        new = dict(made)
    finally:
        adaptation.detach()
    whole = [[*new[row], end][:longest] for row in range(len(prompts))]
    longer = [Example([*prompt, *more], len(prompt), "") for prompt, more in zip(prompts, whole, strict=True)]
    return collate(longer, pad_id=base.pad_id, device=base.device)


@torch.no_grad()
def _log_probabilities(base: Base, batch: Batch, changed: AbstractContextManager[None] | None) -> torch.Tensor:
    """(B, T, V) in float64, at each token those of the next."""
    if changed is None:
        return base.model(input_ids=batch.ids_BT).logits.double().log_softmax(-1)
    with changed:
        return _log_probabilities(base, batch, None)


def _divergences(wanted_BTV: torch.Tensor, found_BTV: torch.Tensor) -> torch.Tensor:
    """KL(wanted || found) in nats at each position of each row."""
    return (wanted_BTV.exp() * (wanted_BTV - found_BTV)).sum(-1)


def _along(kl_BT: torch.Tensor, batch: Batch) -> list[list[float]]:
    """The divergences by token of the continuation, over the rows that go so far: position t predicts token t + 1."""
    by_token: list[list[float]] = []
    for row, example in enumerate(batch.examples):
        places = range(example.prompt_length - 1, len(example.ids) - 1)
        for token, place in enumerate(places):
            by_token += [[]] if token == len(by_token) else []
            by_token[token].append(float(kl_BT[row, place]))
    return by_token


def _summaries(name: str, by_token: list[list[float]]) -> Iterator[tuple[Any, ...]]:
    """Mean and 95% interval over prompts, by token; a single prompt has no interval."""
    for token, values in enumerate(by_token, start=1):
        mean = statistics.fmean(values)
        half = NORMAL * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        yield name, token, len(values), mean, mean - half, mean + half
