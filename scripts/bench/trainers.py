"""What the contestants on transformers' Trainer share: settings of the protocol, and the row order of the project."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from bench.case import Case
from bench.contestants import order

MICRO_BATCH = 8
IGNORED = -100
"""The label of a token that the loss does not count, by transformers' convention."""


class InOrder(Sampler[int]):
    """Rows in the order that the project takes them."""

    def __init__(self, rows: list[int]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class OrderedTrainer(Trainer):
    """A Trainer whose rows come in a given order, so that its losses can be held against the project's."""

    order: list[int]

    def _get_train_sampler(self, train_dataset: object = None) -> Sampler[int]:
        return InOrder(self.order)


def arguments(case: Case, folder: str) -> TrainingArguments:
    """Of the protocol: 8 rows and accumulation up to the step's, its schedule and warmup; nothing saved or reported."""
    training = case.config.training
    schedule = training.schedule
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=max(1, training.batch_size // MICRO_BATCH),
        num_train_epochs=1,
        learning_rate=case.config.lr,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(schedule.kind, schedule.kind),
        warmup_steps=schedule.warmup,  # below 1 it is a share of the steps
        weight_decay=training.weight_decay,
        max_grad_norm=training.clip,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=case.device.type == "cpu",
        dataloader_pin_memory=case.device.type == "cuda",
        log_level="error",
    )


def train(case: Case, model: torch.nn.Module, *, rows: list[dict[str, Any]], collate: Any, kind: Any = None) -> float:
    """Train by a Trainer and return the mean loss of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = (kind or OrderedTrainer)(
            model=model, args=arguments(case, folder), train_dataset=rows, data_collator=collate
        )
        trainer.order = order(case)
        for printer in list(trainer.callback_handler.callbacks):
            if type(printer).__name__ == "PrinterCallback":
                trainer.remove_callback(type(printer))
        return float(trainer.train().training_loss)
