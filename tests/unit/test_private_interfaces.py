"""The private interfaces of other libraries do what `actshift.libraries.private` takes them to do."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest
import torch
from adapted import base_of
from transformers import AutoConfig

import actshift
from actshift.libraries import private

SOURCES = sorted(Path(actshift.__file__).parent.rglob("*.py"))


def test_hydras_sweeper_combines_overrides() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    jobs = private.multirun_jobs(OverridesParser.create().parse_overrides(["a=1,2", "b=x", "c=3,4"]))
    assert jobs == [["a=1", "b=x", "c=3"], ["a=1", "b=x", "c=4"], ["a=2", "b=x", "c=3"], ["a=2", "b=x", "c=4"]]


def test_torchao_has_an_adamw_over_plain_tensors_and_a_state_of_8_bits() -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = private.torchao_adamw()([parameter], lr=0.1, weight_decay=0.0, bf16_stochastic_round=False)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups[0]["params"] == [parameter]
    assert issubclass(private.torchao_state_8bit(), torch.Tensor)


def test_a_registered_attention_is_called_under_its_name() -> None:
    from transformers import AttentionInterface

    base, called = base_of("random-llama"), []

    def attend(module, query, key, value, mask, **options):  # type: ignore[no-untyped-def]
        called.append(query.shape)
        return private.attention_functions()["sdpa"](module, query, key, value, mask, **options)

    AttentionInterface.register("counting", attend)
    before = private.attention_implementation(base.model.config)
    private.set_attention_implementation(base.model.config, "counting")
    try:
        base.model(input_ids=torch.ones(1, 3, dtype=torch.long))
    finally:
        private.set_attention_implementation(base.model.config, before)
    assert len(called) == base.sites.layers


def test_a_config_keeps_a_commit() -> None:
    config = AutoConfig.for_model("llama")
    assert private.commit_of(config) is None
    private.set_commit(config, "abc")
    assert private.commit_of(config) == "abc"


def test_the_hubs_clients_can_be_told_to_stay_offline() -> None:
    import huggingface_hub

    before = huggingface_hub.is_offline_mode()
    with private.hub_offline():
        assert huggingface_hub.is_offline_mode()
    assert huggingface_hub.is_offline_mode() == before


def test_private_interfaces_stand_in_one_file() -> None:
    names = (r"hydra\._internal", r"torchao\.optim\._", r"_attn_implementation\b", r"_commit_hash\b", r"subclass_8bit")
    pattern = re.compile("|".join((*names, r"constants\.HF_HUB_OFFLINE\s*=")))
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES if path.name != "private.py"}
    assert not [path for path, text in texts.items() if pattern.search(text)]
    assert len(texts) > 100


def test_chat_templates_ask_a_clock_that_can_be_set() -> None:
    from tokenizers_alike import build

    tokenizer = build("llama")
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%d') }}"
    turns = [{"role": "user", "content": "question"}]
    with private.day_in_templates(datetime(2001, 2, 3)):
        assert tokenizer.apply_chat_template(turns, tokenize=False) == "2001-02-03"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == datetime.now().strftime("%Y-%m-%d")
