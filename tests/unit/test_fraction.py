"""Fractions of a factorial design: combinations, contrasts, and the plan that freezes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.methods.registry import steering_numbers
from actshift.paths import conf_dir
from actshift.planning.expand import expand_grid
from actshift.planning.fraction import Contrast, combinations, contrasts
from actshift.planning.manifests import Manifest, freeze, read_manifest
from actshift.schema.building import built
from actshift.schema.config import SweepConfig
from actshift.store.store import Store

SWEEP: dict[str, Any] = {
    "name": "small",
    "methods": ["sft", "lora_r8"],
    "fraction": {
        "factors": {
            "site": {"block": ["method.site=post_block"], "mlp": ["method.site=post_mlp"]},
            "scope": {"all": ["method.scope.kind=all"], "last": ["method.scope.kind=last_prompt"]},
            "map": {"linear": ["method=post_block"], "loreft": ["method=reft"]},
        },
        "blocks": [
            {"site": ["block", "mlp"], "scope": ["all", "last"], "map": ["linear"]},
            {"site": ["block", "mlp"], "scope": ["all"], "map": ["linear", "loreft"]},
        ],
        "contrasts": {
            "site": {"about": "where", "compares": {"site": ["block", "mlp"]}, "within": {}, "together": False},
            "both": {
                "about": "an interaction",
                "compares": {"site": ["block", "mlp"], "scope": ["all", "last"]},
                "within": {},
                "together": False,
            },
        },
    },
}


def changed(**fraction: Any) -> SweepConfig:
    return built(SweepConfig, SWEEP | {"fraction": SWEEP["fraction"] | fraction})


def test_blocks_are_products_and_what_two_of_them_have_stands_once() -> None:
    found = combinations(changed())
    assert list(found) == [
        *("block-all-linear", "block-last-linear", "mlp-all-linear", "mlp-last-linear"),
        *("block-all-loreft", "mlp-all-loreft"),
    ]
    assert found["mlp-last-linear"].method == "post_block"
    assert found["mlp-last-linear"].overrides == ("method.site=post_mlp", "method.scope.kind=last_prompt")


def test_the_pairs_of_a_contrast() -> None:
    there = {name: each.levels for name, each in combinations(changed()).items()}
    site, both = contrasts(changed())
    assert site.pairs(there) == [
        {"block-all-linear": 1, "mlp-all-linear": -1},
        {"block-last-linear": 1, "mlp-last-linear": -1},
        {"block-all-loreft": 1, "mlp-all-loreft": -1},
    ]
    assert both.pairs(there) == [
        {"block-all-linear": 1, "block-last-linear": -1, "mlp-all-linear": -1, "mlp-last-linear": 1}
    ]
    some = Contrast("some", "", {"site": ("block", "mlp")}, within={"map": ("loreft",)})
    assert some.pairs(there) == [{"block-all-loreft": 1, "mlp-all-loreft": -1}]
    at_once = Contrast("ours", "", {"site": ("block", "mlp"), "scope": ("all", "last")}, together=True)
    assert at_once.pairs(there) == [{"block-all-linear": 1, "mlp-last-linear": -1}]
    del there["mlp-last-linear"]
    assert both.pairs(there) == [] and len(site.pairs(there)) == 2


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        ({"blocks": [{"site": ["block"], "scope": ["all"]}]}, "levels of each of the factors site, scope, map"),
        ({"blocks": [{"site": ["blok"], "scope": ["all"], "map": ["linear"]}]}, "level of site.*Did you mean 'block'"),
        ({"factors": {"site": {"block": []}}, "blocks": [{"site": ["block"]}]}, "one override method=NAME"),
        ({"contrasts": {"x": {"about": "", "compares": {"sight": ["a", "b"]}, "within": {}}}}, "Did you mean 'site'"),
        ({"contrasts": {"x": {"about": "", "compares": {"site": ["block", "mpl"]}, "within": {}}}}, "mean 'mlp'"),
        ({"contrasts": {"x": {"about": "", "compares": {"site": ["block"]}, "within": {}}}}, "two levels of each"),
        (
            {"contrasts": {"x": {"about": "", "compares": {"site": ["block", "mlp"]}, "within": {"map": []}}}},
            "no combinations of the blocks differ so",
        ),
    ],
)
def test_what_is_refused(fraction: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        contrasts(changed(**fraction))


def plan(name: str) -> Manifest:
    sweep = compose([f"sweep={name}", *(["data.source=procedural"] if name == "study" else [])]).sweep
    return expand_grid(sweep, CachedComposer())


@pytest.fixture(scope="module")
def study() -> Manifest:
    return plan("study")


@pytest.fixture(scope="module")
def real() -> Manifest:
    return plan("study_135m")


def test_a_plan_keeps_levels_and_contrasts(study: Manifest, tmp_path: Path) -> None:
    store = Store(tmp_path)
    freeze(store, study)
    again = read_manifest(store.manifest_path("study", "grid"))
    assert again == study and again.to_text() == study.to_text()
    planned = next(each for each in again.cells if each.cell.method == "post_mlp-answer-every-linear")
    assert planned.levels == {
        "site": "post_mlp",
        "scope": "answer",
        "layers": "every",
        "parameterization": "linear",
    }
    assert planned.recorded.method == "post_block", "its runs are those of the method that it begins with"
    assert again.fraction is not None and len(again.fraction.contrasts) == 17 and len(again.fraction.blocks) == 5


@pytest.mark.parametrize("name", ["study", "real"])
def test_trained_numbers_are_equal_where_that_is_possible(name: str, request: pytest.FixtureRequest) -> None:
    manifest = request.getfixturevalue(name)
    composer, numbers = CachedComposer(), dict[str, set[int]]()
    for planned in manifest.cells:
        if planned.levels:
            config = composer(planned.variants[0].overrides)
            found = steering_numbers(config.method, config.model)
            numbers.setdefault(planned.levels["parameterization"], set()).add(found)
    shape = compose([f"model={manifest.models[0]}"]).model.shape
    budget = shape.layers * 16 * shape.width
    assert numbers["linear"] == {budget}, "at any site, scope and choice of layers"
    assert numbers["loreft"] == {budget + 8 * shape.layers}
    assert numbers["linear_r1"] == {budget // 8} and numbers["vector"] == {budget // 16}
    assert numbers.get("nonlinear", {budget}) == {budget}


def test_the_real_study_reuses_the_runs_of_the_real_tables(real: Manifest) -> None:
    """Table 1's are all among its combinations, ReFT at both of its scopes; Table 2's vector and rank 1; Table 4's."""
    identities = {run.identity for run in real.runs}
    first, second, fourth = (plan(f"real{table}") for table in (1, 2, 4))
    assert {run.identity for run in first.runs} <= identities
    reused = {run.cell.method for run in second.runs if run.identity in identities}
    assert reused == {"sft", "post_block_r1", "post_block_vector"}
    missing = {run.cell.method for run in fourth.runs if run.identity not in identities}
    assert missing == {"lora_r16"}


@pytest.mark.parametrize("name", ["study", "study_135m"])
def test_every_contrast_of_the_studies_bears_on_a_claim_that_is_there(name: str) -> None:
    from actshift.report.study.claims import CLAIMS

    file = yaml.safe_load((conf_dir() / "sweep" / f"{name}.yaml").read_text())
    claims = [contrast.get("claim") for contrast in file["fraction"]["contrasts"].values()]
    assert {claim for claim in claims if claim} == set(CLAIMS)
