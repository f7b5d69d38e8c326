"""Sites and steering against a forward pass written out here, residual by residual.

Shapes: B rows, T tokens, D width, H heads, K head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from adapted import attached, base_of, logits, method_config, perturb, some_ids
from torch import nn
from torch.nn import functional

from actshift.errors import ActshiftError
from actshift.models.architectures import site_names
from actshift.models.loading import Base
from actshift.models.sites import Sites

MODELS = {"llama": "random-llama", "qwen3": "random-qwen3", "gemma3": "random-gemma3"}
Visit = Callable[[str, int, torch.Tensor], torch.Tensor]
"""From a site's name, a layer and the hidden state there to the hidden state that goes on."""

EVERY_SITE = [
    pytest.param(architecture, site, id=f"{architecture}-{site}")
    for architecture in MODELS
    for site in site_names(architecture)
]


@torch.no_grad()
def plain_forward(base: Base, ids_BT: torch.Tensor, visit: Visit) -> torch.Tensor:
    """Logits by the published equations of Llama, Qwen3 and Gemma 3: only matrices and norms are the model's own."""
    body = base.model.get_decoder()
    gemma = base.sites.architecture == "gemma3"
    h_BTD = body.embed_tokens(ids_BT)
    for layer, block in enumerate(body.layers):
        mixed_BTD = visit("attn_out", layer, attention(base, block, layer, block.input_layernorm(h_BTD), visit))
        h_BTD = h_BTD + (block.post_attention_layernorm(mixed_BTD) if gemma else mixed_BTD)
        norm = block.pre_feedforward_layernorm if gemma else block.post_attention_layernorm
        change_BTD = visit("post_mlp", layer, mlp(block.mlp, visit("pre_mlp", layer, norm(h_BTD)), gemma=gemma))
        if gemma:
            change_BTD = visit("post_mlp_norm", layer, block.post_feedforward_layernorm(change_BTD))
        h_BTD = visit("post_block", layer, h_BTD + change_BTD)
    return body.norm(h_BTD) @ body.embed_tokens.weight.T


def mlp(part: nn.Module, x_BTD: torch.Tensor, *, gemma: bool) -> torch.Tensor:
    gate = part.gate_proj(x_BTD)
    active = functional.gelu(gate, approximate="tanh") if gemma else functional.silu(gate)
    return part.down_proj(active * part.up_proj(x_BTD))


def attention(base: Base, block: nn.Module, layer: int, x_BTD: torch.Tensor, visit: Visit) -> torch.Tensor:
    part, K, config = block.self_attn, base.sites.head_size, base.model.config
    q, k, v = (getattr(part, f"{name}_proj")(x_BTD).unflatten(-1, (-1, K)).transpose(1, 2) for name in ("q", "k", "v"))
    if hasattr(part, "q_norm"):
        q, k = part.q_norm(q), part.k_norm(k)
    rope = config.rope_parameters
    theta = (rope[config.layer_types[layer]] if base.sites.architecture == "gemma3" else rope)["rope_theta"]
    q, k = rotate(q, theta), rotate(k, theta)
    k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    scores = q @ k.mT / math.sqrt(getattr(config, "query_pre_attn_scalar", K))
    future_TT = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future_TT, -math.inf).softmax(-1)
    return part.o_proj(visit("heads", layer, (weights @ v).transpose(1, 2).flatten(2)))


def rotate(x_BHTK: torch.Tensor, theta: float) -> torch.Tensor:
    T, K = x_BHTK.shape[-2:]
    angle_TK = torch.outer(torch.arange(T).float(), theta ** (-torch.arange(0, K, 2).float() / K)).repeat(1, 2)
    low, high = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * angle_TK.cos() + torch.cat([-high, low], dim=-1) * angle_TK.sin()


def untouched(_: str, __: int, h_BTD: torch.Tensor) -> torch.Tensor:
    return h_BTD


@pytest.mark.parametrize("model", MODELS.values())
def test_the_plain_forward_is_the_models(model: str) -> None:
    base = base_of(model)
    ids_BT = some_ids(base, 2, 9)
    torch.testing.assert_close(plain_forward(base, ids_BT, untouched), logits(base, None, ids_BT), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("architecture", "site"), EVERY_SITE)
def test_a_site_is_where_the_equations_have_it(architecture: str, site: str) -> None:
    base = base_of(MODELS[architecture])
    ids_BT = some_ids(base, 2, 9)
    shift_D = torch.randn(base.sites.width(site), generator=torch.Generator().manual_seed(0))
    hook = base.sites.hook(site, 1, lambda h_BTD: 1.5 * h_BTD + shift_D)
    try:
        hooked_BTV = logits(base, None, ids_BT)
    finally:
        hook.remove()
    expected_BTV = plain_forward(
        base, ids_BT, lambda name, layer, h: 1.5 * h + shift_D if (name, layer) == (site, 1) else h
    )
    torch.testing.assert_close(hooked_BTV, expected_BTV, rtol=0, atol=1e-4)
    assert (hooked_BTV - logits(base, None, ids_BT)).abs().max() > 0.01


def steered(base: Base, ids_BT: torch.Tensor) -> tuple[torch.Tensor, Visit]:
    """The logits under our post-block steering, and h + W2 W1 h of the same weights."""
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        output_BTV = logits(base, perturb(adaptation), ids_BT)
        tensors = adaptation.state_dict()

    def steer(site: str, layer: int, h_BTD: torch.Tensor) -> torch.Tensor:
        if site != "post_block":
            return h_BTD
        W1, W2 = tensors[f"{layer}.post_block.down"], tensors[f"{layer}.post_block.up"]
        return h_BTD + h_BTD @ W1.T @ W2.T

    return output_BTV, steer


@pytest.mark.parametrize("model", MODELS.values())
def test_post_block_steering_is_h_plus_W2_W1_h(model: str) -> None:
    base = base_of(model)
    ids_BT = some_ids(base, 2, 9)
    output_BTV, steer = steered(base, ids_BT)
    torch.testing.assert_close(output_BTV, plain_forward(base, ids_BT, steer), rtol=0, atol=1e-4)


@torch.no_grad()
def test_post_block_steering_is_a_change_between_decoder_layers() -> None:
    """To 1e-6: the layers are the model's own here, only the loop over them is not."""
    base = base_of("random-llama")
    ids_BT = some_ids(base, 2, 9)
    output_BTV, steer = steered(base, ids_BT)
    body = base.model.get_decoder()
    h_BTD = body.embed_tokens(ids_BT)
    angles = body.rotary_emb(h_BTD, torch.arange(9)[None])
    for layer, block in enumerate(body.layers):
        h_BTD = steer("post_block", layer, block(h_BTD, position_embeddings=angles))
    expected_BTV = base.model.lm_head(body.norm(h_BTD))
    torch.testing.assert_close(output_BTV, expected_BTV, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layers", ["[1]", "[2,0]"])
def test_only_the_chosen_layers_are_steered(layers: str) -> None:
    base, chosen = base_of("random-llama"), {int(layer) for layer in layers.strip("[]").split(",")}
    config = method_config("post_block_vector", f"method.layers={layers}", model="random-llama")
    ids_BT = some_ids(base, 2, 9)
    with attached(base, config) as adaptation:
        steered_BTV = logits(base, perturb(adaptation), ids_BT)
        tensors = adaptation.state_dict()
    assert set(tensors) == {f"{layer}.post_block.vector" for layer in chosen}
    expected_BTV = plain_forward(
        base,
        ids_BT,
        lambda site, layer, h: h + tensors[f"{layer}.{site}.vector"] if f"{layer}.{site}.vector" in tensors else h,
    )
    torch.testing.assert_close(steered_BTV, expected_BTV, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", MODELS.values())
def test_the_width_of_a_site_is_that_of_the_tensor_there(model: str) -> None:
    base, widths = base_of(model), {}

    def note(site: str, _: int, h_BTD: torch.Tensor) -> torch.Tensor:
        widths[site] = h_BTD.shape[-1]
        return h_BTD

    plain_forward(base, some_ids(base, 1, 3), note)
    assert widths == {site: base.sites.width(site) for site in site_names(base.sites.architecture)}


def test_an_unknown_site_or_architecture_is_refused_with_the_nearest() -> None:
    base = base_of("random-llama")
    with pytest.raises(ActshiftError, match=r"unknown site 'post_blok'. Did you mean 'post_block'\?"):
        base.sites.module("post_blok", 0)
    with pytest.raises(ActshiftError, match=r"post_mlp_norm.*Set it in .*architecture llama"):
        base.sites.module("post_mlp_norm", 0)
    with pytest.raises(ActshiftError, match=r"unknown architecture 'gemma'. Did you mean 'gemma3'\?"):
        Sites(base.model, architecture="gemma")


def test_a_path_that_does_not_fit_the_model_lists_what_there_is() -> None:
    sites = Sites(base_of("random-llama").model, architecture="gemma3")
    with pytest.raises(ActshiftError, match=r"has no module 'pre_feedforward_layernorm'.* It has: self_attn, mlp, "):
        sites.module("pre_mlp", 0)
