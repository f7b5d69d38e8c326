"""peft and pyreft as their users train and generate with them, on transformers' Trainer."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq

from actshift.schema.method import LoraOptions, SteeringConfig
from bench.case import Case
from bench.contestants import Actshift
from bench.trainers import IGNORED, OrderedTrainer, train

ROWS = 32
"""Prompts of a batch of generation: peft's examples take fewer, pyreft's four."""


class Peft:
    """LoRA by peft, trained by Trainer with its collator, which pads to a batch's longest row."""

    def __init__(self, case: Case) -> None:
        self._case, method = case, case.config.method
        assert isinstance(method, LoraOptions)
        config = LoraConfig(
            r=method.rank,
            lora_alpha=method.alpha,
            lora_dropout=method.dropout,
            target_modules=list(method.targets),
            task_type="CAUSAL_LM",
        )
        torch.manual_seed(case.config.seed)  # as the project starts
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._model = get_peft_model(case.base.model, config)

    def train(self) -> float:
        return train(self._case, self._model, rows=labelled(self._case), collate=collator(self._case))

    def evaluate(self) -> list[str]:
        return in_batches(self._case, lambda **inputs: self._model.generate(**inputs))

    def close(self) -> None:
        self._model.unload()
        if hasattr(self._case.base.model, "peft_config"):
            del self._case.base.model.peft_config
        self._case.base.model.requires_grad_(False).eval()


class Pyreft:
    """ReFT by pyreft's model and trainer: LoReFT at the last prompt token of every layer's MLP output."""

    def __init__(self, case: Case) -> None:
        self._case = case
        with contextlib.redirect_stdout(io.StringIO()):
            import pyreft

        self._layers = case.base.sites.layers
        ours = Actshift(case)  # pyreft's own modules, as the project starts them
        parts = [ours.adaptation.part(layer) for layer in range(self._layers)]  # type: ignore[attr-defined]
        ours.close()
        for part in parts:  # of the base's type, as pyreft makes it; the rotation computes in its own
            part.interventions[0].learned_source.to(case.base.model.dtype)
        method = case.config.method
        assert isinstance(method, SteeringConfig)
        representations = [
            {
                "layer": layer,
                "component": "mlp_output",
                "low_rank_dimension": method.rank,
                "intervention": part.interventions[0],
            }
            for layer, part in enumerate(parts)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            self._model = pyreft.get_reft_model(case.base.model, pyreft.ReftConfig(representations=representations))

    def train(self) -> float:
        rows = [
            {**row, "intervention_locations": [[example.prompt_length - 1]] * self._layers}
            for row, example in zip(labelled(self._case), self._case.rows, strict=True)
        ]
        return train(self._case, self._model, rows=rows, collate=_located(collator(self._case)), kind=_trainer())

    def evaluate(self) -> list[str]:
        def generate(input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
            last = [[input_ids.shape[1] - 1]] * len(input_ids)
            _, found = self._model.generate(
                {"input_ids": input_ids, "attention_mask": attention_mask},
                unit_locations={"sources->base": (None, [last] * self._layers)},
                intervene_on_prompt=True,
                **options,
            )
            assert isinstance(found, torch.Tensor)
            return found

        return in_batches(self._case, generate)

    def close(self) -> None:
        for module in self._case.base.model.modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        self._case.base.model.requires_grad_(False).eval()


def _trainer() -> type[OrderedTrainer]:
    """pyreft's trainer, whose loss does not know an argument that transformers 5 passes."""
    from pyreft.reft_trainer import ReftTrainer

    class Ordered(OrderedTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            return ReftTrainer.compute_loss(self, model, inputs, return_outputs)

    return Ordered


def _located(collate: Callable[[list[dict[str, Any]]], Any]) -> Callable[[list[dict[str, Any]]], Any]:
    """A collator that also stacks the places of the interventions."""

    def collated(rows: list[dict[str, Any]]) -> Any:
        places = torch.tensor([row["intervention_locations"] for row in rows])
        plain = [{key: value for key, value in row.items() if key != "intervention_locations"} for row in rows]
        return {**collate(plain), "intervention_locations": places}

    return collated


def labelled(case: Case) -> list[dict[str, list[int]]]:
    """Rows without padding, the prompt's labels ignored."""
    return [
        {
            "input_ids": row.ids,
            "attention_mask": [1] * len(row.ids),
            "labels": [IGNORED] * row.prompt_length + row.ids[row.prompt_length :],
        }
        for row in case.rows
    ]


def collator(case: Case) -> DataCollatorForSeq2Seq:
    tokenizer = case.base.tokenizer
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED, padding="longest")


def in_batches(case: Case, generate: Callable[..., torch.Tensor]) -> list[str]:
    """Greedy generation of `ROWS` prompts at a time, padded on the left, in the order of the rows."""
    tokenizer = case.base.tokenizer
    outputs: list[str] = []
    for inputs in _batches(case):
        with torch.no_grad():
            ids_BT = generate(
                **inputs,
                max_new_tokens=case.config.evaluation.max_new_tokens,
                do_sample=False,
                pad_token_id=case.base.pad_id,
            )
        new_BT = ids_BT[:, inputs["input_ids"].shape[1] :]
        outputs += tokenizer.batch_decode(new_BT, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return outputs


def _batches(case: Case) -> Iterator[dict[str, torch.Tensor]]:
    tokenizer = case.base.tokenizer
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    for start in range(0, len(case.texts), ROWS):
        texts = case.texts[start : start + ROWS]
        yield dict(tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False).to(case.device))
