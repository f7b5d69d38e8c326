"""Steering folded into weights: where a change of a hidden state is exactly another weight or bias.

A shift that is affine in h, shift(h) = S h + c at every token, changes what the matrices beside its site see or make:

    behind a matrix (its output is the site)      W <- (I + S) W,  b <- (I + S) b + c
    before matrices (their input is the site)     b <- b + W c,    W <- W (I + S)

At the block's output the sum with the residual stream stands between the MLP's last matrix and the site. There c alone
can be folded, as a bias of that matrix: S would have to act on the stream itself, which nothing but h carries. Nor can
it go into the matrices that read the stream in the next layer: they see it through a norm, and a norm divides by the
length of (I + S) h, which is no multiple of the length of h unless I + S is a rotation times a number.

Shapes: D width of the site, E what a matrix makes, I what it takes.
"""

from __future__ import annotations

import torch
from torch import nn

from actshift.errors import ActshiftError
from actshift.methods.parameterizations import Parameterization
from actshift.models.sites import Sites


def affine_form(part: Parameterization, *, width: int, replica: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """S_DD and c_D of a part whose shift is affine, by what it does to 0 and to the unit vectors.

    Errors: a parameterization that is not affine.
    """
    if not part.is_affine:
        raise ActshiftError(
            f"{type(part).__name__.lower()} steering cannot be folded into weights: its shift is not affine in the "
            "hidden state. Keep it as an adapter."
        )
    parameter = next(part.parameters())
    probes_ND = torch.cat([torch.zeros(1, width), torch.eye(width)]).to(parameter.device)
    part.training = False
    with torch.no_grad():
        shift_ABTD = part(probes_ND.expand(len(part.replica_axis()), 1, width + 1, width))
    c_D, columns_DD = shift_ABTD[replica, 0, 0], shift_ABTD[replica, 0, 1:]
    return (columns_DD - c_D).mT, c_D


def fold_part(sites: Sites, *, site: str, layer: int, part: Parameterization) -> None:
    """Fold one part into the weights of its layer. Errors: see `check`, which looks at all layers first."""
    S_DD, c_D = affine_form(part, width=sites.width(site))
    modules, side = sites.beside(site, layer)
    for module in modules:
        weight_EI, bias_E = module.weight.float(), None if module.bias is None else module.bias.float()
        if side == "output":
            bias_E = c_D if bias_E is None else bias_E + S_DD @ bias_E + c_D
            weight_EI = weight_EI + S_DD @ weight_EI
        else:
            bias_E = weight_EI @ c_D + (0 if bias_E is None else bias_E)
            weight_EI = weight_EI + weight_EI @ S_DD
        module.weight.data.copy_(weight_EI)
        if bool(bias_E.any()):
            module.bias = nn.Parameter(bias_E.to(module.weight.dtype), requires_grad=False)


def check(sites: Sites, *, site: str, part: Parameterization) -> None:
    """Refuse what cannot be folded exactly, saying why."""
    S_DD, _ = affine_form(part, width=sites.width(site))
    sites.beside(site, 0)
    if site == "post_block" and bool(S_DD.any()):
        raise ActshiftError(
            "a linear map at post_block cannot be folded into weights: it acts on the residual stream itself, and the "
            "matrices that read the stream see it through a norm, which divides by the changed length. Keep it as an "
            "adapter; a vector at post_block, or a map at post_mlp, pre_mlp, attn_out or heads, can be folded."
        )
