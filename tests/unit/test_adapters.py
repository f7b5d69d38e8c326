"""Adapters as files: what is written, what is read back, what is refused, and a model steered by one.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import (
    METHODS,
    answers,
    attached,
    base_of,
    composed,
    logits,
    method_config,
    perturb,
    some_ids,
    some_prompts,
)
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.schema.building import plain
from actshift.schema.method import ScopeConfig
from actshift.store.adapter_card import ADAPTER_CARD, PEFT_CONFIG, SCHEMA, TENSORS, adapters_in, read_adapter_card
from actshift.store.adapters import load_adapter, save_adapter, steer

IDENTITY = "0123456789abcdef"


def config_of(method: str, *, model: str = "tiny", **changes: Any) -> dict[str, Any]:
    return replace(composed(f"model={model}"), method=replace(method_config(method, model=model), **changes))


def saved(folder: Path, config: dict[str, Any], *, diverged: bool = False) -> Path:
    """The folder of an adapter that was moved off its initial values."""
    base = base_of(config.model.name)
    with attached(base, config.method) as adaptation:
        perturb(adaptation)
        save_adapter(
            folder, adaptation, base=base, config=config, facts={"kept": 1}, identity=IDENTITY, diverged=diverged
        )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("saved") / "adapter", config_of("post_block"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def padded(base: Base, prompts: list[list[int]], *, side: str) -> dict[str, torch.Tensor]:
    """What a tokenizer gives transformers for a batch of prompts."""
    longest = max(map(len, prompts))
    ids, mask = [], []
    for prompt in prompts:
        gap = longest - len(prompt)
        parts = [([base.pad_id] * gap, [0] * gap), (prompt, [1] * len(prompt))]
        parts = parts if side == "left" else parts[::-1]
        ids.append([token for part, _ in parts for token in part])
        mask.append([seen for _, part in parts for seen in part])
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_saved_loaded_and_attached_exactly(method: str, tmp_path: Path) -> None:
    config = config_of(method)
    base, ids_BT = base_of("tiny"), some_ids(base_of("tiny"), 3, 7)
    before_BTV = logits(base, None, ids_BT)
    with attached(base, config.method) as adaptation:
        perturb(adaptation)
        expected_BTV, state = logits(base, adaptation, ids_BT), adaptation.state_dict()
        save_adapter(tmp_path / "a", adaptation, base=base, config=config, facts={}, identity=IDENTITY, diverged=False)
        trained = adaptation.trainable_parameters()
    adapter = load_adapter(tmp_path / "a", config=config)
    assert adapter.state.keys() == state.keys()
    assert all(torch.equal(adapter.state[name], state[name]) for name in state)
    assert adapter.description.trainable_parameters == trained
    adaptation = adapter.attach(base)
    try:
        assert torch.equal(logits(base, adaptation, ids_BT), expected_BTV)
    finally:
        adaptation.detach()
    assert torch.equal(logits(base, None, ids_BT), before_BTV)


def test_the_description_says_what_the_adapter_is(folder: Path) -> None:
    config = config_of("post_block")
    described = read_adapter_card(folder)
    assert (described.identity, described.schema, described.model_type) == (IDENTITY, SCHEMA, "llama")
    assert (described.model, described.method) == (config.model, config.method)
    assert (described.dataset, described.source, described.protocol) == ("listops", "procedural", "paper")
    assert (described.precision, described.lr, described.seed) == ("float32", 0.01, 42)
    assert {path.name for path in folder.iterdir()} == {ADAPTER_CARD, TENSORS, "facts.json"}
    assert json.loads((folder / "facts.json").read_text()) == {"kept": 1}


def test_saving_replaces_what_was_there(copy: Path) -> None:
    (copy / "stray").write_text("")
    saved(copy, config_of("post_block_vector"))
    assert read_adapter_card(copy).method.name == "post_block_vector"
    assert not (copy / "stray").exists()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


# --- peft ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("model", ["tiny", "random-qwen3", "random-gemma3"])
def test_peft_loads_lora_and_gives_the_same_logits(model: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base, ids_BT = base_of(model), some_ids(base_of(model), 3, 7)
    folder = saved(tmp_path / "adapter", config_of("lora_r8", model=model))
    with steer(base.model, folder) as adaptation:
        expected_BTV = logits(base, adaptation, ids_BT)
    plain_BTV = logits(base, None, ids_BT)
    assert (expected_BTV - plain_BTV).abs().max() > 1e-2
    theirs = PeftModel.from_pretrained(base.model, folder)
    try:
        with torch.no_grad():
            assert torch.equal(theirs(input_ids=ids_BT).logits, expected_BTV)
    finally:
        theirs.unload()
    assert torch.equal(logits(base, None, ids_BT), plain_BTV)


def test_pefts_files_do_not_depend_on_the_order_of_a_set(tmp_path: Path) -> None:
    folder = saved(tmp_path / "adapter", config_of("lora_r8"))
    options = json.loads((folder / PEFT_CONFIG).read_text())
    assert options["target_modules"] == sorted(config_of("lora_r8").method.targets)
    assert (options["peft_type"], options["r"], options["base_model_name_or_path"]) == ("LORA", 8, "tiny_llama")


def test_joint_is_not_handed_to_peft_by_half(tmp_path: Path) -> None:
    from peft import PeftModel

    folder = saved(tmp_path / "adapter", config_of("joint"))
    assert not (folder / PEFT_CONFIG).exists()
    with pytest.raises(ValueError, match=PEFT_CONFIG):
        PeftModel.from_pretrained(base_of("tiny").model, str(folder))


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"revision": "2"}}, r'over another base model .*: model\.revision: "1" -> "2"'),
        ({"model": {"name": "other"}}, r'model\.name: "tiny" -> "other"'),
        ({"method": {"rank": 4}}, r"by another method .*: method\.rank: 8 -> 4"),
        ({"method": {"site": "post_mlp"}}, r'method\.site: "post_block" -> "post_mlp"'),
        ({"method": {"parameterization": "vector", "rank": None}}, r"method\.parameterization: .*; method\.rank"),
    ],
)
def test_another_base_model_or_method_is_refused_by_the_keys_that_differ(
    folder: Path, changes: dict[str, dict[str, Any]], message: str
) -> None:
    config = config_of("post_block")
    config = replace(config, **{group: replace(getattr(config, group), **new) for group, new in changes.items()})
    with pytest.raises(ActshiftError, match=message):
        load_adapter(folder, config=config)


def test_what_counts_towards_no_identity_may_differ(folder: Path) -> None:
    config = config_of("post_block", lr=1.0, rates="other")
    assert load_adapter(folder, config=config).description.identity == IDENTITY


def change(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        data = json.loads((folder / ADAPTER_CARD).read_text()) | changes
        (folder / ADAPTER_CARD).write_text(json.dumps({key: value for key, value in data.items() if value != "drop"}))

    return edit


def flip(folder: Path) -> None:
    """One bit of the last tensor: the file is whole and says something else."""
    data = bytearray((folder / TENSORS).read_bytes())
    data[-3] ^= 1
    (folder / TENSORS).write_bytes(data)


def without_a_tensor(folder: Path) -> None:
    state = load_file(folder / TENSORS)
    save_file(dict(list(state.items())[1:]), folder / TENSORS)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(schema=SCHEMA + 1, actshift="9.1"), r"has schema 2, written by actshift 9\.1; .* reads schema 1"),
        (change(method="drop"), r"missing \['method'\], unknown nothing"),
        (change(surprise=1), r"missing nothing, unknown \['surprise'\]"),
        (change(identity="x"), "identity = 'x' is not a run's identity"),
        (lambda folder: (folder / ADAPTER_CARD).write_text("{"), "torn or not JSON"),
        (lambda folder: (folder / ADAPTER_CARD).unlink(), f"holds no adapter: it has no {ADAPTER_CARD}"),
        (lambda folder: (folder / TENSORS).unlink(), f"{TENSORS} is missing"),
        (flip, "torn or altered: its checksum"),
        (without_a_tensor, "torn or altered: its checksum"),
        (lambda folder: (folder / TENSORS).write_bytes(b""), "torn or altered: its checksum"),
        (shutil.rmtree, "there is no adapter folder"),
    ],
)
def test_a_damaged_folder_is_refused(copy: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(copy)
    with pytest.raises(ActshiftError, match=message):
        load_adapter(copy)


def test_folders_of_other_kinds_are_told_apart(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run" / "adapter")
    with pytest.raises(ActshiftError, match="is a run's folder: its adapter is"):
        load_adapter(tmp_path / "run")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / PEFT_CONFIG).write_text("{}")
    with pytest.raises(ActshiftError, match=r"adapter of peft's .* peft\.PeftModel\.from_pretrained"):
        load_adapter(tmp_path / "theirs")


def sealed(folder: Path, change_state: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Other tensors under a checksum that fits them."""
    from actshift.store.adapters import _sha256

    state = load_file(folder / TENSORS)
    change_state(state)
    save_file(state, folder / TENSORS)
    change(sha256=_sha256(folder / TENSORS))(folder)
    return folder


def test_tensors_that_do_not_fit_are_refused_by_name_and_leave_no_hook(copy: Path) -> None:
    base = base_of("tiny")
    adapter = load_adapter(sealed(copy, lambda state: state.pop("0.post_block.up")))
    with pytest.raises(ActshiftError, match=r"copy: .* missing 0\.post_block\.up"):
        adapter.attach(base)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules())


@pytest.mark.parametrize("other", ["random-llama", "random-qwen3", "random-gemma3"])
def test_a_model_of_another_size_or_type_is_refused(folder: Path, other: str) -> None:
    with (
        pytest.raises(ActshiftError, match=r"belongs to the base model 'tiny' .*its (type|width) is"),
        steer(base_of(other).model, folder),
    ):
        pass


@pytest.fixture
def from_hub(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, PreTrainedModel]]:
    """An adapter and a model that say that they come from the hub."""

    def make(*, name: str, commit: str | None) -> tuple[Path, PreTrainedModel]:
        model = plain(read_adapter_card(copy).model) | {"source": "hub", "path": "org/model"}
        change(model=model, commit="aaaa")(copy)
        network = base_of("tiny").model
        monkeypatch.setattr(network, "name_or_path", name)
        monkeypatch.setattr(network.config, "_commit_hash", commit, raising=False)
        return copy, network

    return make


@pytest.mark.parametrize(
    ("name", "commit", "message"),
    [
        ("org/model-instruct", None, "its name is org/model-instruct, not org/model"),
        ("org/model", "bbbb", "its revision is bbbb, not aaaa"),
        ("org/model", "aaaa", None),
        ("org/model", None, None),
        (".", None, None),  # a folder: it may be a copy of the right model
        ("", None, None),
    ],
)
def test_a_hub_model_of_another_name_or_revision_is_refused(
    from_hub: Callable[..., tuple[Path, PreTrainedModel]], name: str, commit: str | None, message: str | None
) -> None:
    folder, model = from_hub(name=name, commit=commit)
    if message is None:
        with steer(model, folder):
            return
    with pytest.raises(ActshiftError, match=message), steer(model, folder):
        pass


# --- a model steered by one ---------------------------------------------------------------------------------------


def generated(base: Base, model: PreTrainedModel, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """transformers' greedy continuations, cut at the end token."""
    batch = padded(base, prompts, side="left")
    end = base.tokenizer.eos_token_id
    output = model.generate(
        **batch, max_new_tokens=6, do_sample=False, pad_token_id=base.pad_id, eos_token_id=end, **options
    )
    new = [row[batch["input_ids"].shape[1] :].tolist() for row in output]
    return [ids[: ids.index(end)] if end in ids else ids for ids in new]


STEERED = [("tiny", method) for method in METHODS]
STEERED += [(model, method) for model in ("random-qwen3", "random-gemma3") for method in ("reft_published", "joint")]


@pytest.mark.parametrize(("model", "method"), STEERED)
def test_generate_answers_as_our_own_generation(model: str, method: str, tmp_path: Path) -> None:
    base, config = base_of(model), config_of(method, model=model)
    prompts = some_prompts(base, [3, 11, 6, 1, 8])
    folder = saved(tmp_path / "adapter", config)
    adaptation = load_adapter(folder).attach(base)
    try:
        expected = answers(base, adaptation, prompts)
    finally:
        adaptation.detach()
    every_last = getattr(config.method, "scope", None) == ScopeConfig("every_last")
    with steer(base.model, folder):
        assert generated(base, base.model, prompts, **({"use_cache": False} if every_last else {})) == expected


def test_a_scope_that_changes_copies_refuses_a_cache_and_padding_on_the_right(tmp_path: Path) -> None:
    base, prompts = base_of("tiny"), some_prompts(base_of("tiny"), [4, 2])
    with steer(base.model, saved(tmp_path / "adapter", config_of("post_block_every_last"))):
        with pytest.raises(ActshiftError, match=r"does not forget\. Generate with use_cache=False"):
            generated(base, base.model, prompts)
        with pytest.raises(ActshiftError, match="pad rows on the left"):
            base.model(**padded(base, prompts, side="right"), use_cache=False)


@pytest.fixture(params=["post_block", "last_prompt", "first_last", "answer"])
def scoped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Adapters over the whole sequence and inside the prompt."""
    ends = (2, 2) if request.param == "first_last" else (0, 0)
    scope = ScopeConfig("all" if request.param == "post_block" else request.param, *ends)
    return saved(tmp_path / "adapter", config_of("post_block", scope=scope))


def test_either_padding_gives_the_logits_of_the_prompt_alone(scoped: Path) -> None:
    base = base_of("tiny")
    prompts = some_prompts(base, [3, 11, 6])
    with steer(base.model, scoped), torch.no_grad():
        alone = [base.model(torch.tensor([prompt])).logits[0] for prompt in prompts]  # positional, without a mask
        for side in ("left", "right"):
            batch = padded(base, prompts, side=side)
            position_BT = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
            logits_BTV = base.model(**batch, position_ids=position_BT).logits
            for row, prompt in enumerate(prompts):
                real_TV = logits_BTV[row][batch["attention_mask"][row].bool()]
                assert len(real_TV) == len(prompt)
                torch.testing.assert_close(real_TV, alone[row], rtol=1e-4, atol=1e-4)


def test_embeddings_stand_for_token_ids(scoped: Path) -> None:
    base, ids_BT = base_of("tiny"), some_ids(base_of("tiny"), 2, 6)
    with steer(base.model, scoped), torch.no_grad():
        expected_BTV = base.model(input_ids=ids_BT).logits
        embedded_BTD = base.model.get_input_embeddings()(ids_BT)
        assert torch.equal(base.model(inputs_embeds=embedded_BTD).logits, expected_BTV)


def test_a_pass_that_hides_the_end_of_its_prompt_is_refused(scoped: Path) -> None:
    base, prompts = base_of("tiny"), some_prompts(base_of("tiny"), [4, 4])
    with steer(base.model, scoped):
        if read_adapter_card(scoped).method.scope.kind == "all":
            assert generated(base, base.model, prompts, use_cache=False) == generated(base, base.model, prompts)
            return
        with pytest.raises(ActshiftError, match="both prompt and generated tokens"):
            generated(base, base.model, prompts, use_cache=False)
        with pytest.raises(ActshiftError, match="an attention mask of rows x tokens"):
            base.model(torch.tensor(prompts), attention_mask=torch.ones(2, 1, 4, 4))


@pytest.mark.parametrize("method", ["sft", "lora_r8", "reft", "joint"])
def test_afterwards_the_model_is_what_it_was(method: str, tmp_path: Path) -> None:
    base, ids_BT = base_of("tiny"), some_ids(base_of("tiny"), 2, 6)
    folder = saved(tmp_path / "adapter", config_of(method))
    before_BTV = logits(base, None, ids_BT)
    first = next(base.model.parameters())
    first.requires_grad_(True)
    base.model.train()
    try:
        with pytest.raises(ZeroDivisionError), steer(base.model, folder):
            assert not base.model.training
            assert not torch.equal(logits(base, None, ids_BT), before_BTV)
            raise ZeroDivisionError
        assert base.model.training
        assert [parameter.requires_grad for parameter in base.model.parameters()][:2] == [True, False]
    finally:
        base.model.eval()
        first.requires_grad_(False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules())
    assert torch.equal(logits(base, None, ids_BT), before_BTV)


# --- those of a results folder ------------------------------------------------------------------------------------


def test_adapters_of_a_results_folder_are_found_the_broken_ones_too(folder: Path, tmp_path: Path) -> None:
    for name in ("1" * 16, "2" * 16):
        shutil.copytree(folder, tmp_path / "runs" / name / "adapter")
    (tmp_path / "runs" / ("3" * 16)).mkdir()
    change(seed="drop")(tmp_path / "runs" / ("2" * 16) / "adapter")
    (_, first), (_, second) = adapters_in(tmp_path)
    assert not isinstance(first, ActshiftError) and first.identity == IDENTITY
    assert isinstance(second, ActshiftError) and "missing ['seed']" in str(second)
    assert list(adapters_in(tmp_path / "nowhere")) == []
