"""What an adapter costs when it answers: prompts read and tokens generated, beside the base model, in turns.

Every contestant is the base model in transformers' own passes: with hooks or modules that an adapter adds, or folded
into its weights. Prompts are random tokens; an adapter's values are random too, since time does not depend on them.
On a CPU the clock counts what this process computes, on one thread what an idle machine would take: other processes
slow a machine down more than an adapter does.

Shapes: B rows, T tokens, E outputs and I inputs of a linear layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from transformers import DynamicCache

from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.errors import ActshiftError, unknown
from actshift.estimates.memory import estimate_peak
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.arguments import cache_argument
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.runtime.session import Session, set_threads
from actshift.schema.analysis import LatencyConfig
from actshift.schema.config import Config
from actshift.schema.method import MethodConfig

T = TypeVar("T")
BASE = "base"
COLUMNS = (
    *("method", "folded", "batch", "milliseconds_per_token", "prompt_tokens_per_second"),
    *("token_ratio", "token_low", "token_high", "prompt_ratio", "prompt_low", "prompt_high"),
    *("trained", "adapter_bytes", "training_bytes"),
)


@dataclass(frozen=True)
class Lap:
    """Seconds for all prompts of a batch together, and for one token of each of its rows."""

    prompt: float
    token: float


@dataclass(frozen=True)
class Contestant:
    """One way to answer: what stands in a row of its own, and a context in which the model answers so."""

    method: str
    folded: bool
    facts: Mapping[str, float]
    enter: Callable[[], Any]


def latency(config: Config, *, session: Session | None = None) -> pd.DataFrame:
    """One row a contestant and size of batch, medians over turns:

    milliseconds_per_token: of a token of every row of the batch; prompt_tokens_per_second: while prompts are read.
    token_ratio, prompt_ratio: time over the base model's of the same turn, with quartiles (`low`, `high`).
    trained: numbers that train. adapter_bytes: of the saved tensors. training_bytes: the peak of a training run, as it
    is planned (records of runs on CUDA have what it was). Errors: a method that conf/method does not have.
    """
    set_threads(config.hardware)
    analysis, configs = config.analysis_as(LatencyConfig), _methods(config)
    base = (session or Session()).base(config)
    contestants = [Contestant(BASE, False, {}, partial(plain, base))]
    for name, own in configs.items():
        facts = _facts(base, own)
        contestants.append(Contestant(name, False, facts, partial(attached, base, own.method)))
        if why_not_folded(base, own.method) is None:
            contestants.append(Contestant(name, True, facts, partial(folded, base, own.method)))
    rows = [row for batch in analysis.batches for row in _rows(base, contestants, batch=batch, analysis=analysis)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _methods(config: Config) -> dict[str, Config]:
    """The configuration with each method of the analysis in the place of its own."""
    found = {}
    model = [f"model={config.model.name}"] if config.model.name in groups()["model"] else []
    for name in config.analysis_as(LatencyConfig).methods:
        if name not in groups()["method"]:
            raise unknown("method", name, groups()["method"], where="analysis.methods=[...]")
        found[name] = replace(config, method=compose([*model, f"method={name}"]).method)
    return found


def _rows(
    base: Base, contestants: list[Contestant], *, batch: int, analysis: LatencyConfig
) -> Iterator[tuple[Any, ...]]:
    ids_BT = random_ids(base, batch, analysis.prompt)
    timed = {
        str(number): partial(lap, base, each.enter, ids_BT, new=analysis.new_tokens, rounds=analysis.rounds)
        for number, each in enumerate(contestants)
    }
    found = list(alternate(timed, repeats=analysis.turns).values())
    for each, laps in zip(contestants, found, strict=True):
        token, prompt = (np.array([getattr(one, part) for one in laps]) for part in ("token", "prompt"))
        own = (1000 * np.median(token), ids_BT.numel() / np.median(prompt))
        ratios = [
            float(value)
            for mine, part in ((token, "token"), (prompt, "prompt"))
            for value in np.quantile(mine / np.array([getattr(one, part) for one in found[0]]), [0.5, 0.25, 0.75])
        ]
        facts = (each.facts.get(name, 0) for name in ("trained", "adapter_bytes", "training_bytes"))
        yield (each.method, each.folded, batch, *map(float, own), *ratios, *facts)


def alternate(contestants: Mapping[str, Callable[[], T]], *, repeats: int) -> dict[str, list[T]]:
    """What each contestant returns in each of `repeats` turns; every turn begins with another one of them."""
    names = list(contestants)
    found: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in [*names[first:], *names[:first]]:
            found[name].append(contestants[name]())
    return found


def random_ids(base: Base, rows: int, tokens: int) -> torch.Tensor:
    """(B, T): token ids drawn by a fixed seed, none of the first few, which are special in many tokenizers."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = base.model.config.get_text_config().vocab_size
    return torch.randint(5, vocabulary, (rows, tokens), generator=generator, device="cpu").to(base.device)


def lap(base: Base, enter: Callable[[], Any], ids_BT: torch.Tensor, *, new: int, rounds: int) -> Lap:
    """The fastest of some rounds after one that warms up."""
    with torch.inference_mode(False), torch.no_grad(), enter() as adaptation:
        answer(base, adaptation, ids_BT, new=1)
        laps = [answer(base, adaptation, ids_BT, new=new) for _ in range(rounds)]
    return Lap(min(each.prompt for each in laps), min(each.token for each in laps))


def answer(base: Base, adaptation: Adaptation | None, ids_BT: torch.Tensor, *, new: int) -> Lap:
    """Read a batch of prompts and generate `new` tokens after each, greedily and without an end."""
    cache = DynamicCache(config=base.model.config)
    given = {"use_cache": True, cache_argument(base.model): cache, "logits_to_keep": 1}

    def read() -> torch.Tensor:
        if adaptation is not None:
            adaptation.begin_pass(ForwardPass(torch.ones_like(ids_BT, dtype=torch.bool)))
        found: torch.Tensor = base.model(input_ids=ids_BT, **given).logits.argmax(-1)
        return found

    def continued(token_B1: torch.Tensor) -> torch.Tensor:
        if adaptation is not None:
            adaptation.begin_pass(ForwardPass(None))
        for _ in range(new):
            token_B1 = base.model(input_ids=token_B1, **given).logits.argmax(-1)
        return token_B1

    prompt, first_B1 = _clocked(read, device=base.device)
    tokens, _ = _clocked(lambda: continued(first_B1), device=base.device)
    return Lap(prompt, tokens / new)


def _clocked(work: Callable[[], torch.Tensor], *, device: torch.device) -> tuple[float, torch.Tensor]:
    """Seconds that some work took, of the wall on CUDA and of this process on a CPU, and its result."""
    clock = time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        clock = time.perf_counter
    started = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started, result


@contextmanager
def plain(base: Base) -> Iterator[None]:
    """The base model as it is."""
    yield None


@contextmanager
def attached(base: Base, config: MethodConfig) -> Iterator[Adaptation]:
    """The base model with an adapter of random values on it."""
    adaptation = _moved(attach(base, config=config, seeds=(0,)))
    try:
        yield adaptation
    finally:
        adaptation.detach()


@contextmanager
def folded(base: Base, config: MethodConfig) -> Iterator[None]:
    """The adapter in the weights, which are put back afterwards; what had no bias has none again."""
    linear = {name: module for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)}
    layers = {name: each for name, each in linear.items() if "layers." in name}
    before = {name: (each.weight.detach().clone(), each.bias) for name, each in layers.items()}
    adaptation = _moved(attach(base, config=config, seeds=(0,)))
    try:
        adaptation.fold()
    except ActshiftError:
        adaptation.detach()
        raise
    try:
        yield None
    finally:
        for name, (weight_EI, bias_E) in before.items():
            layers[name].weight.data.copy_(weight_EI)
            layers[name].bias = bias_E


def why_not_folded(base: Base, config: MethodConfig) -> str | None:
    """Why an adapter cannot be put into the weights; None where it can."""
    try:
        with folded(base, config):
            return None
    except ActshiftError as error:
        return str(error)


@torch.no_grad()
def _moved(adaptation: Adaptation) -> Adaptation:
    """Every value off its start, where much is 0."""
    generator = torch.Generator().manual_seed(0)
    for _, parameter in adaptation.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, device="cpu")
        parameter.add_(1e-3 * noise.to(parameter))
    return adaptation


def adapter_bytes(base: Base, config: MethodConfig) -> tuple[int, int]:
    """The numbers of an adapter that train, and the bytes of its saved tensors."""
    with attached(base, config) as adaptation:
        size = sum(tensor.nbytes for tensor in adaptation.state_dict().values())
        return adaptation.trainable_parameters(), size


def _facts(base: Base, config: Config) -> dict[str, float]:
    trained, size = adapter_bytes(base, config.method)
    return {"trained": trained, "adapter_bytes": size, "training_bytes": estimate_peak(config).bytes}
