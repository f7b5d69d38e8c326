"""What a comparison with other people's code starts from, on both sides: weights by formula, rows, and ten steps.

Nothing but torch is imported here, so that code which needs an old transformers can be measured in its own environment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

VOCABULARY, PROMPT, STEPS, RATE = 1101, 5, 10, 5e-3
SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"intermediate_size": 128, "vocab_size": VOCABULARY}
"""Of conf/model/random-llama.yaml."""
SHOWN = 24
"""How many logits of a row go into a file of expected numbers."""
ROWS_SEED = 3
LOGITS, LOSSES, BASE = 1e-6, 1e-5, 3
"""How far ours may be from others' numbers: logits, losses (nats). On another CPU, or with another version's attention,
sums run in another order. So logits may differ by as much more as BASE times what the base model's differ by with no
method on: from those in the file, or from its own in float64, whichever is larger (1e-6 to 1e-5)."""


def numbers(name: str, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers that follow from a name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


@torch.no_grad()
def fill(model: torch.nn.Module) -> None:
    """Give every base weight its value by name: norms near one, matrices large enough that each path matters."""
    for name, weight in model.named_parameters():
        drawn = numbers(name, *weight.shape)
        weight.copy_(1 + 0.1 * drawn if weight.dim() == 1 else 0.2 * drawn)


def rows(prompt: int = PROMPT) -> torch.Tensor:
    """ids_BT: four rows of `prompt` prompt tokens and seven of the answer."""
    return torch.randint(5, VOCABULARY, (4, prompt + 7), generator=torch.Generator().manual_seed(ROWS_SEED))


def loss_of(logits_BTV: torch.Tensor, ids_BT: torch.Tensor, *, prompt: int = PROMPT) -> torch.Tensor:
    """Mean negative log-likelihood of the tokens behind the prompts."""
    predicted = logits_BTV[:, prompt - 1 : -1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(predicted, ids_BT[:, prompt:].flatten())


def ten_steps(
    forward: Callable[[torch.Tensor], torch.Tensor],
    parameters: Iterable[torch.nn.Parameter],
    *,
    before: Callable[[int], Any] = lambda step: None,
    prompt: int = PROMPT,
    loss_of_rows: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> list[float]:
    """The losses of ten steps of plain AdamW, without decay, clipping or schedule; by default `loss_of` the logits."""
    ids_BT, losses = rows(prompt), []
    optimizer = torch.optim.AdamW(list(parameters), lr=RATE, weight_decay=0.0)
    for step in range(1, STEPS + 1):
        before(step)
        loss = loss_of_rows(ids_BT) if loss_of_rows else loss_of(forward(ids_BT), ids_BT, prompt=prompt)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def shown(logits_BTV: torch.Tensor) -> torch.Tensor:
    """The logits that a file of expected numbers keeps: some of the first row's last position."""
    return logits_BTV[0, -1, :SHOWN]


def expected(logits_BTV: torch.Tensor, losses: list[float]) -> dict[str, list[float]]:
    """What a file keeps of a case."""
    return {"logits": shown(logits_BTV).tolist(), "losses": losses}
