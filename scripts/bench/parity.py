"""Packed training passes beside transformers' own, row by row, in every precision: losses and adapters' gradients.

Two ways to compute the same numbers round differently. How far apart they may be is what the precision itself costs:
the distance of the plain pass from the plain pass in float32.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from actshift.config.composition import compose
from actshift.data.examples import Example
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import Base, load_base, set_products
from actshift.models.packing.forward_pass import ForwardPass
from actshift.runtime.session import pick_device
from actshift.training.batches import answer_losses, collate, head
from bench.case import model_overrides
from bench.measure import digits

MODELS = ("random-llama", "random-qwen3", "random-gemma3")
METHODS = ("post_block", "lora_r8")
PRECISIONS = ("float32", "tf32", "bfloat16")
LENGTHS = (24, 17, 33, 9)
PROMPT, COMMON = 6, 3
"""Tokens of each row's prompt, and how many of them all rows have in common."""


def parity(models: Sequence[str], *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """By model, method and precision: relative distances of packed from plain, and of plain from float32."""
    cases: list[dict[str, Any]] = []
    for model in models:
        for method in METHODS:
            exact: torch.Tensor | None = None
            for precision in PRECISIONS:
                plain, packed = _gradients(model, method, precision, overrides)
                exact = plain if exact is None else exact
                rounding = digits(_distance(plain, exact)) if precision != "float32" else None
                apart = digits(_distance(packed, plain))
                case = {"model": model, "method": method, "precision": precision}
                cases.append(case | {"packed_from_plain": apart, "plain_from_float32": rounding})
                gc.collect()
    return {"cases": cases, "rows": len(LENGTHS)}


def _gradients(model: str, method: str, precision: str, overrides: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of all rows and the gradients of an adapter, end to end in one vector: plain, and packed."""
    config = compose([*model_overrides(model), f"method={method}", *overrides])
    device = pick_device(replace(config.hardware, device="auto"))
    with device:
        base = load_base(config.model, precision=precision, device=device)
    set_products(precision, device)
    rows, found = _rows(base), []
    for compute in (_plain, _packed):
        adaptation = attach(base, config=config.method, seeds=(0,))
        try:
            _move(adaptation)
            losses = compute(base, adaptation, rows)
            losses.sum().backward()
            grads = [each.grad.flatten().float() for _, each in adaptation.named_parameters() if each.grad is not None]
            scale = torch.cat(grads).norm().clamp(min=1e-30)
            found.append(
                torch.cat([losses.detach().float() / losses.detach().float().norm(), torch.cat(grads) / scale])
            )
        finally:
            adaptation.detach()
    set_products("float32", device)
    return found[0].cpu(), found[1].cpu()


def _rows(base: Base) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(5, 1000, (len(LENGTHS), max(LENGTHS)), generator=generator, device="cpu").tolist()
    return [
        Example(ids_BT[0][:COMMON] + ids[COMMON:length], PROMPT, "")
        for ids, length in zip(ids_BT, LENGTHS, strict=True)
    ]


def _plain(base: Base, adaptation: Adaptation, rows: Sequence[Example]) -> torch.Tensor:
    losses = []
    for row in rows:
        ids_1T = torch.tensor([row.ids], device=base.device)
        prompt_1T = torch.arange(len(row.ids), device=base.device)[None] < row.prompt_length
        adaptation.begin_pass(ForwardPass(prompt_1T))
        hidden_1TD = base.model.base_model(input_ids=ids_1T, use_cache=False).last_hidden_state
        logits_TV = head(base.model, hidden_1TD[0, row.prompt_length - 1 : -1])
        losses.append(cross_entropy(logits_TV, ids_1T[0, row.prompt_length :], reduction="sum"))
    return torch.stack(losses)


def _packed(base: Base, adaptation: Adaptation, rows: Sequence[Example]) -> torch.Tensor:
    return answer_losses(base, adaptation, collate(rows, pad_id=base.pad_id, device=base.device))[0]


@torch.no_grad()
def _move(adaptation: Adaptation) -> None:
    generator = torch.Generator().manual_seed(0)
    for _, parameter in adaptation.named_parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, device="cpu").to(parameter))


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def shown(figures: dict[str, Any]) -> str:
    """The largest distance of packed from plain in each precision, and beside it the precision's own rounding."""
    parts = []
    for precision in PRECISIONS:
        cases = [case for case in figures["cases"] if case["precision"] == precision]
        apart = max(case["packed_from_plain"] for case in cases)
        rounding = [case["plain_from_float32"] for case in cases if case["plain_from_float32"] is not None]
        parts.append(f"{precision} {apart:.1e}" + (f" (its rounding {max(rounding):.1e})" if rounding else ""))
    return ", ".join(parts)
