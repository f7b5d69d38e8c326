"""Maps of the oracle's shift, its spectrum, and divergences along continuations, against what is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from adapted import base_of, composed

from actshift.analysis import continuations, maps, oracle
from actshift.analysis.activations import Places, batch_of, record, tokens_BT, tuned
from actshift.analysis.adapters import attached
from actshift.analysis.regression import explained
from actshift.cli import main
from actshift.data.examples import Example
from actshift.runtime.session import Session
from actshift.schema.analysis import OracleConfig
from actshift.training.batches import collate

MODEL = "random-llama"
ANALYSIS = OracleConfig("oracle", seed=0, ranks=[1, 2], ridge=0.0, steps=40)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def test_kinds_of_maps() -> None:
    assert list(maps.kinds(ANALYSIS, width=8)) == [
        "constant",
        "rank 1",
        "rank 2",
        "full",
        "SiLU, rank 1",
        "SiLU, rank 2",
    ]
    assert list(maps.kinds(replace(ANALYSIS, steps=0), width=2)) == ["constant", "rank 1", "full"]


def test_maps_find_what_they_can_express() -> None:
    x, new = random(6, 300), random(6, 50, seed=1)
    linear = random(6, 2, seed=2) @ random(2, 6, seed=3)
    found = {name: fit(x, linear @ x) for name, fit in maps.kinds(ANALYSIS, width=6).items()}
    assert explained(found["rank 2"](new), linear @ new) == pytest.approx(1.0)
    assert explained(found["full"](new), linear @ new) == pytest.approx(1.0)
    assert explained(found["rank 1"](new), linear @ new) < 0.999
    shift = random(6, 1, seed=4)
    constant = maps.constant(x, np.broadcast_to(shift, x.shape))
    np.testing.assert_allclose(constant(new), np.broadcast_to(shift, new.shape))


def test_a_hidden_layer_is_found_where_no_linear_map_suffices() -> None:
    x, new = random(4, 400), random(4, 200, seed=1)
    down, up = 2 * random(2, 4, seed=2), random(4, 2, seed=3)
    target = lambda inputs: up @ silu(down @ inputs)  # noqa: E731
    found = maps.hidden_layer(x, target(x), rank=2, steps=1500)
    linear = maps.kinds(ANALYSIS, width=4)["full"](x, target(x))
    assert explained(found(new), target(new)) > 0.99 > 0.95 > explained(linear(new), target(new))
    again = maps.hidden_layer(x, target(x), rank=2, steps=20)(new)
    np.testing.assert_array_equal(again, maps.hidden_layer(x, target(x), rank=2, steps=20)(new))


def test_spectrum_and_participation_ratio() -> None:
    """Two equal directions are two; with squares 9 and 1 the first has 0.9, and (9 + 1)^2 / (81 + 1) take part."""
    assert oracle.participation(np.array([4.0, 4.0, 0.0])) == pytest.approx(2.0)
    assert oracle.participation(np.array([9.0, 1.0])) == pytest.approx(100 / 82)
    shift = np.diag([3.0, 1.0, 0.0])
    rows = {(row[0], row[3]): row[4] for row in oracle._spectrum(shift, 0, replace(ANALYSIS, ranks=[1, 2, 64]))}
    assert rows == {
        ("spectrum", "first 1"): pytest.approx(0.9),
        ("spectrum", "first 2"): pytest.approx(1.0),
        ("directions", ""): pytest.approx(100 / 82),
    }


def test_maps_that_know_the_shift_steer_to_the_tuned_model() -> None:
    """A constant shift of every block is found layer by layer, each beside what those before it have brought."""
    config, base = composed("analysis=oracle", f"model={MODEL}", "dataset=listops", "hardware=cpu"), base_of(MODEL)
    rows = batch_of(config, base, rows=4, session=Session())
    width = base.sites.model_width
    shifts = {layer: 0.1 * random(width, 1, seed=layer) for layer in range(base.sites.layers)}
    truth = {layer: maps.constant(np.zeros((width, 1)), shift) for layer, shift in shifts.items()}
    seen: Places
    with maps.steered(base, truth):
        logits, seen = record(base, rows, sites=(maps.BLOCK,))
    found = maps.fit_all_layers(base, rows, seen, tokens_BT(rows), maps.constant)
    for layer, shift in shifts.items():
        np.testing.assert_allclose(found[layer](np.zeros((width, 1))), shift, atol=1e-4)
    with maps.steered(base, found), torch.no_grad():
        again = base.model(input_ids=rows.ids_BT).logits
    torch.testing.assert_close(again, logits, atol=1e-3, rtol=1e-3)
    plain, _ = record(base, rows, sites=())
    assert not torch.allclose(plain, logits, atol=1e-2), "and the hooks are taken away"


def test_steering_maps_are_in_the_oracles_frame() -> None:
    config = composed("analysis=oracle", f"model={MODEL}", "dataset=listops", "analysis.rows=8", "analysis.steps=5")
    frame = oracle.oracle(config)
    left = frame[frame["measure"].eq("kl_left") & frame["map"].str.endswith(" steers")].set_index("map")["value"]
    assert list(left.index) == [
        f"{name} steers" for name in maps.kinds(config.analysis, width=base_of(MODEL).sites.model_width)
    ]
    assert 0 < left["full steers"] < 1
    spectrum = frame[frame["measure"].eq("spectrum")]
    assert spectrum["value"].between(0, 1 + 1e-9).all() and set(spectrum["map"]) <= {"first 1", "first 8", "first 64"}
    assert frame[frame["measure"].eq("directions")]["value"].ge(1).all()


# Continuations


def test_divergences_are_taken_where_a_token_is_predicted() -> None:
    examples = [Example([1, 2, 3, 4, 5], 3, ""), Example([1, 2, 3], 2, "")]
    batch = collate(examples, pad_id=0, device=torch.device("cpu"))
    kl = torch.arange(10.0).view(2, 5)
    assert continuations._along(kl, batch) == [[2.0, 6.0], [3.0]]
    rows = list(continuations._summaries("m", [[2.0, 6.0], [3.0]]))
    half = 1.96 * 8**0.5 / 2**0.5
    assert rows[0] == ("m", 1, 2, 4.0, pytest.approx(4 - half), pytest.approx(4 + half))
    assert rows[1][:4] == ("m", 2, 1, 3.0) and np.isnan(rows[1][4])
    wanted, other = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()
    expected = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    found = continuations._divergences(wanted.view(1, 1, 2), other.view(1, 1, 2))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_the_fine_tuned_model_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    """The reference among the models it is compared with: 0 at every token of what it said itself."""
    small = ["debug=few_steps", "training.max_steps=2", f"results={tmp_path}"]
    axes = ["sweep.datasets=[listops]", "sweep.methods=[sft,reft]", "sweep.seeds=[1,2]"]
    rates = ["sweep.rates.tiny.sft=[0.001]", "sweep.rates.tiny.steering_r8=[0.01]"]
    assert main(["sweep", "shifts", *axes, *rates, *small]) == 0
    few = ["analysis.rows=3", "analysis.new_tokens=4", "analysis.steps=2"]
    asked = ["analyze", "continuations", "dataset=listops", "analysis.methods=[reft]", *few, f"results={tmp_path}"]
    assert main(asked) == 0
    frame = pd.read_csv(tmp_path / "analyses/continuations-tiny.csv")
    assert set(frame["model"]) == {
        "base model",
        "map: constant",
        "map: rank 8",
        "map: full",
        "map: SiLU, rank 8",
        "reft",
    }
    assert frame["token"].max() <= 4 and (frame["kl"] > 0).all()
    assert frame.loc[frame["model"].eq("base model"), "kl_left"].eq(1.0).all()
    config = composed(
        "analysis=continuations", "dataset=listops", "analysis.methods=[reft]", *few, f"results={tmp_path}"
    )
    reference, _ = continuations._adapters(config)
    assert reference.method == "sft" and reference.seed == 1
    session = Session()
    base = session.base(config)
    batch = continuations._continued(config, base, reference, session=session)
    lengths: list[Any] = [len(each.ids) - each.prompt_length for each in batch.examples]
    assert all(1 <= length <= 4 for length in lengths)
    wanted = continuations._log_probabilities(base, batch, attached(base, reference, batch.prompt_BT))
    for row, example in enumerate(batch.examples):
        greedy = wanted[row].argmax(-1).tolist()
        for place in range(example.prompt_length - 1, len(example.ids) - 1):
            assert greedy[place] == example.ids[place + 1], "they are its greedy continuations"
    again = continuations._log_probabilities(base, batch, attached(base, reference, batch.prompt_BT))
    assert float(continuations._divergences(wanted, again).abs().max()) < 1e-9
    with tuned(base, batch, replace(ANALYSIS, change=0.1)):
        changed = continuations._log_probabilities(base, batch, None)
    assert float(continuations._divergences(wanted, changed).max()) > 1e-3
