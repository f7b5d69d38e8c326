"""LoFiT (fc2869/lo-fit) and JoLA (wenlai-lavine/jola): the authors' own Llama, run as it is from a checkout.

Each needs the old transformers that it pins (4.39.2 and 4.45.1), in an environment of its own.

    python tests/parity/heads_reference.py lofit|jola CHECKOUT

prints the numbers that `make_expected.py` writes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from reference import SIZES, expected, fill, numbers, rows, shown, ten_steps

MODEL = "random-llama"
CASES = {"lofit": ("bias", "scale"), "jola": ("evaluation", "training")}
"""LoFiT's two stages; JoLA with its gates as they are at evaluation, and drawn in training by given noise."""
FILES = {"lofit": ("models/modeling_llama.py", "LlamaForCausalLM"), "jola": ("jola/modeling_llama.py", "JoLAModel")}
HEADS, HEAD = SIZES["num_attention_heads"], SIZES["hidden_size"] // SIZES["num_attention_heads"]


def given(name: str, layer: int, *, step: int = 0) -> torch.Tensor:
    """A tensor of a method by name (scale, bias: H x K; log_scale, log_bias: H) or the noise of a gate's step (H)."""
    if name.startswith("noise"):
        return torch.sigmoid(numbers(f"{name} {layer} {step}", HEADS))
    if name.startswith("log"):
        # So far apart that at evaluation some gates are wholly open and some wholly closed.
        return numbers(f"{name} {layer}", HEADS, scale=3)
    return numbers(f"{name} {layer}", HEADS, HEAD, scale=0.1)


def authors_model(name: str, checkout: Path) -> Any:
    """Their Llama with the sizes and base weights of `reference`, its method on in every layer."""
    from transformers import LlamaConfig

    file, kind = FILES[name]
    sys.path.insert(0, str(checkout))
    spec = importlib.util.spec_from_file_location(f"{name}_llama", checkout / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = LlamaConfig(**SIZES, tie_word_embeddings=True, pad_token_id=0, rms_norm_eps=1e-6)
    model = getattr(module, kind)(config).float()
    fill(model)
    model.lm_head.weight = model.model.embed_tokens.weight
    for layer in model.model.layers:
        layer.applied_module = layer.self_attn.applied_module = "attention"
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def prepared(name: str, checkout: Path, case: str) -> tuple[Any, list[torch.nn.Parameter]]:
    """Their model with given vectors at every head, and the parameters that the case trains."""
    model = authors_model(name, checkout)
    trained: list[torch.nn.Parameter] = []
    with torch.no_grad():
        for layer, attention in enumerate(attentions(model)):
            for part, parameters in {"scale": attention.attn_A, "bias": attention.attn_v}.items():
                used = name == "jola" or part == case
                for head, parameter in enumerate(parameters):
                    parameter.copy_(given(part, layer)[head] if used else torch.zeros(HEAD))
                trained += parameters if used else []
            if name == "jola":
                attention.log_g1.copy_(given("log_bias", layer)[:, None])
                attention.log_g2.copy_(given("log_scale", layer)[:, None])
                trained += [attention.log_g1, attention.log_g2]
    for parameter in trained:
        parameter.requires_grad_(True)
    return model.train(case == "training"), trained


def attentions(model: Any) -> list[Any]:
    return [layer.self_attn for layer in model.model.layers]


def measured(name: str, checkout: Path, case: str) -> tuple[torch.Tensor, list[float]]:
    """Logits with given vectors at every head, and the losses of ten steps of what the case trains from there."""
    model, trained = prepared(name, checkout, case)
    noise = Noise(len(model.model.layers)) if case == "training" else None

    def forward(ids: torch.Tensor) -> torch.Tensor:
        with noise or contextlib.nullcontext():
            return model(input_ids=ids, use_cache=False).logits

    with torch.no_grad():
        logits = forward(rows())
    return logits, ten_steps(forward, trained, before=noise.at if noise else lambda step: None)


@torch.no_grad()
def gates(checkout: Path) -> list[float]:
    """JoLA's gates at evaluation, by layer: those of the biases, then those of the scales."""
    model, _ = prepared("jola", checkout, "evaluation")
    logs = [log for each in attentions(model) for log in (each.log_g1, each.log_g2)]
    return torch.cat([attentions(model)[0].get_gates(log).flatten() for log in logs]).tolist()


@torch.no_grad()
def base_logits(name: str, checkout: Path) -> torch.Tensor:
    """Logits with their method off."""
    model = authors_model(name, checkout)
    for layer in model.model.layers:
        layer.applied_module = layer.self_attn.applied_module = None
    logits: torch.Tensor = model.eval()(input_ids=rows(), use_cache=False).logits
    return logits


def results(name: str, checkout: Path) -> dict[str, Any]:
    """What lofit.json and jola.json keep."""
    cases = {case: expected(*measured(name, checkout, case)) for case in CASES[name]}
    if name == "jola":
        cases["evaluation"]["gates"] = gates(checkout)
    return {"bases": {MODEL: shown(base_logits(name, checkout)).tolist()}, "cases": cases}


class Noise:
    """While this is entered, `torch.rand` gives the noise of a step: of bias gates, then scale gates, by layer."""

    def __init__(self, layers: int) -> None:
        self._calls = [(part, layer) for layer in range(layers) for part in ("noise_bias", "noise_scale")]
        self._step, self._next, self._rand = 1, 0, torch.rand

    def at(self, step: int) -> None:
        self._step = step

    def __enter__(self) -> None:
        self._next = 0
        torch.rand = self._draw  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        torch.rand = self._rand
        assert self._next == len(self._calls), "each gate has drawn once"

    def _draw(self, shape: Any) -> torch.Tensor:
        part, layer = self._calls[self._next]
        self._next += 1
        return given(part, layer, step=self._step).reshape(shape)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(results(sys.argv[1], Path(sys.argv[2]))))
