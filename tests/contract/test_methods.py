"""The method contract: every method of conf/method on every model of conf/model that needs no network.

A new YAML in either folder is covered without a change here. Shapes: A replicas, B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import (
    LOCAL_MODELS,
    METHODS,
    answers,
    attached,
    base_of,
    composed,
    logits,
    method_config,
    naive_answer,
    perturb,
    some_ids,
    some_prompts,
    some_rows,
    training_config,
)
from safetensors.torch import load_file, save_file
from torch.nn import functional

from actshift.errors import ActshiftError
from actshift.methods import KINDS, REPLICATED, attach
from actshift.methods.base import Adaptation
from actshift.methods.registry import PARAMETERIZATIONS, sites_of
from actshift.models.architectures import ARCHITECTURES, Architecture
from actshift.models.loading import Base
from actshift.schema.config import ModelConfig
from actshift.schema.method import SteeringConfig
from actshift.training.batches import answer_losses, collate
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

STARTS_AWAY = [name for name, entry in PARAMETERIZATIONS.items() if not entry.starts_as_base]
"""The parameterizations whose initial value is no no-op; every other method changes nothing before it is trained."""


@dataclass
class Case:
    """One method on one model."""

    base: Base
    method: Any  # the dataclass of its kind
    model: ModelConfig

    @property
    def kind(self) -> str:
        return str(self.method.kind)

    @property
    def parameterization(self) -> str | None:
        return self.method.parameterization if isinstance(self.method, SteeringConfig) else None

    @property
    def sites(self) -> list[str]:
        """The sites of a steering method, an empty name for other methods."""
        return sites_of(self.method) if isinstance(self.method, SteeringConfig) else [""]

    @property
    def replicated(self) -> bool:
        return self.kind in REPLICATED


def _case(request: pytest.FixtureRequest, precision: str) -> Case:
    model, method = request.param
    return Case(base_of(model, precision), method_config(method, model=model), composed(f"model={model}").model)


def _variety(method: str) -> tuple[object, ...]:
    """What methods that recombine the same parts have in common."""
    config = method_config(method, model="tiny")
    parts = ("kind", "config_class", "parameterization", "site")
    return tuple(str(getattr(config, part, None)) for part in parts)


def _facts(model: str) -> Architecture:
    """What the architecture of a model says of itself, apart from what transformers calls it."""
    return replace(ARCHITECTURES[str(composed(f"model={model}").model.architecture)], type="", tied=False)


_FIRST_OF_ITS_VARIETY = set({_variety(method): method for method in reversed(METHODS)}.values())
_FIRST_WITH_ITS_FACTS = {"tiny"} | {
    model for model in LOCAL_MODELS if model == next(other for other in LOCAL_MODELS if _facts(other) == _facts(model))
}


def _pair(method: str, model: str) -> Any:
    """Methods that recombine parts of others, on architectures like others in all but their name: a slow test."""
    quick = method in _FIRST_OF_ITS_VARIETY or model in _FIRST_WITH_ITS_FACTS
    return pytest.param((model, method), id=f"{method}-{model}", marks=[] if quick else pytest.mark.slow)


PAIRS = [_pair(method, model) for method in METHODS for model in LOCAL_MODELS]


def test_the_quick_pairs_have_every_method_and_every_model() -> None:
    quick = [pair.values[0] for pair in PAIRS if not pair.marks]
    assert {model for model, _ in quick} == set(LOCAL_MODELS)
    assert {method for _, method in quick} == set(METHODS)
    assert len(quick) >= 0.75 * len(PAIRS)


@pytest.fixture(params=PAIRS)
def case(request: pytest.FixtureRequest) -> Case:
    return _case(request, "float32")


@pytest.fixture(params=PAIRS)
def rounded_case(request: pytest.FixtureRequest) -> Case:
    """The base in bfloat16."""
    return _case(request, "bfloat16")


def needs_replicas(case: Case) -> None:
    if not case.replicated:
        pytest.skip(f"method kind '{case.kind}' has no replicas")


def loss_of(case: Case, adaptation: Adaptation, *, rows: int = 6, only: slice = slice(None)) -> torch.Tensor:
    """The summed loss of some rows, or of a part of those that went through the model."""
    batch = collate(some_rows(case.base, rows), pad_id=case.base.pad_id, device=case.base.device)
    batch.answer_BT.copy_(batch.answer_BT & _chosen(rows, only)[:, None])
    return answer_losses(case.base, adaptation, batch).sum()


def _chosen(rows: int, only: slice) -> torch.Tensor:
    chosen_B = torch.zeros(rows, dtype=torch.bool)
    chosen_B[only] = True
    return chosen_B


def snapshot(base: Base) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in base.model.state_dict(keep_vars=True).items()}


def everything(adaptation: Adaptation, replica: int = 0) -> tuple[Iterator[tuple[str, torch.Tensor]], ...]:
    return adaptation.named_parameters(replica), adaptation.named_buffers(replica)


def hooks_of(base: Base) -> Iterator[Any]:
    for module in base.model.modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            yield from getattr(module, kind).values()


def formula(case: Case) -> int | None:
    """The number of trainable parameters by the method's own entry, from the sizes of the model alone."""
    if KINDS[case.kind].trains_base:
        return case.base.parameters
    numbers = KINDS[case.kind].numbers
    return None if numbers is None else numbers(case.method, case.model)


@pytest.mark.filterwarnings("error")
def test_attaching_changes_no_logit_where_the_initial_value_is_a_no_op(case: Case) -> None:
    if case.parameterization in STARTS_AWAY:
        pytest.skip(f"'{case.parameterization}' starts away from the base model, as its authors' code does")
    ids_BT = some_ids(case.base, 3, 7)
    expected_BTV = logits(case.base, None, ids_BT)
    with attached(case.base, case.method) as adaptation:
        torch.testing.assert_close(logits(case.base, adaptation, ids_BT), expected_BTV, rtol=0, atol=0)
        changed_BTV = logits(case.base, perturb(adaptation), ids_BT)
    assert (changed_BTV - expected_BTV).abs().max() > 1e-3, "the method acts once it is moved"


def test_only_its_own_parameters_train_and_each_gets_a_gradient(case: Case) -> None:
    with attached(case.base, case.method) as adaptation:
        own = dict(perturb(adaptation).named_parameters())
        adaptation.begin(steps=4, steps_per_epoch=4)
        for step in (1, 4):  # a method may have stages
            adaptation.before_step(step)
            loss_of(case, adaptation).backward()
        # What the last layer does at a prompt's first positions reaches no answer.
        deaf = f"{case.model.shape.layers - 1}.{case.sites[0]}.first."
        heard = {name: parameter for name, parameter in own.items() if not name.startswith(deaf)}
        without = [name for name, parameter in heard.items() if parameter.grad is None or not parameter.grad.any()]
        assert own and not without
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in own.values())
        mine = {id(parameter) for parameter in own.values()}
        foreign = [name for name, p in case.base.model.named_parameters() if p.requires_grad and id(p) not in mine]
        touched = [name for name, p in case.base.model.named_parameters() if p.grad is not None and id(p) not in mine]
        assert not foreign and not touched
        (group,) = adaptation.parameter_groups(lrs=(0.1,))
        assert {id(parameter) for parameter in group["params"]} == mine and group["lr"] == 0.1


@pytest.mark.filterwarnings("error")
def test_detaching_after_training_restores_the_model_bit_for_bit(case: Case, tmp_path: Path) -> None:
    ids_BT = some_ids(case.base, 3, 7)
    before, modules, attributes = snapshot(case.base), str(case.base.model), set(vars(case.base.model))
    expected_BTV = logits(case.base, None, ids_BT)
    with attached(case.base, case.method) as adaptation:
        start = adaptation.state_dict()
        train(
            case.base,
            adaptation,
            rows=some_rows(case.base, 8),
            validation_rows=(),
            training=training_config(batch_size=4, epochs=1),
            lrs=(0.01,),
            seeds=(0,),
            micro_batch=4,
            checkpoints=Checkpoints(tmp_path, every=0),
            progress=lambda *_: None,
        )
        end = adaptation.state_dict()
        assert any(not torch.equal(start[name], end[name]) for name in start)
    after = snapshot(case.base)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(case.base, None, ids_BT), expected_BTV)
    assert not list(hooks_of(case.base))
    assert not any(p.requires_grad or p.grad is not None for p in case.base.model.parameters())
    assert not any(module.training for module in case.base.model.modules())
    assert str(case.base.model) == modules and set(vars(case.base.model)) == attributes
    with attached(case.base, case.method) as again:
        assert all(torch.equal(tensor, start[name]) for name, tensor in again.state_dict().items())


def test_a_state_survives_saving_and_loading_exactly(case: Case, tmp_path: Path) -> None:
    ids_BT = some_ids(case.base, 3, 7)
    with attached(case.base, case.method) as adaptation:
        saved = perturb(adaptation).state_dict()
        save_file(saved, tmp_path / "adapter.safetensors")
        expected_BTV = logits(case.base, adaptation, ids_BT)
        perturb(adaptation, seed=9)
        assert any(not torch.equal(saved[name], now) for name, now in adaptation.state_dict().items()), "a copy"
    with attached(case.base, case.method, seeds=(5,)) as adaptation:
        adaptation.load_state_dict(load_file(tmp_path / "adapter.safetensors"))
        loaded = adaptation.state_dict()
        assert loaded.keys() == saved.keys() and all(torch.equal(loaded[name], saved[name]) for name in saved)
        assert torch.equal(logits(case.base, adaptation, ids_BT), expected_BTV)
        assert loaded.keys() == {name for tensors in everything(adaptation) for name, _ in tensors}


def test_a_state_that_does_not_fit_is_refused_by_name(case: Case) -> None:
    with attached(case.base, case.method) as adaptation:
        state = adaptation.state_dict()
        first, *_ = state
        wide = torch.zeros(*state[first].shape[:-1], state[first].shape[-1] + 1)
        misfits = {
            f"missing {first}": {name: tensor for name, tensor in state.items() if name != first},
            "unexpected surplus": {**state, "surplus": torch.zeros(1)},
            f"{first} has shape": {**state, first: wide},
        }
        for message, misfit in misfits.items():
            moved = {name: tensor + 1 for name, tensor in misfit.items()}
            with pytest.raises(ActshiftError, match=message):
                adaptation.load_state_dict(moved)
        assert all(torch.equal(tensor, state[name]) for name, tensor in adaptation.state_dict().items())


def with_another_rank(config: Any) -> Any:
    """A config with every rank in it, however deep, one lower (2 for 1)."""
    inner = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    changed = {name: with_another_rank(value) for name, value in inner.items() if is_dataclass(value)}
    return replace(config, **changed, **({"rank": inner["rank"] - 1 or 2} if inner.get("rank") else {}))


def test_a_state_of_another_rank_is_refused(case: Case) -> None:
    other_rank = with_another_rank(case.method)
    if other_rank == case.method:
        pytest.skip("the method has no rank")
    with attached(case.base, other_rank) as other:
        state = other.state_dict()
    with attached(case.base, case.method) as adaptation, pytest.raises(ActshiftError, match="has shape"):
        adaptation.load_state_dict(state)


def test_generating_with_a_cache_equals_generating_without(case: Case) -> None:
    prompts = some_prompts(case.base, [5, 5])
    with attached(case.base, case.method) as adaptation:
        perturb(adaptation)
        expected = [naive_answer(case.base, adaptation, prompt) for prompt in prompts]
        assert answers(case.base, adaptation, prompts) == expected


def test_left_padding_and_batch_composition_change_no_answer(case: Case) -> None:
    prompts = some_prompts(case.base, [3, 11, 6, 1, 8])
    with attached(case.base, case.method) as adaptation:
        alone = answers(case.base, perturb(adaptation), prompts, tokens=1)
        assert answers(case.base, adaptation, prompts) == alone
        assert answers(case.base, adaptation, prompts[::-1], tokens=16) == alone[::-1]


def test_the_number_of_trainable_parameters_is_the_formulas(case: Case) -> None:
    with attached(case.base, case.method) as adaptation:
        count = sum(adaptation.state_dict()[name].numel() for name, _ in adaptation.named_parameters())
        assert adaptation.trainable_parameters() == count
    expected = formula(case)
    if expected is None:
        pytest.skip(f"method kind '{case.kind}' has no published formula")
    assert count == expected


def test_the_seed_alone_fixes_the_initial_values(case: Case) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with attached(case.base, case.method, seeds=(3,)) as adaptation:
        first = adaptation.state_dict()
    assert torch.equal(torch.get_rng_state(), before), "attaching draws nothing from the global generator"
    torch.manual_seed(2)
    with attached(case.base, case.method, seeds=(3,)) as adaptation:
        assert all(torch.equal(tensor, first[name]) for name, tensor in adaptation.state_dict().items())


def test_adapters_are_float32_over_a_bfloat16_base(rounded_case: Case) -> None:
    case = rounded_case
    bases_own = {id(parameter) for parameter in case.base.model.parameters()}
    ids_BT = some_ids(case.base, 3, 7)
    with attached(case.base, case.method) as adaptation:
        for _, parameter in perturb(adaptation).named_parameters():
            assert parameter.dtype == (torch.bfloat16 if id(parameter) in bases_own else torch.float32)
        assert logits(case.base, adaptation, ids_BT).dtype == torch.bfloat16
        loss = loss_of(case, adaptation)
        loss.backward()
        assert loss.isfinite() and loss.dtype == torch.float32
        gradients = [p.grad for _, p in adaptation.named_parameters() if p.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def published_shift(case: Case, tensors: dict[str, torch.Tensor], h_BTD: torch.Tensor) -> torch.Tensor:
    """The shift of the first changed layer in float64, by the published formula."""
    part = {name.rsplit(".", 1)[-1]: tensor.double() for name, tensor in reversed(tensors.items())}
    if case.parameterization == "vector":
        return part["vector"].expand_as(h_BTD)
    if case.parameterization == "lofit":
        return part["bias"].flatten().expand_as(h_BTD)
    if case.parameterization == "jola":
        g1, g2 = ((1.2 * torch.sigmoid(part[name]) - 0.1).clamp(0, 1)[:, None] for name in ("log_bias", "log_scale"))
        return (g2 * part["scale"]).flatten() * h_BTD + (g1 * part["bias"]).flatten()
    code_BTR = h_BTD @ part["down"].T
    if case.parameterization == "nonlinear":
        phi = {"silu": functional.silu, "relu": functional.relu, "gelu": functional.gelu, "tanh": torch.tanh}
        code_BTR = phi[case.method.activation](code_BTR)
    return code_BTR @ part["up"].T + part.get("bias", 0)


def scope_of(case: Case) -> str:
    scope: str = case.method.scope.kind
    return scope


def test_the_sum_with_the_shift_rounds_once(rounded_case: Case) -> None:
    case = rounded_case
    if case.parameterization not in ("vector", "linear", "nonlinear", "lofit", "jola"):
        pytest.skip("not written out here for this parameterization")
    seen: list[torch.Tensor] = []
    layer = 0 if case.method.layers == "all" else case.method.layers[0]

    def record(h_BTD: torch.Tensor) -> torch.Tensor:
        seen.append(h_BTD.detach().clone())
        return h_BTD

    site = case.sites[0]
    before = case.base.sites.hook(site, layer, record)
    with attached(case.base, case.method) as adaptation:
        after = case.base.sites.hook(site, layer, record)
        logits(case.base, perturb(adaptation), some_ids(case.base, 4, 9))
        state = {name: tensor for name, tensor in adaptation.state_dict().items() if f".{site}." in name}
        shift_BTD = published_shift(case, state, seen[0].double())
        if scope_of(case) != "all":  # the last position, in a pass that is a prompt alone
            shift_BTD[:, :-1] = 0
        before.remove()
        after.remove()
    exact_BTD = seen[0].double() + shift_BTD
    half_a_place_BTD = torch.exp2(exact_BTD.abs().log2().floor() - 8)
    # The two can cancel: what is left then has float32's own error.
    float32_BT1 = 2**-21 * (seen[0].double().abs() + shift_BTD.abs()).amax(-1, keepdim=True)

    def rounds_once(sum_BTD: torch.Tensor) -> bool:
        return bool(((sum_BTD.double() - exact_BTD).abs() <= half_a_place_BTD + float32_BT1).all())

    assert rounds_once(seen[1])
    assert not rounds_once(seen[0] + shift_BTD.bfloat16()), "a shift that is rounded before the sum would be seen here"


def test_replicas_are_refused_where_there_are_none(case: Case) -> None:
    if case.replicated:
        pytest.skip(f"method kind '{case.kind}' has replicas")
    with pytest.raises(ActshiftError, match=rf"'{case.kind}' cannot train 2 replicas at once; only .*steering"):
        attach(case.base, config=case.method, seeds=(1, 2))
    assert not any(parameter.requires_grad for parameter in case.base.model.parameters())


def test_each_replica_changes_its_block_as_it_does_alone(case: Case) -> None:
    needs_replicas(case)
    ids_BT = some_ids(case.base, 6, 7)
    with attached(case.base, case.method, seeds=(1, 2, 3)) as together:
        initial = together.state_dict(1)
        output = logits(case.base, perturb(together), ids_BT).chunk(3)
        states = [together.state_dict(replica) for replica in range(3)]
    assert all(not torch.equal(states[0][name], states[2][name]) for name, _ in together.named_parameters())
    for replica, seed in enumerate((1, 2, 3)):
        with attached(case.base, case.method, seeds=(seed,)) as alone:
            if replica == 1:
                assert all(torch.equal(tensor, initial[name]) for name, tensor in alone.state_dict().items())
            alone.load_state_dict(states[replica])
            expected_BTV = logits(case.base, alone, ids_BT.chunk(3)[replica])
        torch.testing.assert_close(output[replica], expected_BTV, rtol=1e-5, atol=1e-4)


def test_the_gradient_of_one_replica_touches_no_other(case: Case) -> None:
    needs_replicas(case)
    with attached(case.base, case.method, seeds=(1, 2, 3)) as together:
        loss_of(case, perturb(together), only=slice(2, 4)).backward()
        for replica in (0, 2):
            for _, parameter in together.named_parameters(replica):
                assert parameter.grad is None or not parameter.grad.any()
        gradients = {name: parameter.grad for name, parameter in together.named_parameters(1)}
        state = together.state_dict(1)
        groups = together.parameter_groups(lrs=(0.1, 0.2, 0.3))
        assert [group["lr"] for group in groups] == [0.1, 0.2, 0.3]
        own = list(together.named_parameters())
        assert len({id(parameter) for group in groups for parameter in group["params"]}) == 3 * len(own)
    with attached(case.base, case.method) as alone:
        alone.load_state_dict(state)
        loss_of(case, alone, only=slice(2, 4)).backward()
        for name, parameter in alone.named_parameters():
            if parameter.grad is not None or gradients[name] is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-4)
