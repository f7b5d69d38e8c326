"""Base models that need no network, methods on them, and rows: what the tests of adaptation start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import yaml

from actshift.config.composition import compose
from actshift.config.composition import composed as unresolved
from actshift.config.groups import groups
from actshift.data.examples import Example
from actshift.evaluation.generation import generate
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import Base, load_base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.paths import conf_dir
from actshift.schema.config import Config, TrainingConfig
from actshift.schema.method import MethodConfig
from actshift.tasks.base import Task

torch.set_num_threads(1)  # sums in one order: a test gives the same figures on every run

CPU = torch.device("cpu")


def _source(model: str) -> str:
    return str(unresolved([f"model={model}"]).model.source)


LOCAL_MODELS = [
    model for model in groups()["model"] if _source(model) in ("embedded", "random") and model != "tiny_taught"
]
"""The models that load in a moment: the embedded one, and those of random weights. `tiny_taught` is `tiny` with other
weights, which no method can tell."""
RANDOM_MODELS = [model for model in LOCAL_MODELS if model.startswith("random-")]
METHODS = groups()["method"]


@cache
def composed(*overrides: str) -> Config:
    return compose(overrides)


def method_config(method: str, *overrides: str, model: str) -> Any:
    """A method's config as it fits a small model: what was made for a larger one is adapted, and no more.

    A list of layers becomes the first and the last; of the heads that LoFiT chooses there are enough for each layer.
    """
    file = yaml.safe_load((conf_dir() / "method" / f"{method}.yaml").read_text())
    if isinstance(file.get("layers"), list):
        last = composed(f"model={model}").model.shape.layers - 1
        overrides = (f"model={model}", f"method.layers=[0,{last}]", *overrides)
    if "selection" in file:
        overrides = ("method.selection.heads=0.9", *overrides)
    return composed(f"method={method}", *overrides).method


@cache
def base_of(model: str, precision: str = "float32") -> Base:
    """A base model that the tests share: whoever attaches to it takes off again."""
    return another_base(model, precision)


def another_base(model: str, precision: str = "float32") -> Base:
    """A base model of the test's own, for what is compared while something is attached to the shared one."""
    return load_base(composed(f"model={model}").model, precision=precision, device=CPU)


@contextmanager
def attached(base: Base, config: MethodConfig, *, seeds: Sequence[int] = (0,)) -> Iterator[Adaptation]:
    adaptation = attach(base, config=config, seeds=seeds)
    try:
        yield adaptation
    finally:
        adaptation.detach()


@torch.no_grad()
def perturb(adaptation: Adaptation, *, seed: int = 0, scale: float = 0.05) -> Adaptation:
    """Move every parameter off its initial value, a no-op for most methods; each replica in its own direction."""
    generator = torch.Generator().manual_seed(seed)
    for replica in range(adaptation.replicas):
        for _, parameter in adaptation.named_parameters(replica):
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return adaptation


def some_ids(base: Base, *shape: int, seed: int = 0) -> torch.Tensor:
    """Token ids, none of them special."""
    return torch.randint(5, base.model.config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def some_prompts(base: Base, lengths: Sequence[int], *, seed: int = 0) -> list[list[int]]:
    return [some_ids(base, length, seed=seed + place).tolist() for place, length in enumerate(lengths)]


def some_rows(base: Base, count: int, *, seed: int = 0) -> list[Example]:
    """Rows of mixed lengths: 3 to 10 prompt tokens, 1 to 4 answer tokens."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [torch.randint(low, high, (count,), generator=generator).tolist() for low, high in ((3, 11), (1, 5))]
    return [
        Example(ids=some_ids(base, prompt + answer, seed=seed + place).tolist(), prompt_length=prompt, label="")
        for place, (prompt, answer) in enumerate(zip(*sizes, strict=True))
    ]


def training_config(**changes: Any) -> TrainingConfig:
    """What the training loop reads of a config, as `compose` gives it."""
    training = composed("protocol=paper", "method=post_block").training
    return replace(training, **{"validations": 0, **changes})


@torch.no_grad()
def logits(base: Base, adaptation: Adaptation | None, ids_BT: torch.Tensor) -> torch.Tensor:
    """The logits of unpadded rows, all of whose tokens are prompt."""
    if adaptation is not None:
        adaptation.begin_pass(ForwardPass(torch.ones_like(ids_BT, dtype=torch.bool)))
    output: torch.Tensor = base.model(input_ids=ids_BT).logits
    return output


def answers(base: Base, adaptation: Adaptation, prompts: Sequence[Sequence[int]], *, new: int = 6, tokens: int = 10**6):
    """The project's continuations of some prompts, in their order."""
    pairs = generate(base, adaptation, prompts=prompts, max_new_tokens=new, batch_tokens=tokens)
    return [ids for _, ids in sorted(pairs)]


@torch.no_grad()
def naive_answer(base: Base, adaptation: Adaptation, prompt: Sequence[int], *, new: int = 6) -> list[int]:
    """The greedy continuation of one prompt: no padding, no batch, no cache, everything recomputed at every token."""
    ids = list(prompt)
    for _ in range(new):
        adaptation.begin_pass(ForwardPass(torch.arange(len(ids))[None] < len(prompt)))
        scores_V = base.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        token = int(scores_V.argmax())
        if token == base.tokenizer.eos_token_id:
            break
        ids.append(token)
    return ids[len(prompt) :]


class ByLength(Task):
    """Rewards that a model of random weights earns: an output is right whose characters are even in number."""

    name = "by_length"
    columns = ()

    def prompt(self, row: Mapping[str, Any]) -> str:
        return ""

    answer = label = prompt

    def extract(self, output: str) -> str | None:
        return str(len(output) % 2)

    def score(self, output: str, label: str) -> bool:
        return len(output) % 2 == 0

    def generate(self, rng: Any, **difficulty: int) -> dict[str, Any]:
        raise NotImplementedError
