"""What changes a run's identity, and what must not."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actshift.config import identity
from actshift.config.identity import changed_keys, hashed_part, identity_of, ignored_keys
from actshift.errors import ActshiftError

NAMES = st.sampled_from(["lr", "seed", "rank", "name", "kind", "ä", "hardware"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5).filter(lambda text: text != "???")
VALUES = SCALARS | st.floats(allow_nan=False, allow_infinity=False) | st.lists(SCALARS, max_size=3)
CONFIGS = st.recursive(
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    lambda inner: st.dictionaries(NAMES, VALUES | inner, min_size=1, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict):
        return value
    items = list(value.items())
    rng.shuffle(items)
    return {key: shuffled(inner, rng) for key, inner in items}


def leaves(value: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, inner in value.items():
        found += leaves(inner, (*prefix, key)) if isinstance(inner, dict) and inner else [(*prefix, key)]
    return found


def put(config: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


@given(CONFIGS, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(config: dict[str, Any], rng: random.Random) -> None:
    assert identity_of(shuffled(config, rng), ignore=()) == identity_of(config, ignore=())


@given(st.integers(min_value=-(2**53), max_value=2**53))
def test_a_whole_number_is_the_same_as_int_and_as_float(number: int) -> None:
    assert identity_of({"lr": number}, ignore=()) == identity_of({"lr": float(number)}, ignore=())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_same_however_it_is_written(number: float) -> None:
    written = [float(text) for text in (repr(number), f"{number:.17e}", json.dumps(number))]
    assert len({identity_of({"lr": value}, ignore=()) for value in (number, *written)}) == 1


def test_near_values_of_different_kinds_are_different_runs() -> None:
    values: list[Any] = [0, 1, True, False, None, "", "0", "1", "true", "null", [], [1], [[1]], {}, 2**53, 2**53 + 1]
    values += [0.001, 0.0010000000000000002]
    assert len({identity_of({"key": value}, ignore=()) for value in values}) == len(values)


@given(CONFIGS, st.data())
def test_any_counted_key_changes_it(config: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(config)))
    assert identity_of(put(config, path, "another value"), ignore=()) != identity_of(config, ignore=())


@given(CONFIGS, st.data())
def test_an_ignored_key_never_changes_it_whatever_it_holds(config: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(config)))
    ignore = [".".join(path)]
    other = put(config, path, data.draw(VALUES | CONFIGS))
    assert identity_of(other, ignore=ignore) == identity_of(config, ignore=ignore)
    odd = put(config, path, math.nan)
    assert identity_of(odd, ignore=ignore) == identity_of(config, ignore=ignore)


@given(CONFIGS, CONFIGS)
def test_changed_keys_are_empty_exactly_where_the_identity_is_the_same(
    one: dict[str, Any], two: dict[str, Any]
) -> None:
    assert changed_keys(one, one) == []
    assert (not changed_keys(one, two)) == (identity_of(one, ignore=()) == identity_of(two, ignore=()))


@given(CONFIGS)
def test_the_counted_part_survives_json_and_names_the_run(config: dict[str, Any]) -> None:
    part = hashed_part(config, ignore=["hardware"])
    assert "hardware" not in part
    assert json.loads(json.dumps(part)) == part
    assert identity_of(part, ignore=()) == identity_of(config, ignore=["hardware"])


def test_a_prefix_of_an_ignored_key_counts_and_an_ignored_group_goes_whole() -> None:
    config = {"data": {"dir": "/a", "source": "hub"}, "data_dir": 1, "hardware": {"device": "cpu"}}
    assert hashed_part(config, ignore=["data.dir", "hardware"]) == {"data": {"source": "hub"}, "data_dir": 1}


def test_a_new_group_of_ignored_keys_changes_no_identity() -> None:
    assert identity_of({"a": 1, "b": {"watch": 2}}, ignore=["b.watch"]) == identity_of({"a": 1}, ignore=["b.watch"])


@given(CONFIGS, st.data())
def test_a_key_ignored_at_one_value_counts_at_any_other(config: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(leaves(config)))
    value, other = data.draw(st.lists(SCALARS, min_size=2, max_size=2, unique_by=lambda each: (type(each), each)))
    text = value if isinstance(value, str) else json.dumps(value)
    ignore = [f"{'.'.join(path)}={text}"]
    absent = identity_of(config, ignore=[".".join(path)])
    assert identity_of(put(config, path, value), ignore=ignore) == absent
    if (other if isinstance(other, str) else json.dumps(other)) != text:
        assert identity_of(put(config, path, other), ignore=ignore) != absent


def test_a_value_is_ignored_however_it_is_written() -> None:
    for value in (1, 1.0, 10e-1):
        assert hashed_part({"a": {"b": value}, "c": 2}, ignore=["a.b=1"]) == {"c": 2}
    assert hashed_part({"a": {"b": True}}, ignore=["a.b=true"]) == {}
    assert hashed_part({"a": {"b": None}}, ignore=["a.b=null"]) == {}
    assert hashed_part({"a": {"b": "x"}}, ignore=["a.b=y", "a.c=x", "b=x"]) == {"a": {"b": "x"}}


def test_it_is_sixteen_hex_digits_and_does_not_change_between_versions() -> None:
    assert identity_of({"lr": 0.001, "seed": 42, "name": "é"}, ignore=()) == "ead0240c04bc3b2e"


@pytest.mark.parametrize("value", [math.nan, math.inf, "???", Path("/data"), {1, 2}, b"x"])
def test_a_value_that_cannot_identify_a_run_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ActshiftError, match=r"config key method\.rank"):
        identity_of({"method": {"rank": value}}, ignore=())


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(ActshiftError, match="keys must be strings"):
        identity_of({"epochs": {1: 2}}, ignore=())


def test_changed_keys_name_both_values_and_what_is_absent() -> None:
    old = {"lr": 0.001, "method": {"rank": 8, "site": "post_block"}, "layers": [1, 2], "same": 1.0}
    new = {"lr": 1e-3, "method": {"rank": 4, "alpha": None}, "layers": [2, 1], "same": 1}
    assert changed_keys(old, new) == [
        "layers: [1,2] -> [2,1]",
        "method.alpha: (absent) -> null",
        "method.rank: 8 -> 4",
        'method.site: "post_block" -> (absent)',
    ]


def test_the_ignored_keys_are_read_from_conf() -> None:
    keys = ignored_keys()
    assert {"stage", "results", "hardware", "logger", "data.dir"} <= set(keys)
    assert not {"lr", "seed", "model", "method", "dataset", "protocol", "training", "data"} & set(keys)


def test_of_the_three_sources_only_the_chosen_ones_settings_count() -> None:
    sources = {"hub": {"path": "a/b", "revision": None}, "local": {"folder": "b"}, "procedural": {"seed": 0}}
    another = {"hub": {"path": "a/b", "revision": "abc"}, "local": {"folder": "c"}, "procedural": {"seed": 1}}

    def identity_with(settings: dict[str, Any], source: str) -> str:
        config = {"dataset": {"name": "b", **settings}, "data": {"source": source, "origin": settings[source]}}
        return identity_of(config, ignore=ignored_keys())

    for source in sources:
        whole = identity_with(sources, source)
        assert identity_with({**another, source: sources[source]}, source) == whole
        assert identity_with({**sources, source: another[source]}, source) != whole
    assert len({identity_with(sources, source) for source in sources}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ignore: [stage, hardwear]", "unknown ignored config key 'hardwear'. Did you mean 'hardware'"),
        ("ignore: [data.dri]", r"unknown ignored config key 'data.dri'. Did you mean 'data.dir'"),
        ("ignore: [lr.rate]", "unknown ignored config key 'lr.rate'"),
        ("ignore: [training.optimiser=adamw]", r"unknown ignored config key 'training.optimiser'. Did you mean"),
        ("ignore: [training.optimizer=adam]", r"unknown ignored value of training.optimizer 'adam'. Did you mean"),
        ("ignored: [stage]", "must hold one key, 'ignore'"),
        ("[stage]", "must hold one key, 'ignore'"),
    ],
)
def test_an_ignored_key_that_no_config_has_is_an_error(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "identity.yaml").write_text(text)
    monkeypatch.setattr(identity, "conf_dir", lambda: tmp_path)
    with pytest.raises(ActshiftError, match=message) as caught:
        ignored_keys()
    assert str(tmp_path) in str(caught.value)


def test_ignored_keys_below_a_free_name_and_of_one_method_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "identity.yaml").write_text("ignore: [protocol.epochs.boolq, method.rank, dataset.hub.rows]")
    monkeypatch.setattr(identity, "conf_dir", lambda: tmp_path)
    assert ignored_keys() == ["protocol.epochs.boolq", "method.rank", "dataset.hub.rows"]
