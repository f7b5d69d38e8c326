"""Composition: everything in conf/ composes, and nothing that the schema does not declare gets in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.config import composition
from actshift.config.composition import cell_of, check_names, compose
from actshift.config.composition import composed as unresolved
from actshift.config.groups import groups
from actshift.config.identity import identity_of, ignored_keys
from actshift.config.keys import SCHEMAS, choices, is_known, known_keys
from actshift.config.validation import validate
from actshift.errors import ActshiftError
from actshift.paths import conf_dir, embedded_model_dir
from actshift.planning.expand import expand_grid
from actshift.planning.manifests import verify
from actshift.schema.config import Config, ScheduleConfig
from actshift.schema.data import SplitConfig

AXES = ("model", "method", "dataset", "protocol")
GROUPS = groups()
NAMED = sorted({group for group, _ in SCHEMAS if group is not None})
FILES = [(group, option) for group, options in GROUPS.items() for option in options]
_KEYS = known_keys()
LEAVES = [key for key in _KEYS if "*" not in key and not any(other.startswith(f"{key}.") for other in _KEYS)]


def config_file(group: str, option: str) -> str:
    return (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def composed() -> list[Config]:
    """Every model, method and data set under every protocol, each at least once."""
    width = max(len(GROUPS[axis]) for axis in AXES)
    rows = [
        [protocol, *(GROUPS[axis][place % len(GROUPS[axis])] for axis in AXES[:3])]
        for protocol in GROUPS["protocol"]
        for place in range(width)
    ]
    return [
        compose(cell_overrides(model=model, method=method, dataset=dataset, protocol=protocol))
        for protocol, model, method, dataset in rows
    ]


def cell_overrides(*, model: str, method: str, dataset: str, protocol: str) -> list[str]:
    """The overrides of a cell, with what an option leaves to the user: a folder of weights, a source of rows."""
    cell = [f"model={model}", f"method={method}", f"dataset={dataset}", f"protocol={protocol}", *layers(method)]
    if "source: local" in config_file("model", model):
        cell += [f"model.path={embedded_model_dir('tiny_llama')}"]
    if "procedural:" not in config_file("dataset", dataset):
        cell += ["data.source=hub"]
    return cell


def layers(method: str) -> list[str]:
    """A list of layers is made for models of some depth: here the first, which every model has, stands for it."""
    return ["method.layers=[0]"] if re.search(r"^layers: \[", config_file("method", method), re.MULTILINE) else []


# --- what is there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "option"), FILES)
def test_every_file_says_what_it_is_and_bears_its_own_name(group: str, option: str) -> None:
    text = config_file(group, option)
    about = next(line for line in text.splitlines() if "@package" not in line)
    assert re.match(r"# \S.{10,}", about)
    if group in NAMED:
        assert re.search(rf"^name: {re.escape(option)}$", text, re.MULTILINE)


def test_every_option_composes_under_every_protocol(composed: list[Config]) -> None:
    seen = [cell_of(config) for config in composed]
    for place, axis in enumerate(AXES):
        assert {cell[place] for cell in seen} == set(GROUPS[axis])


def test_every_combination_is_valid(composed: list[Config]) -> None:
    # The axes meet in validation and in the interpolations of config.yaml, none of which reads the model.
    assert not [file for group, file in FILES if "${model" in config_file(group, file)]
    assert "${model" not in (conf_dir() / "config.yaml").read_text()
    models = {config.model.name: config.model for config in composed}
    for config, model in product(composed, models.values()):
        validate(replace(config, model=model))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", GROUPS["protocol"])
@pytest.mark.parametrize("model", GROUPS["model"])
def test_the_full_product_composes(model: str, protocol: str) -> None:
    for method, dataset in product(GROUPS["method"], GROUPS["dataset"]):
        config = compose(cell_overrides(model=model, method=method, dataset=dataset, protocol=protocol))
        assert cell_of(config) == (model, method, dataset, protocol)


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group, option in FILES if group in ("hardware", "logger", "debug")]
)
def test_the_other_options_compose(group: str, option: str) -> None:
    config = compose([f"{group}={option}"])
    assert group == "debug" or getattr(config, group).name == option


def test_a_run_takes_what_its_protocol_says_for_its_family_and_data_set(composed: list[Config]) -> None:
    for config in composed:
        protocol, training, dataset = config.protocol, config.training, config.dataset
        assert training.schedule == getattr(protocol.schedules[dataset.kind], config.method.family)
        assert training.epochs == protocol.epochs.get(dataset.name, dataset.default.epochs)
        assert training.max_tokens == protocol.max_tokens.get(dataset.name, dataset.default.max_tokens)
        assert training.batch_size == protocol.batch_size[dataset.kind]
        assert config.data.splits == dataset.splits[protocol.name]
        assert config.data.origin == dataset.origin(config.data.source)
        assert config.lr == config.method.lr


def test_the_two_protocols_differ_where_the_code_differs_from_the_paper() -> None:
    paper, released = compose(["dataset=boolq"]), compose(["dataset=boolq", "protocol=released"])
    assert paper.training.schedule == ScheduleConfig("constant", 0.0)
    assert released.training.schedule == ScheduleConfig("linear", 0.03)
    assert (paper.training.batch_size, released.training.batch_size) == (8, 16)
    assert (paper.training.max_tokens, released.training.max_tokens) == (None, 256)
    assert paper.data.splits.test == SplitConfig("validation", "whole", 0.0, False, 42)
    assert released.data.splits.test is not None and released.data.splits.test.keep == "held_out"


def test_numbers_are_numbers_however_they_are_typed() -> None:
    assert compose(["lr=1e-3"]).lr == compose(["lr=0.001"]).lr == 0.001
    assert compose(["lr=1"]).lr == 1.0
    assert compose(["method.layers=[0,2]"]).method.layers == [0, 2]


@pytest.mark.parametrize(("key", "allowed"), [(key, names) for key, names in choices().items() if "*" not in key])
def test_every_choice_passes_the_early_check(key: str, allowed: Collection[str | None]) -> None:
    names = ["null" if name is None else name for name in allowed]
    check_names([f"{key}={name}" for name in names])
    check_names([f"{key}={','.join(names)}"])
    check_names([f"{key}='{names[-1]}'", f"{key}=${{elsewhere}}"])


# --- identity ---------------------------------------------------------------------------------------------------

SETTINGS = {
    "hub": [
        "dataset.hub.path=me/boolq",
        "dataset.hub.config=other",
        "dataset.hub.revision=abc",
        "dataset.hub.rows.train=9",
    ],
    "local": ["dataset.local.folder=passages"],
    "procedural": [
        "dataset.procedural.seed=1",
        "dataset.procedural.rows.train=9",
        "dataset.procedural.difficulty.facts=3",
        "dataset.procedural.difficulty.traps=50",
    ],
}


@pytest.mark.parametrize("source", SETTINGS)
def test_the_settings_of_the_other_sources_do_not_count(source: str, tmp_path: Path) -> None:
    def identity_with(*overrides: str) -> str:
        config = compose(["dataset=boolq", f"data.source={source}", f"data.dir={tmp_path}", *overrides])
        assert config.data.origin == config.dataset.origin(source)
        return identity_of(config, ignore=ignored_keys())

    plain = identity_with()
    assert identity_with(*(setting for name in SETTINGS if name != source for setting in SETTINGS[name])) == plain
    own = [identity_with(setting) for setting in SETTINGS[source]]
    assert len({plain, *own}) == 1 + len(own)


# --- sweeps -----------------------------------------------------------------------------------------------------


@cache
def value_of(group: str, option: str, key: str) -> str:
    return str(unresolved([f"{group}={option}"])[group][key])


@pytest.mark.parametrize("name", GROUPS["sweep"])
def test_every_sweep_composes_and_has_a_grid_for_each_of_its_cells(name: str) -> None:
    sweep = compose([f"sweep={name}"]).sweep
    assert sweep.name == name
    check_names(sweep.overrides)
    for model, method in product(sweep.models, sweep.methods):
        scale, rates = value_of("model", model, "scale"), value_of("method", method, "rates")
        assert len(sweep.rates[scale][rates]) >= 1


def test_the_demo_expands_to_runs_that_its_overrides_reproduce() -> None:
    sweep = compose(["sweep=demo"]).sweep
    grid = expand_grid(sweep, compose)
    cells = product(sweep.models, sweep.methods, sweep.datasets)
    assert [(planned.cell.model, planned.cell.method, planned.cell.dataset) for planned in grid.cells] == list(cells)
    assert len({run.identity for run in grid.runs}) == len(grid.runs) == sum(len(cell.rates) for cell in grid.cells)
    run = grid.runs[-1]
    verify(run, compose(list(run.overrides)), grid)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.methods=[sft,pst_block]", r"unknown method 'pst_block'. Did you mean 'post_block'\?.*sweep.methods"),
        ("sweep.models=[tny]", r"unknown model 'tny'. Did you mean 'tiny'\?.*sweep.models"),
        ("sweep.datasets=[bolq]", r"unknown dataset 'bolq'. Did you mean 'boolq'\?.*sweep.datasets"),
        ("sweep.rates.tiny.sft=[]", r"sweep.rates.tiny.sft = \[\] is impossible: .*at least one learning rate"),
        ("sweep.rates.tiny.sft=[1e-3,-1]", r"sweep.rates.tiny.sft = \[0.001, -1.0\] .*positive"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(override: str, message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        compose(["sweep=demo", override])


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "got", "allowed", "near"),
    [
        (["methd.rank=1"], "methd.rank", "method, model, objective, profile, protocol", "method.rank"),
        (["method.rnk=4"], "method.rnk", "parameterization, rank, rates", "method.rank"),
        (["training.epoch=2"], "training.epoch", "epochs, max_steps", "training.epochs"),
        (
            ["data.limit.tran=2"],
            "data.limit.tran",
            "Allowed below 'data.limit': test, train, validation",
            "data.limit.train",
        ),
        (["data.source=procedurl"], "data.source 'procedurl'", "hub, local, procedural", "procedural"),
        (["stage=nope"], "stage 'nope'", "Allowed: evaluate, final, grid", None),
        (["stage=grid,fnal"], "stage 'fnal'", "final, grid", "final"),
        (["++training.precision=float16"], "training.precision 'float16'", "bfloat16, float32", "float16"),
        (["logger.mode=ofline"], "logger.mode 'ofline'", "null, offline, online", "offline"),
        (["stage=null"], "stage 'null'", "final, grid", None),
        (["data.source=${stage}"], "grid", "hub, local, procedural", None),
        (["data.origin={}"], "data.origin = {'rows': {}", "follows dataset.procedural", None),
        (["data.origin.seed=1"], "data.origin.seed", "dir, limit, origin", None),
        (["dataset.folder=x"], "dataset.folder", "hub, kind, local", "local.folder"),
        (["method=srt"], "srt", "lora_r8, post_block", "sft"),
        (["model=tny"], "tny", "random-llama", "tiny"),
        (["dataset=Boolq"], "Boolq", "arc_challenge, boolq", "boolq"),
        (["protocol=papr"], "papr", "paper, released", "paper"),
        (["method=post_block,srt"], "srt", "lora_r8, post_block", "sft"),
        (["method=null"], "null", "lora_r8, post_block", None),
        (["hydrax=1"], "hydrax", "adapter, analysis, data", None),
        (["model=tiny", "method=sft", "method.rank=4"], "method.rank", "family, kind, lr, name, rates", None),
        (["lr=abc"], "lr = abc", "a number", None),
        (["seed=1.5"], "seed = 1.5", "a whole number", None),
        (["lr=null"], "lr=null", "not Optional", None),
        (["training={batch_sise: 3}"], "training.batch_sise", "batch_size, clip", "training.batch_size"),
        (["dataset.procedural.difficulty.max_dept=3"], "max_dept", "max_args, max_depth", "max_depth"),
        (["method.family=other"], "method.family 'other'", "Allowed: joint, lora, sft, steering", None),
        (["lr"], "override 'lr'", "missing EQUAL", None),
    ],
)
def test_an_override_that_cannot_be_is_refused(overrides: list[str], got: str, allowed: str, near: str | None) -> None:
    with pytest.raises(ActshiftError) as refusal:
        compose(overrides)
    message = str(refusal.value)
    assert got in message
    assert allowed in message
    assert near is None or re.search(rf"Did you mean '[\w.]*{near}'\?", message)
    assert "\n" not in message
    assert "To append to your config" not in message  # Hydra's advice leads around the schema


@pytest.mark.parametrize(
    "overrides",
    [
        ["+foo=1"],
        ["++foo=1"],
        ["+data.limit.tran=1"],
        ["++training.max_step=3"],
        ["method=sft", "+method.rank=4"],
        ["method=sft", "++method.rank=4"],
        ["++training={max_step: 4}"],
        ["+model.shape.wdth=3"],
        ["+dataset.procedural.difficulty.max_dept=3"],
        ["+grid=tiny"],
        ["+method@foo=sft"],
        ["+method@model=sft"],
        ["+method=sft"],
    ],
)
def test_adding_is_no_way_around_the_schema(overrides: list[str]) -> None:
    with pytest.raises(ActshiftError):
        compose(overrides)


@pytest.mark.parametrize("override", ["~lr", "~seed", "~method", "~method.rank", "~data.limit", "~debug", "~foo"])
def test_nothing_can_be_deleted(override: str) -> None:
    with pytest.raises(ActshiftError, match=f"'{override}' deletes a key"):
        compose([override])


def test_adding_what_the_schema_leaves_free_is_allowed() -> None:
    config = compose(["+dataset.hub.rows.extra=7", "++lr=0.5"])
    assert config.dataset.hub.rows["extra"] == 7
    assert config.lr == 0.5


@settings(deadline=None, max_examples=40)
@given(key=st.sampled_from(LEAVES), data=st.data())
def test_a_key_with_a_letter_missing_is_refused_with_a_hint(key: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([place for place, letter in enumerate(key) if letter.isalpha()]))
    misspelt = key[:place] + key[place + 1 :]
    if is_known(misspelt) or misspelt.endswith("."):
        return
    with pytest.raises(ActshiftError, match=re.escape(f"'{misspelt}'")) as refusal:
        check_names([f"{misspelt}=1"])
    assert "Allowed" in str(refusal.value)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("rnk: 8\n", r"unknown config key 'method.rnk' in conf/method/post_block.yaml. Did you mean 'method.rank'\?"),
        ("activation: [1]\n", r"method/post_block.*'\[1\]' full_key: method.activation$"),
        ("lr: [\n", r"does not compose.*post_block.yaml"),
    ],
)
def test_a_broken_file_is_named(broken: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = shutil.copytree(conf_dir(), tmp_path / "conf")
    with (conf / "method" / "post_block.yaml").open("a") as file:
        file.write(broken)
    monkeypatch.setattr(composition, "conf_dir", lambda: conf)
    with pytest.raises(ActshiftError, match=message):
        compose(["method=post_block"])


def test_composing_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose([]) == compose([])
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_file_says_what_it_lacks_and_what_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes of a first YAML: no name, another name than the file's, bare yes and no as keys, no place on the hub."""
    conf = tmp_path / "conf"
    shutil.copytree(conf_dir(), conf)
    for module in ("composition", "groups"):
        monkeypatch.setattr(f"actshift.config.{module}.conf_dir", lambda: conf)
    whole = (conf / "dataset" / "sst2.yaml").read_text()

    def refusal(text: str, *overrides: str) -> str:
        (conf / "dataset" / "mine.yaml").write_text(text)
        with pytest.raises(ActshiftError) as refused:
            compose(["dataset=mine", "data.source=local", f"data.dir='{tmp_path}'", *overrides])
        return str(refused.value)

    assert "dataset.name has no value" in refusal(whole.replace("name: sst2\n", ""))
    assert "write 'name: mine'" in refusal(whole)
    named = whole.replace("name: sst2", "name: mine")
    bare = refusal(named.replace('{"0": negative, "1": positive}', "{yes: negative, no: positive}"))
    assert "dataset.template.labels" in bare
    assert "quotation marks" in bare
    nowhere = named.replace("  path: stanfordnlp/sst2\n", "")
    assert "mine has no dataset.hub.path" in refusal(nowhere, "data.source=hub")
    (conf / "dataset" / "mine.yaml").write_text(nowhere.replace("local: {folder: sst2}\n", ""))
    config = compose(["dataset=mine", "data.source=local", f"data.dir='{tmp_path}'"])
    assert config.dataset.local.folder == "mine"
