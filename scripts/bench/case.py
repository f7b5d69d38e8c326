"""A case: one model, its rows and its configuration, the same for every contestant."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from actshift.config.composition import compose
from actshift.data.examples import Example, tokenize
from actshift.data.splits import Split, load_split
from actshift.models.loading import Base, load_base, set_products
from actshift.runtime.session import pick_device
from actshift.runtime.train import training_examples
from actshift.schema.config import Config
from actshift.tasks import get_task
from actshift.tasks.base import Task

SIZES = ("width", "layers", "heads", "kv_heads", "head_size", "mlp_width", "vocabulary")
SHAPES = {
    "llama-100m": ("llama", (768, 12, 12, 12, 64, 2048, 32000)),
    "llama-small": ("llama", (256, 4, 4, 4, 64, 1024, 8000)),
    "qwen3-150m": ("qwen3", (768, 12, 12, 6, 64, 2304, 96000)),
    "gemma3-270m": ("gemma3", (640, 18, 4, 1, 256, 2048, 262144)),
}
"""Decoders of `SIZES` that no file in conf/model has, with random weights: speed does not depend on the weights."""
METHODS = {"steering": "post_block", "lora": "lora_r8", "reft": "reft"}


@dataclass(frozen=True)
class Case:
    """`rows` are trained on, `scored` are answered (prompts whole), `texts` are their prompts."""

    config: Config
    base: Base
    task: Task
    rows: list[Example]
    scored: list[Example]
    texts: list[str]

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def trained_tokens(self) -> int:
        """Tokens of the rows as the protocol cuts them, without padding."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def prompt_tokens(self) -> int:
        return sum(row.prompt_length for row in self.scored)

    def new_tokens(self, outputs: list[str]) -> list[int]:
        """Tokens that were generated for each output, its end among them where it ended before the limit."""
        limit = self.config.evaluation.max_new_tokens
        return [min(limit, len(ids) + 1) for ids in self.base.tokenizer(outputs, add_special_tokens=False)["input_ids"]]

    def facts(self) -> dict[str, Any]:
        lengths = [len(row.ids) for row in self.rows]
        return {
            "model": self.config.model.name,
            "parameters": self.base.parameters,
            "method": self.config.method.name,
            "dataset": self.config.dataset.name,
            "source": self.config.data.source,
            "protocol": self.config.protocol.name,
            "precision": self.config.training.precision,
            "batch_size": self.config.training.batch_size,
            "rows_trained": len(self.rows),
            "rows_scored": len(self.scored),
            "tokens_a_row": round(sum(lengths) / len(lengths), 1),
            "rows_without_an_answer_left": sum(len(row.ids) <= row.prompt_length for row in self.rows),
            "prompt_tokens_a_row": round(self.prompt_tokens / len(self.scored), 1),
        }


def model_overrides(model: str) -> list[str]:
    """Overrides for a model by name: of `SHAPES`, or of conf/model, one of the hub's with random weights."""
    if model in SHAPES:
        architecture, sizes = SHAPES[model]
        shape = [f"model.shape.{name}={size}" for name, size in zip(SIZES, sizes, strict=True)]
        return [f"model=random-{architecture}", f"model.name={model}", "model.shape.tied=true", *shape]
    if compose([f"model={model}"]).model.source == "hub":
        return [f"model={model}", "model.source=random", "model.path=tiny_llama", "model.chat=false"]
    return [f"model={model}"]


def build(
    model: str,
    dataset: str,
    method: str,
    *,
    rows: int,
    scored: int | None = None,
    data: Path | None = None,
    overrides: Sequence[str] = (),
) -> Case:
    """A case of the released protocol. As many rows are scored as belong to `rows`, where `scored` does not say."""
    config = compose(
        [
            *model_overrides(model),
            f"dataset={dataset}",
            f"method={METHODS.get(method, method)}",
            "protocol=released",
            f"hardware={'a100-80gb' if torch.cuda.is_available() else 'cpu'}",
            *([] if data is None else ["data.source=local", f"data.dir={data}"]),
            *overrides,
        ]
    )
    scored = _share(config, rows) if scored is None else scored
    base = load(config, texts=model_texts(config))
    task = get_task(config.dataset.task, rule=config.evaluation.rule)
    train, test = _first(load_split(config, "train"), rows), _first(load_split(config, "test"), scored)
    examples = training_examples(train, config=config, tokenizer=base.tokenizer, cache=None)
    answered = tokenize(test, task=task, tokenizer=base.tokenizer, end_token=False, max_tokens=None, cache=None)
    return Case(config, base, task, list(examples), list(answered), [task.prompt(row) for row in test.rows])


def _share(config: Config, rows: int) -> int:
    """Rows to score for some to train on: the released code scores every labelled row that it does not train."""
    counts = config.dataset.hub.rows
    return max(1, round(rows * (sum(counts.values()) - counts["train"]) / counts["train"]))


def _first(split: Split, rows: int) -> Split:
    return dataclasses.replace(split, rows=split.rows[:rows])


def model_texts(config: Config) -> tuple[str, ...] | None:
    """Texts for a tokenizer of its own, for a model with random weights: tiny's would make real rows twice as long."""
    if config.model.source != "random":
        return None
    task = get_task(config.dataset.task)
    return tuple(f"{task.prompt(row)}{task.answer(row)}" for row in load_split(config, "train").rows)


def load(config: Config, *, texts: tuple[str, ...] | None) -> Base:
    """The base model, built where it computes, with a tokenizer trained on `texts` where there are some."""
    device = pick_device(config.hardware)
    precision = config.training.precision
    set_products(precision, device)
    if texts is None:
        return load_base(config.model, precision=precision, device=device)
    with device:
        base = load_base(config.model, precision=precision, device=device)
    vocabulary = min(32000, config.model.shape.vocabulary)
    return dataclasses.replace(base, tokenizer=byte_pairs(texts, vocabulary=vocabulary))


@cache
def byte_pairs(texts: tuple[str, ...], *, vocabulary: int) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of those texts: its rows are about as long as those of the models in the paper."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]  # in the order of the ids that random weights are built with
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
