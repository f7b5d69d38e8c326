"""The authors' training and evaluation as their public code does it, rendered anew.

SprocketLab/steerling @ 76b60f119a. train.py: every row padded to 256 tokens (ListOps, AQuA: 512), float32,
transformers' Trainer with 8 rows and two accumulation steps, the head over every position. inference.py: one prompt at
a time by `generate` up to the token limit. A checkout's own steerer takes the place of ours where one is given.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, default_data_collator

from actshift.schema.method import SteeringConfig
from bench.case import Case
from bench.trainers import IGNORED, train

Steerer = Callable[..., nn.Module]


class LowRankShift(nn.Module):
    """h + W2 W1 h."""

    def __init__(self, width: int, *, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)

    def forward(self, h_BTD: torch.Tensor) -> torch.Tensor:
        shifted: torch.Tensor = h_BTD + self.up(self.down(h_BTD))
        return shifted


class Steered(nn.Module):
    """A causal model with a low-rank shift behind every decoder layer, added by hooks."""

    def __init__(self, model: PreTrainedModel, *, rank: int) -> None:
        super().__init__()
        self.base_model = model
        width = model.config.hidden_size
        layers: Any = model.get_decoder().layers
        self.adapters = nn.ModuleList(LowRankShift(width, rank=rank) for _ in layers).to(model.dtype)
        self._hooks = [
            layer.register_forward_hook(self._hook(adapter))
            for layer, adapter in zip(layers, self.adapters, strict=True)
        ]

    def _hook(self, adapter: nn.Module) -> Callable[..., Any]:
        def shift(_: nn.Module, __: object, output: Any) -> Any:
            return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

        return shift

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model.generate(*args, **kwargs)  # type: ignore[operator]


def own_steerer(model: PreTrainedModel, *, rank: int) -> nn.Module:
    return Steered(model, rank=rank)


def checkout_steerer(checkout: Path) -> Steerer:
    """The released class, from a checkout of the released code, set as its `--linear`."""
    spec = importlib.util.spec_from_file_location("released_steerer", checkout / "steerer.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(checkout / "steerer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def steer(model: PreTrainedModel, *, rank: int) -> nn.Module:
        steered: nn.Module = module.AdapterSteerer(
            model, layers_to_steer="all", targets=("block",), apply_to="all", rank=rank, activation=None
        )
        return steered

    return steer


class Released:
    """The released loop. Its adapters start where the project's do, so that the two can be compared."""

    def __init__(self, case: Case, *, steerer: Steerer = own_steerer) -> None:
        self._case = case
        assert isinstance(case.config.method, SteeringConfig)
        self.model = steerer(case.base.model, rank=case.config.method.rank).to(case.device)
        self.start_as(case)

    def start_as(self, case: Case) -> None:
        from bench.contestants import Actshift

        ours = Actshift(case)
        self.load(ours.adaptation.state_dict())
        ours.close()

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take over the project's adapters."""
        own = dict(self.model.named_parameters())
        adapters = {name: each for name, each in own.items() if ".adapters" in f".{name}"}
        layers = sorted({int(name.split(".")[0]) for name in state})
        theirs = [[each for name, each in adapters.items() if f".{part}." in name] for part in ("down", "up")]
        for place, layer in enumerate(layers):
            for part, tensors in zip(("down", "up"), theirs, strict=True):
                tensors[place].copy_(state[f"{layer}.post_block.{part}"])

    def train(self) -> float:
        return train(self._case, self.model, rows=padded(self._case), collate=default_data_collator)

    def evaluate(self) -> list[str]:
        return one_by_one(self._case, self.model)

    def close(self) -> None:
        for hook in self.model._hooks:  # type: ignore[union-attr]
            hook.remove()
        self._case.base.model.eval()


def padded(case: Case) -> list[dict[str, list[int]]]:
    """Rows padded on the right to the protocol's length; the loss counts an answer's tokens, pads never."""
    length, pad = case.config.training.max_tokens, case.base.pad_id
    rows = []
    for row in case.rows:
        pads = (length or 0) - len(row.ids)
        answer = [IGNORED if token == pad else token for token in row.ids[row.prompt_length :]]
        rows.append(
            {
                "input_ids": [*row.ids, *[pad] * pads],
                "attention_mask": [1] * len(row.ids) + [0] * pads,
                "labels": [*[IGNORED] * row.prompt_length, *answer, *[IGNORED] * pads],
            }
        )
    return rows


def one_by_one(case: Case, model: Any) -> list[str]:
    """One greedy generation a prompt, to the token limit or an end token; the text behind the prompt."""
    tokenizer, limit = case.base.tokenizer, case.config.evaluation.max_new_tokens
    outputs = []
    for text in case.texts:
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(case.device)
        with torch.no_grad():
            ids_BT = model.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=case.base.pad_id)
        # released: the decoded whole is split at the prompt / here: the tokens behind it, which is the same text.
        new = ids_BT[0, inputs["input_ids"].shape[1] :]
        outputs.append(str(tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)))
    return outputs
