"""What adaptation costs elsewhere: likelihood of a text that no task contains, and accuracy on other data sets.

Shapes: T tokens of a window, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.nn.functional import cross_entropy

from actshift.analysis.adapters import Trained, attached, trained
from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.runtime.evaluate import evaluate
from actshift.runtime.session import Session, set_threads
from actshift.schema.analysis import RetentionConfig
from actshift.schema.config import Config
from actshift.store.adapter_card import compose_request
from actshift.store.store import Store

TEXT = Path(__file__).with_name("plain_text.txt")
BASE = "base"
COLUMNS = ("method", "seed", "trained", "accuracy", "nll", "nll_change")


def retention(config: Config, *, session: Session | None = None) -> pd.DataFrame:
    """One row for the base model and one an adapter:

    trained: numbers that train. accuracy: percent right on the test split of its own data set, from the run's record.
    nll: mean negative log-likelihood (nats a token) of `analysis.text`, in windows of `analysis.window` tokens, each a
    prompt by itself; nll_change: that less the base model's. on_DATASET: percent right on the first `analysis.rows`
    test rows of each of `analysis.datasets`. Errors: a text that cannot be read or is shorter than two tokens.
    """
    set_threads(config.hardware)
    session, analysis = session or Session(), config.analysis_as(RetentionConfig)
    adapters = trained(config)
    windows = _windows(config, session.base(config))
    plain = _likelihood(session.base(config), windows)
    rows = [{"method": BASE, "nll": plain, "nll_change": 0.0}]
    for each in adapters:
        nll = _likelihood(session.base(config), windows, each)
        others = {f"on_{name}": _elsewhere(config, each, name, session=session) for name in analysis.datasets}
        rows.append({**_of_run(config, each), "nll": nll, "nll_change": nll - plain, **others})
    return pd.DataFrame(rows, columns=[*COLUMNS, *(f"on_{name}" for name in analysis.datasets)])


def _of_run(config: Config, each: Trained) -> dict[str, Any]:
    card, store = each.adapter.description, Store(config.results)
    record = store.record(card.identity, "test")
    if record is None:
        sweep = config.analysis_as(RetentionConfig).sweep
        raise ActshiftError(f"run {card.identity} has no test record: finish the sweep '{sweep}'")
    numbers = {"trained": card.trainable_parameters, "accuracy": record.metrics["accuracy"]}
    return {"method": each.method, "seed": each.seed, **numbers}


def _elsewhere(config: Config, each: Trained, dataset: str, *, session: Session) -> float:
    """Percent right on another data set: an evaluation as `stage=evaluate` makes and keeps it."""
    data = [f"data.dir={config.data.dir}"] if config.data.dir else []
    rows = config.analysis_as(RetentionConfig).rows
    asked = [f"dataset={dataset}", f"data.limit.test={rows}", f"results={config.results}"]
    folder = str(each.adapter.folder).replace("'", r"\'")
    found = evaluate(compose_request(["stage=evaluate", f"adapter='{folder}'", *asked, *data]), session=session)
    return float(found.metrics["accuracy"])


def _windows(config: Config, base: Base) -> list[list[int]]:
    """The text's token ids, as many as a window has at a time, each window after the tokenizer's first token."""
    analysis = config.analysis_as(RetentionConfig)
    path = Path(analysis.text or TEXT)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ActshiftError(f"analysis.text = {path} cannot be read as text: {error}") from error
    ids, size = base.tokenizer.encode(text, add_special_tokens=False), analysis.window
    first = [base.tokenizer.bos_token_id] if base.tokenizer.bos_token_id is not None else []
    parts = [first + ids[start : start + size] for start in range(0, len(ids), size)]
    kept = [part for part in parts if len(part) >= 2]
    if not kept:
        raise ActshiftError(f"analysis.text = {path} has {len(ids)} tokens: two are needed to predict one")
    return kept


@torch.no_grad()
def _likelihood(base: Base, windows: Iterable[list[int]], each: Trained | None = None) -> float:
    """Mean negative log-likelihood (nats) of every token that another one of its window precedes."""
    total, count = 0.0, 0
    for window in windows:
        ids_1T = torch.tensor([window], device=base.device)
        whole_1T = torch.ones_like(ids_1T, dtype=torch.bool)
        within: AbstractContextManager[None] = nullcontext() if each is None else attached(base, each, whole_1T)
        with within:
            logits_TV = base.model(input_ids=ids_1T).logits[0, :-1].float()
        total += float(cross_entropy(logits_TV, ids_1T[0, 1:], reduction="sum"))
        count += len(window) - 1
    return total / count
