"""Impossible values are refused from the resolved config alone: no model, no data and no network is needed."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from actshift.config.composition import compose
from actshift.config.validation import validate
from actshift.errors import ActshiftError
from actshift.methods import KINDS
from actshift.paths import conf_dir
from actshift.schema.config import Config
from actshift.schema.method import METHODS, ScopeConfig

# A model that nobody has: whatever would load it fails otherwise than validation does.
NOWHERE = ("model.source=hub", "model.path=/there/is/no/such/model")


@pytest.fixture(scope="module")
def configs() -> dict[str, Config]:
    """One valid config of each kind of method, and one with a sweep."""
    methods = ("post_block", "post_block_vector", "post_block_nonlinear", "lora_r8", "sft", "jola", "joint_orth")
    return {
        **{method: compose([f"method={method}", *NOWHERE]) for method in methods},
        "gemma": compose(["model=gemma3-1b", "method=post_block"]),
        "sweep": compose(["sweep=demo", *NOWHERE]),
    }


@pytest.fixture
def changed(configs: dict[str, Config]) -> Callable[..., Config]:
    def change(name: str, changes: dict[str, Any]) -> Config:
        config = copy.deepcopy(configs[name])
        for key, value in changes.items():
            *parents, last = key.split(".")
            node: Any = config
            for parent in parents:
                node = node[parent] if isinstance(node, dict) else getattr(node, parent)
            if isinstance(node, dict):
                node[last] = value
            else:
                setattr(node, last, value)
        data = config.data
        if "data.origin" not in changes:
            data.origin = getattr(config.dataset, data.source, None)
        return config

    return change


def test_the_configs_that_the_cases_start_from_are_valid(configs: dict[str, Config]) -> None:
    for config in configs.values():
        validate(config)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("lr", -1e-3, "positive"),
        ("lr", 0.0, "positive"),
        ("lr", float("inf"), "positive"),
        ("lr", float("nan"), "positive"),
        ("seed", -1, "at least 0"),
        ("training.batch_size", 0, "at least 1"),
        ("training.epochs", 0, "at least 1"),
        ("training.max_steps", 0, "at least 1"),
        ("training.max_tokens", 0, "at least 1"),
        ("training.weight_decay", -0.1, "at least 0"),
        ("training.weight_decay", float("nan"), "at least 0"),
        ("training.clip", float("inf"), "at least 0"),
        ("training.schedule.warmup", 1.0, "share"),
        ("training.schedule.warmup", -0.1, "share"),
        ("training.validations", -1, "at least 0"),
        ("data.limit.train", 0, "at least 1"),
        ("data.limit.test", -5, "at least 1"),
        ("evaluation.max_new_tokens", 0, "at least 1"),
        ("dataset.procedural.rows.train", 0, "at least 1"),
        ("hardware.threads", 0, "at least 1"),
        ("hardware.workers", 0, "at least 1"),
        ("hardware.micro_batch", 0, "at least 1"),
        ("hardware.evaluation_tokens", 0, "at least 1"),
        ("hardware.checkpoint_every", -1, "at least 0"),
        ("model.shape.layers", 0, "at least 1"),
        ("model.shape.kv_heads", 3, "a divisor of the 4 heads"),
        ("model.path", None, "a name on the hub"),
        ("results", "", "a folder"),
        ("data.dir", None, None),  # fine: the rows are procedural
        ("training.max_steps", None, None),
        ("hardware.checkpoint_every", 0, None),
        ("training.clip", 0.0, None),
        ("seed", 0, None),
    ],
)
def test_numbers(changed: Callable[..., Config], key: str, value: Any, allowed: str | None) -> None:
    changes = {"model.shape.heads": 4, key: value} if key == "model.shape.kv_heads" else {key: value}
    config = changed("post_block", changes)
    if allowed is None:
        validate(config)
        return
    with pytest.raises(ActshiftError) as refusal:
        validate(config)
    message = str(refusal.value)
    assert message.startswith(
        f"{key} = {'null' if value is None else value if value != '' else repr('')} is impossible"
    )
    assert allowed in message
    assert f"Set it with {key}=" in message


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("stage", "fnal", "final"),
        ("stage", "test", None),
        ("model.source", "embeded", "embedded"),
        ("model.architecture", "lama", "llama"),
        ("model.attention", "eagr", "eager"),
        ("method.kind", "steerin", "steering"),
        ("dataset.task", "list_ops", "listops"),
        ("data.source", "procedual", "procedural"),
        ("training.schedule.kind", "cosin", "cosine"),
        ("training.precision", "float16", "bfloat16"),
        ("hardware.device", "gpu", None),
        ("logger.mode", "ofline", "offline"),
        ("method.site", "post_blok", "post_block"),
        ("method.site", "post_mlp_norm", "post_mlp"),  # Gemma 3's alone
        ("method.scope.kind", "promt", "prompt"),
        ("method.parameterization", "liner", "linear"),
        ("data.splits.test.keep", "held-out", "held_out"),
        ("data.splits.test.source", "tst", "test"),
    ],
)
def test_names(changed: Callable[..., Config], key: str, value: str, near: str | None) -> None:
    with pytest.raises(ActshiftError) as refusal:
        validate(changed("post_block", {key: value}))
    message = str(refusal.value)
    assert f"'{value}'" in message
    assert "Allowed: " in message
    assert key in message
    assert near is None or f"Did you mean '{near}'?" in message


@pytest.mark.parametrize(
    ("layers", "valid"),
    [
        ("all", True),
        ([0], True),
        ([1, 0], True),
        ([0, 99], False),
        ([0, 0], False),
        ([-1], False),
        ([], False),
        ([True], False),
        (["0"], False),
        ([0.0], False),
        ("first", False),
        (3, False),
        (None, False),
    ],
)
def test_layers(changed: Callable[..., Config], layers: Any, valid: bool) -> None:
    config = changed("post_block", {"method.layers": layers})
    if valid:
        validate(config)
        return
    last = config.model.shape.layers - 1
    with pytest.raises(ActshiftError, match=rf"method.layers = .*'all' or .* from 0 to {last}, which 'tiny' has"):
        validate(config)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "post_block",
            {"method.rank": 0},
            r"method.rank = 0 is impossible: it must be 1 to \d+, the width of post_block",
        ),
        ("post_block", {"method.rank": 10**6}, r"method.rank = 1000000 .*1 to \d+"),
        ("post_block", {"method.rank": None}, r"'linear' needs method.rank; got null. It takes: rank\."),
        (
            "post_block",
            {"method.activation": "silu"},
            r"'linear' takes no method.activation; got silu. It takes: rank\.",
        ),
        ("post_block_vector", {"method.rank": 2}, r"'vector' takes no method.rank; got 2. It takes: no options\."),
        ("post_block_nonlinear", {"method.activation": None}, r"'nonlinear' needs method.activation; got null"),
        (
            "post_block_nonlinear",
            {"method.activation": "sillu"},
            r"unknown method.activation 'sillu'. Did you mean 'silu'\?",
        ),
        ("post_block", {"method.scope.kind": "first_last"}, r"method.scope = .*at least one position"),
        ("post_block", {"method.scope.last": -1}, r"method.scope.last = -1 .*at least 0"),
        ("post_block", {"method.scope.separate": True}, r"method.scope.separate = True .*false unless .*first_last"),
        ("jola", {"method.gates.schedule": "expon"}, r"method.gates.schedule 'expon'. Did you mean 'exponential'\?"),
        ("jola", {"method.gates.start": 1.5}, r"method.gates.start = 1.5 .*\[0, 1\]"),
        ("jola", {"method.gates.decay": -1.0}, r"method.gates.decay = -1.0 .*at least 0"),
        ("jola", {"method.gates.cycle": 0}, r"method.gates.cycle = 0 .*at least 1"),
        ("jola", {"method.selection.stage": 0.0}, r"method.selection.stage = 0.0 .*\(0, 1\)"),
        ("jola", {"method.selection.heads": 1.0}, r"method.selection.heads = 1.0 .*\(0, 1\)"),
        ("jola", {"method.selection.penalty": -1.0}, r"method.selection.penalty = -1.0 .*at least 0"),
        ("joint_orth", {"method.lora.rank": 0}, r"method.lora.rank = 0 .*at least 1"),
        ("joint_orth", {"method.steering.rank": 10**6}, r"method.steering.rank = 1000000 .*1 to \d+"),
        ("joint_orth", {"method.steering.site": "post_blok"}, r"Did you mean 'post_block'\?.*method.steering.site"),
        ("joint_orth", {"method.lora_lr": 0.0}, r"method.lora_lr = 0.0 .*positive number"),
        (
            "joint_orth",
            {"method.orthogonality.project": "both"},
            r"method.orthogonality.project 'both'. Allowed: input, null, output",
        ),
        ("joint_orth", {"method.orthogonality.every": 0}, r"orthogonality.every = 0 .*step, epoch, start or a number"),
        ("joint_orth", {"method.orthogonality.every": "steps"}, r"orthogonality.every = steps .*step, epoch, start"),
        ("joint_orth", {"method.orthogonality.against": []}, r"orthogonality.against = \[\] .*at least one"),
        ("joint_orth", {"method.lora.targets": ["o_proj"]}, r"unknown projection 'down_proj'.*Allowed: o_proj"),
        ("joint_orth", {"method.steering.site": "heads"}, r"needs a steering part .*got linear at heads"),
        ("lora_r8", {"method.rank": 0}, r"method.rank = 0 .*at least 1"),
        ("lora_r8", {"method.alpha": 0.0}, r"method.alpha = 0.0 .*positive"),
        ("lora_r8", {"method.dropout": 1.0}, r"method.dropout = 1.0 .*\[0, 1\)"),
        ("lora_r8", {"method.targets": []}, r"method.targets = \[\] .*at least one projection"),
        ("lora_r8", {"method.targets": ["q_porj"]}, r"unknown projection 'q_porj'. Did you mean 'q_proj'\?"),
        ("sft", {"model.source": "embedded"}, r"unknown embedded model '/there.*Allowed: .*tiny_llama"),
        ("sft", {"data.source": "local"}, r"data.dir = null .*existing folder of data sets, since data.source=local"),
        ("sft", {"data.source": "local", "data.dir": "/no/where"}, r"data.dir = /no/where .*existing folder"),
        (
            "sft",
            {"data.splits.train.keep": "held-out"},
            r"keep 'held-out'. Did you mean 'held_out'\?.*data\.splits\.train\.keep",
        ),
        ("sft", {"data.splits.test.source": "train"}, r"data.splits.train and data.splits.test would share rows"),
        ("sft", {"dataset.procedural.difficulty": {}}, r"difficulty of listops lacks max_args, max_depth"),
        ("sft", {"dataset.procedural.difficulty.max_dept": 3}, r"'max_dept'. Did you mean 'max_depth'\?"),
        ("sft", {"data.origin": {}}, r"data.origin = \{\} is impossible: it follows dataset.procedural\."),
        ("sft", {"data.source": "hub", "data.splits.test.source": "tets"}, r"'tets'. Did you mean 'test'\?"),
    ],
)
def test_what_does_not_go_together(
    changed: Callable[..., Config], name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ActshiftError, match=message):
        validate(changed(name, changes))


def test_what_goes_together(changed: Callable[..., Config], tmp_path: Path) -> None:
    validate(changed("gemma", {"method.site": "post_mlp_norm"}))
    scope = ScopeConfig("first_last", 0, 1)
    validate(changed("post_block", {"method.scope": scope}))
    validate(changed("post_block", {"method.scope": replace(scope, first=2, separate=True)}))
    every_way = {"method.orthogonality.every": 7, "method.orthogonality.against": ["o_proj", "down_proj"]}
    validate(changed("joint_orth", {**every_way, "method.orthogonality.project": "input", "method.lora_lr": 1e-3}))
    validate(changed("joint_orth", {"method.orthogonality.project": None, "method.steering.site": "heads"}))
    validate(changed("sft", {"data.source": "local", "data.dir": str(tmp_path)}))
    gemma = changed("gemma", {"method.site": "heads"})
    shape = gemma.model.shape
    assert shape.heads * shape.head_size < shape.width
    gemma.method.rank = shape.width
    with pytest.raises(ActshiftError, match=f"1 to {shape.heads * shape.head_size}, the width of heads"):
        validate(gemma)


def test_a_local_folder_below_home_is_found(
    changed: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    validate(changed("sft", {"data.source": "local", "data.dir": "~/data"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sweep.models": []}, r"sweep.models = \[\] is impossible"),
        ({"sweep.seeds": [1, 1]}, r"sweep.seeds = \[1, 1\] .*none of them twice"),
        ({"sweep.reference": "sftt"}, r"unknown reference method 'sftt'. Did you mean 'sft'\?"),
        ({"sweep.seeds_by_method": {"lora": [1]}}, r"unknown method 'lora'. .*sweep.seeds_by_method"),
        ({"sweep.rates.tiny.lora": []}, r"sweep.rates.tiny.lora = \[\] .*at least one learning rate"),
        ({"sweep.rates.tiny.lora": [1e-3, 0.0]}, r"sweep.rates.tiny.lora = .*positive"),
        ({"sweep.rates.tiny.lora": [float("nan")]}, r"sweep.rates.tiny.lora = .*positive"),
    ],
)
def test_sweeps(changed: Callable[..., Config], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        validate(changed("sweep", changes))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_implementation_a_config_of_its_name_and_a_method(kind: str) -> None:
    module, name = KINDS[kind].path.split(":")
    assert callable(getattr(import_module(module), name))
    assert METHODS[kind].kind == kind
    files = [file.read_text() for file in (conf_dir() / "method").glob("*.yaml")]
    # The files of `custom` are the user's: tests/end_to_end/test_own_code.py has some.
    assert kind == "custom" or any(f"defaults: [{kind}_schema, " in text for text in files)


def test_validation_needs_no_torch() -> None:
    code = (
        "import sys; from actshift.config.composition import compose; compose(['method=lora_r8']); "
        "print(sorted({'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
