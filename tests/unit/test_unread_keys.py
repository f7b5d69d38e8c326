"""Every config key is read by something that acts on it.

Real runs, a real plan and a real sweep are given a config that notes each key that is looked up. Iterating, comparing
and serialising do not count as reading, and neither does validation: a key that is only checked does nothing.
"""

from __future__ import annotations

import copy
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.cli import main
from actshift.commands import analyses, requests
from actshift.config import cached as product
from actshift.config.composition import compose, resolved
from actshift.config.groups import groups
from actshift.config.identity import identity_of, ignored_keys
from actshift.config.keys import known_keys
from actshift.methods import attach
from actshift.observe.trackers import start_tracker
from actshift.paths import conf_dir, embedded_model_dir
from actshift.planning.manifests import read_manifest
from actshift.runtime.run import run
from actshift.runtime.session import Session, pick_device
from actshift.schema.building import plain
from actshift.schema.method import GATE_SCHEDULES
from actshift.store.store import Store
from actshift.sweeps.worker import Worker
from actshift.tasks import get_task

UNREAD = {
    "dataset.version": "its work is done by being counted: raising it makes every run of the data set another run",
    "data.origin": "the chosen source's settings once more, to be counted: the data code reads dataset.<source> itself",
    "model.package": "read of packaged weights: tests/unit/test_smollm2.py",
    "method.code": "its work is done by being counted: changed code makes another run",
    "method.target": "read of a method of the user's own: tests/end_to_end/test_own_code.py",
    "model.sha256": "read of local and packaged weights: tests/unit/test_smollm2.py",
    "objective.kind": "it says which of the structured configs an objective is",
    "objective.name": "records keep it for tables and lists to show: tests/unit/test_beside.py",
    "dataset.code": "its work is done by being counted: changed code makes another run",
    "dataset.target": "read of a task of the user's own: tests/end_to_end/test_own_code.py",
    "dataset.tokens.procedural.longest": "memory is planned for a data set's own rows, whatever is generated",
    "dataset.tokens.shared": "read where an estimate is of rows from files: tests/unit/test_costs.py",
    "protocol.chat_max_tokens.*": "read of models that chat: tests/unit/test_chat.py",
}
"""Keys that nothing reads, and why they are there all the same. An entry that is read after all is refused."""


class Recorded(dict[str, Any]):
    """A mapping that notes in `read` the dotted key of each value that is looked up in it or below it."""

    def __init__(self, config: Mapping[str, Any], read: set[str], path: str = "") -> None:
        super().__init__({key: recorded(value, read, f"{path}{key}.") for key, value in config.items()})
        self._read, self._path = read, path

    def __getitem__(self, key: str) -> Any:
        return self._note(key, super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        return self._note(key, super().get(key, default))

    def _note(self, key: str, value: Any) -> Any:
        if not isinstance(value, Recorded):
            self._read.add(f"{self._path}{key}")
        return value


class RecordedBelow(Recorded):
    """A mapping below the top. Having its own iterator makes `**mapping` look each key up, which then counts."""

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()


SILENT = {"dataclasses", "actshift.schema.building", "actshift.schema.fields", "copy"}
"""Modules that go through all fields of a dataclass, whatever they are for."""


def recorded(value: Any, read: set[str], path: str = "") -> Any:
    """A value of a configuration that notes in `read` the dotted key of each field that is looked up in it."""
    if is_dataclass(value):
        inner = {each.name: recorded(getattr(value, each.name), read, f"{path}{each.name}.") for each in fields(value)}
        return _recording(type(value), read, path)(**inner)
    if isinstance(value, Mapping):
        return RecordedBelow(value, read, path)
    if isinstance(value, list):
        return [recorded(item, read, path) for item in value]
    return value


def _recording(kind: Any, read: set[str], path: str) -> Any:
    names = {each.name for each in fields(kind)}

    class Recording(kind):
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            counts = name in names and sys._getframe(1).f_globals["__name__"] not in SILENT
            if counts and not is_dataclass(value) and not isinstance(value, Recorded):
                read.add(f"{path}{name}")
            return value

    return Recording


def interpolated() -> list[tuple[str, str]]:
    """Where config.yaml hands a key on: (the key, the key that it becomes), `*` for a key within a key."""
    document = yaml.safe_load((conf_dir() / "config.yaml").read_text())

    def pairs(value: Any, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from pairs(inner, f"{path}.{key}".lstrip("."))
        elif isinstance(value, str) and (source := re.fullmatch(r"\$\{(?:oc\.select:)?(.*)\}", value)):
            # Of two sources the first is taken where it exists.
            yield from ((each, path) for each in re.sub(r"\$\{([^}]*)\}$", r"\1", _keys_within(source[1])).split(","))
            # A key within a key chooses what is handed on.
            yield from ((inner, path) for inner in re.findall(r"\$\{([^}]*)\}", source[1]))

    return [pair for pair in pairs(document, "") if not pair[1].startswith("hydra.")]


def _keys_within(source: str) -> str:
    """A source with `*` for each key within a key; a key that stands alone behind a comma is a source."""
    return re.sub(r"(?<!,)\$\{[^}]*\}", "*", source)


def matches(name: str, key: str) -> bool:
    parts, wanted = name.split("."), key.split(".")
    return len(parts) == len(wanted) and all(want in ("*", part) for part, want in zip(parts, wanted, strict=True))


def is_read(key: str, read: set[str]) -> bool:
    """Whether a key of the schema was read, itself or as the key that config.yaml makes of it."""
    wanted = {key}
    for source, target in interpolated():
        head = ".".join(key.split(".")[: source.count(".") + 1])
        if matches(head, source):
            wanted.add(target + key[len(head) :])
    return any(matches(name, one) or name.startswith(f"{one}.") for name in read for one in wanted)


def schema_leaves() -> list[str]:
    keys = known_keys()
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with BoolQ in the hub's schema, below data/, and room for results."""
    folder = tmp_path_factory.mktemp("unread")
    rng, difficulty = random.Random(0), compose(["dataset=boolq"]).dataset.procedural.difficulty
    (folder / "data" / "boolq").mkdir(parents=True)
    for split, rows in (("train", 24), ("validation", 20)):
        lines = (json.dumps(get_task("boolq").generate(rng, **difficulty)) for _ in range(rows))
        (folder / "data" / "boolq" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def read(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The keys that runs, a tracker and a sweep look up."""
    import datasets

    read: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setenv("HOME", str(workplace))
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.chdir(workplace)
        _runs(read, workplace)
        _tracker(read, workplace)
        _sweep(read, patch)
        _worker(read, patch, workplace)
        _analyses(read, patch)
        patch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(ValueError, match="a100-40gb"):
            pick_device(recorded(compose(["hardware=a100-40gb"]), read).hardware)
    return read


def _runs(read: set[str], workplace: Path) -> None:
    session = Session()
    small = ["debug=few_steps", "training.max_steps=2", "hardware.evaluation_tokens=4096"]
    rows = ["dataset.hub.rows.train=24", "dataset.hub.rows.validation=20"]
    local = ["dataset=boolq", "data.source=local", f"data.dir={workplace / 'data'}", "protocol=released", *rows]
    hub = ["dataset=boolq", "data.source=hub", f"dataset.hub.path={workplace / 'data' / 'boolq'}", *rows]
    runs = [
        ["method=sft", "dataset=listops"],
        ["method=lora_r8", *local],
        ["method=post_block", *hub, "stage=final"],
        ["method=post_block_nonlinear", "model.source=hub", f"model.path={embedded_model_dir('tiny_llama')}"],
        ["method=joint_orth"],
        ["method=post_block", "dataset=listops", "objective=grpo", "objective.completions=2"],
        ["method=sft", *local, *_templated()],
    ]
    for overrides in runs:
        run(recorded(compose([*small, *overrides]), read), session=session)
    _parts(read, session)


def _templated() -> list[str]:
    """BoolQ as a data set of templates."""
    texts = "prompt: '{question}?', answer: 'Answer: {label}.', question: '{question}'"
    return ["dataset.task=templated", f"dataset.template={{{texts}, label: answer, rule: exact}}"]


def _worker(read: set[str], patch: pytest.MonkeyPatch, workplace: Path) -> None:
    """What a worker looks up beside its runs: whether to do several at once."""
    overrides = [
        "sweep.methods=[post_block]",
        "sweep.reference=post_block",
        "sweep.datasets=[listops]",
        "sweep.seeds=[1]",
    ]
    few = ["debug=few_steps", "training.max_steps=2", f"results={workplace / 'worker'}"]
    assert main(["plan", "demo", *overrides, *few]) == 0
    manifest = read_manifest(Store(workplace / "worker").manifest_path("demo", "grid"))
    of_run = Worker._config
    with patch.context() as inner:
        inner.setattr(Worker, "_config", lambda *given: recorded(of_run(*given), read))
        Worker(workplace / "worker", overrides=[], tell=lambda event: None).work(manifest)


def _analyses(read: set[str], patch: pytest.MonkeyPatch) -> None:
    """Every analysis, as small as it can be."""
    few = ["sweep.datasets=[listops]", "sweep.methods=[sft,joint_orth]", "sweep.seeds=[1]", "debug=few_steps"]
    rates = ["sweep.rates.tiny.sft=[0.001]", "sweep.rates.tiny.joint=[0.01]"]
    # A schedule of two steps would be its warmup, and leave matrices at 0.
    constant = ["training.schedule.kind=constant", "training.schedule.warmup=0.0"]
    assert main(["sweep", "shifts", *few, *rates, *constant, "training.max_steps=2"]) == 0
    of_sweep = ["analysis.methods=[sft]", "dataset=listops"]
    patch.setattr(analyses, "compose", lambda names: recorded(compose(names), read))
    small = {
        "theory": ["analysis.draws=1", "analysis.search.restarts=1", "analysis.search.steps=1"],
        "oracle": ["analysis.rows=2", "analysis.steps=2"],
        "overlap": ["analysis.rows=2", *of_sweep, "analysis.early=[shifts]", "analysis.joint=joint_orth"],
        "latency": ["analysis.prompt=4", "analysis.new_tokens=1", "analysis.turns=1", "analysis.rounds=1"],
        "shares": ["analysis.rows=2", *of_sweep],
        "cosines": ["analysis.rows=2", "analysis.methods=[joint_orth]", *of_sweep[1:]],
        "norms": ["analysis.methods=[joint_orth]", *of_sweep[1:]],
        "retention": ["analysis.datasets=[listops]", "analysis.rows=2", *of_sweep],
        "continuations": ["analysis.rows=2", "analysis.new_tokens=2", "analysis.steps=2", *of_sweep],
    }
    assert set(small) == set(groups()["analysis"])
    for name, overrides in small.items():
        assert main(["analyze", name, *overrides]) == 0


def _parts(read: set[str], session: Session) -> None:
    """Every parameterization with options of its own, alone and as a part of joint training: all read when attached."""
    parts = [["jola", "rank=null"], ["lofit_two_stage", "rank=null"], ["nonlinear", "activation=silu"]]
    for prefix, method in (("method", "post_block"), ("method.steering", "joint")):
        for name, option in parts:
            overrides = [f"method={method}", f"{prefix}.parameterization={name}", f"{prefix}.{option}"]
            config = recorded(compose(overrides), read)
            attach(session.base(config), config=config.method, seeds=(0,)).detach()
        for schedule in GATE_SCHEDULES:
            gates = f"{prefix}.gates.schedule={schedule}"
            config = recorded(
                compose([f"method={method}", f"{prefix}.parameterization=jola", f"{prefix}.rank=null", gates]), read
            )
            adaptation = attach(session.base(config), config=config.method, seeds=(0,))
            adaptation.begin(steps=4, steps_per_epoch=4)
            adaptation.before_step(2)
            adaptation.penalty(2)
            adaptation.after_step(2, losses=[1.0])
            adaptation.detach()
    config = recorded(compose(["method=ia3"]), read)
    attach(session.base(config), config=config.method, seeds=(0,)).detach()


def _tracker(read: set[str], workplace: Path) -> None:
    seen: set[str] = set()
    config = recorded(compose(["logger=wandb"]), seen)
    start_tracker(config, identity="0" * 16, folder=workplace / "tracker").finish({"accuracy": 0.0})
    # wandb looks at the whole config that it is given: only the tracker's own keys are ours.
    read |= {key for key in seen if key.startswith("logger.")}


def _sweep(read: set[str], patch: pytest.MonkeyPatch) -> None:
    """A sweep of one cell whose only run is done before it starts."""
    overrides = ["debug=few_steps", "training.max_steps=2"]
    run(compose(["method=post_block", "stage=final", "lr=0.01", "seed=1", *overrides]))
    patch.setattr(requests, "compose", lambda names: recorded(compose(names), read))
    patch.setattr(product, "resolved", lambda composed, **how: recorded(resolved(composed, **how), read))
    axes = [
        "sweep.methods=[sft,post_block]",
        "sweep.datasets=[listops]",
        "sweep.seeds=[1]",
        "sweep.rates.tiny.steering_r8=[0.01]",
    ]
    axes.append("+sweep.variants.post_block.smaller=[]")
    exclude = "sweep.exclude=[{reason: elsewhere, model: tiny, method: sft, dataset: listops}]"
    assert main(["plan", "demo", *axes, exclude, "+sweep.seeds_by_method.sft=[2]", *overrides]) == 0
    within = "+sweep.fraction.contrasts.post_block.within.layers=[every]"
    assert main(["plan", "study", "sweep.datasets=[listops]", within]) == 0
    assert main(["sweep", "demo", *axes, exclude, "+sweep.seeds_by_method.sft=[2]", *overrides]) == 0


@pytest.mark.parametrize("key", [key for key in schema_leaves() if key not in UNREAD])
def test_every_key_is_read(key: str, read: set[str]) -> None:
    assert is_read(key, read), f"nothing reads {key}: delete it from actshift/schema and conf/, or make it matter"


@pytest.mark.parametrize("key", UNREAD)
def test_what_is_excused_exists_and_is_unread(key: str, read: set[str]) -> None:
    assert key in schema_leaves()
    assert not is_read(key, read), f"{key} is read: take it off the list"


def test_the_version_of_a_data_set_counts() -> None:
    config = compose([])
    newer = replace(config, dataset=replace(config.dataset, version=config.dataset.version + 1))
    first, second = (identity_of(each, ignore=ignored_keys()) for each in (config, newer))
    assert first != second


@pytest.mark.parametrize("source", ["hub", "local", "procedural"])
def test_every_setting_of_the_chosen_source_counts(source: str, workplace: Path) -> None:
    config = compose(["dataset=boolq", f"data.source={source}", f"data.dir={workplace / 'data'}"])
    assert config.data.origin == config.dataset.origin(source)
    unchanged = identity_of(config, ignore=ignored_keys())
    for key in leaves(plain(config.data.origin)):
        other = copy.deepcopy(config)
        node: Any = other.data.origin
        for part in key[:-1]:
            node = node[part] if isinstance(node, dict) else getattr(node, part)
        if isinstance(node, dict):
            node[key[-1]] = "another value"
        else:
            setattr(node, key[-1], "another value")
        assert identity_of(other, ignore=ignored_keys()) != unchanged, f"data.origin.{'.'.join(key)} does not count"


def leaves(settings: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from ((key, *below) for below in leaves(value))
        else:
            yield (key,)


def test_a_key_that_nobody_reads_would_be_found() -> None:
    read: set[str] = set()
    config = recorded(compose(["dataset=boolq"]), read)
    assert plain(config) == plain(compose(["dataset=boolq"])) and replace(config, lr=1.0).seed == 42
    assert read == {"seed"}
    read.clear()
    assert (config.training.epochs, config.dataset.procedural.rows["train"], config.sweep) == (1, 2000, None)
    assert read == {"training.epochs", "dataset.procedural.rows.train", "sweep"}
    read.clear()
    assert replace(config.training, epochs=2).batch_size == 8
    assert read == {"training.batch_size"}


def test_interpolations_are_followed() -> None:
    assert ("method.lr", "lr") in interpolated()
    assert is_read("protocol.schedules.*.sft.warmup", {"training.schedule.warmup"})
    assert is_read("dataset.splits.*.test.keep", {"data.splits.test.keep"})
    assert not is_read("protocol.schedules.*.sft.warmup", {"training.schedule.kind"})
