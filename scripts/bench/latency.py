"""What an adapter costs when it answers: prompts read and tokens generated, beside the base model, in turns.

Every contestant is the base model in transformers' own passes: with hooks or modules that an adapter adds, or folded
into its weights. Prompts are random tokens; an adapter's values are random too, since time does not depend on them.
On a CPU the clock counts what this process computes, on one thread what an idle machine would take: other processes
slow a machine down more than an adapter does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.arguments import cache_argument
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.paths import PACKAGE
from actshift.schema.method import MethodConfig
from bench.case import load, model_overrides
from bench.measure import alternate, digits, ratios, spread, timed
from bench.parts import Options

METHODS = (
    *("lora_r8", "post_block_vector", "post_block_r1", "post_block", "post_block_nonlinear", "adapter_r64"),
    *("lofit", "jola", "reft", "joint"),
)
BATCHES = (1, 32)
BASE = "base"


@dataclass(frozen=True)
class Size:
    """Tokens of a prompt, tokens generated after it, and how often a lap does both."""

    prompt: int
    new: int
    rounds: int


SIZES = {1: Size(64, 16, 5), 32: Size(64, 8, 3)}
LARGE_ON_CPU = {1: Size(64, 8, 2), 32: Size(16, 2, 1)}
"""For models of 100 million parameters and more, of which a CPU reads a few hundred tokens a second."""


@dataclass(frozen=True)
class Lap:
    """Seconds for all prompts of a batch together, and for one token of each of its rows."""

    prompt: float
    token: float


def latency(options: Options, model: str, *, sizes: dict[int, Size] | None = None) -> dict[str, Any]:
    """Milliseconds a token and prompt tokens a second by contestant and batch, and their ratio to the base's."""
    config = compose([*model_overrides(model), f"hardware={_hardware()}", *options.overrides])
    base = load(config, texts=None)
    large = base.device.type == "cpu" and base.parameters > 5e7
    sizes = sizes or (LARGE_ON_CPU if large else SIZES)
    contestants: dict[str, Callable[[], Any]] = {BASE: partial(_plain, base)}
    facts: dict[str, dict[str, Any]] = {BASE: {"adapter_bytes": 0}}
    for method in METHODS:
        chosen = compose([*model_overrides(model), f"method={method}", *options.overrides]).method
        facts[method] = _facts(base, chosen)
        contestants[method] = partial(_attached, base, chosen)
        if facts[method]["folds"]:
            contestants[f"{method}, folded"] = partial(_folded, base, chosen)
            facts[f"{method}, folded"] = {"adapter_bytes": facts[method]["adapter_bytes"]}
    found = {
        str(batch): _compared(base, contestants, batch=batch, size=size, repeats=options.repeats)
        for batch, size in sizes.items()
    }
    return {
        "model": model,
        "parameters": base.parameters,
        "precision": config.training.precision,
        "clock": "wall" if base.device.type == "cuda" else "process",
        "sizes": {str(batch): dataclasses.asdict(size) for batch, size in sizes.items()},
        "contestants": facts,
        "batches": found,
    }


def _hardware() -> str:
    return "a100-80gb" if torch.cuda.is_available() else "cpu"


def _compared(
    base: Base, contestants: dict[str, Callable[[], Any]], *, batch: int, size: Size, repeats: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    vocabulary = base.model.config.get_text_config().vocab_size
    ids_BT = torch.randint(5, vocabulary, (batch, size.prompt), generator=generator, device="cpu").to(base.device)

    def lap(contestant: Callable[[], Any]) -> Lap:
        with torch.inference_mode(False), torch.no_grad(), contestant() as adaptation:
            answer(base, adaptation, ids_BT, new=1)  # warm up
            laps = [answer(base, adaptation, ids_BT, new=size.new) for _ in range(size.rounds)]
        return Lap(min(each.prompt for each in laps), min(each.token for each in laps))

    laps = alternate({name: partial(lap, each) for name, each in contestants.items()}, repeats=repeats)
    plain = laps[BASE]
    return {
        name: {
            "milliseconds_per_token": spread([1000 * each.token for each in found]),
            "prompt_tokens_per_second": spread([ids_BT.numel() / each.prompt for each in found]),
            "token_ratio": ratios([each.token for each in found], [each.token for each in plain]),
            "prompt_ratio": ratios([each.prompt for each in found], [each.prompt for each in plain]),
        }
        for name, found in laps.items()
    }


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
    if device.type == "cuda":
        return timed(work, device=device)
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


@contextmanager
def _plain(base: Base) -> Iterator[None]:
    yield None


@contextmanager
def _attached(base: Base, config: MethodConfig) -> Iterator[Adaptation]:
    adaptation = _moved(attach(base, config=config, seeds=(0,)))
    try:
        yield adaptation
    finally:
        adaptation.detach()


@contextmanager
def _folded(base: Base, config: MethodConfig) -> Iterator[None]:
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


@torch.no_grad()
def _moved(adaptation: Adaptation) -> Adaptation:
    """Every value off its start, where much is 0."""
    generator = torch.Generator().manual_seed(0)
    for _, parameter in adaptation.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, device="cpu")
        parameter.add_(1e-3 * noise.to(parameter))
    return adaptation


def _facts(base: Base, config: MethodConfig) -> dict[str, Any]:
    """Bytes of the saved adapter, whether it can be folded, and why not."""
    adaptation = _moved(attach(base, config=config, seeds=(0,)))
    size = sum(tensor.nbytes for tensor in adaptation.state_dict().values())
    adaptation.detach()
    facts: dict[str, Any] = {"adapter_bytes": size, "folds": True}
    try:
        with _folded(base, config):
            pass
    except ActshiftError as error:
        facts |= {"folds": False, "why_not": str(error)}
    return facts


def shown(figures: dict[str, Any]) -> str:
    """The slowest and the fastest contestant beside the base, one token at a time, batch 1."""
    one = {name: found["token_ratio"]["median"] for name, found in figures["batches"]["1"].items() if name != BASE}
    order = sorted(one, key=lambda name: one[name])
    base = figures["batches"]["1"][BASE]["milliseconds_per_token"]["median"]
    return f"base {base} ms; " + ", ".join(f"{name} {digits(one[name])}x" for name in (order[0], order[-1]))


def plot(figures: dict[str, Any], path: Path) -> None:
    """A bar a contestant and batch: milliseconds a token in times of the base's, with quartiles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.style.context(PACKAGE / "report" / "style.mplstyle"):
        batches = figures["batches"]
        names = list(next(iter(batches.values())))[1:]
        figure, axes = pyplot.subplots(1, len(batches), figsize=(8.4, 0.24 * len(names) + 1.0), sharey=True)
        for axis, (batch, found) in zip(axes, batches.items(), strict=True):
            middle = [found[name]["token_ratio"]["median"] for name in names]
            low = [max(0.0, found[name]["token_ratio"]["median"] - found[name]["token_ratio"]["q1"]) for name in names]
            high = [max(0.0, found[name]["token_ratio"]["q3"] - found[name]["token_ratio"]["median"]) for name in names]
            axis.barh(names, middle, xerr=[low, high], height=0.6)
            axis.axvline(1.0, color="black", linewidth=0.8)
            axis.set(title=f"{figures['model']}, batch {batch}", xlabel="time of a token, base = 1")
        axes[0].invert_yaxis()
        figure.savefig(path)
        pyplot.close(figure)
