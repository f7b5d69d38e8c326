"""Identities of the shipped sweeps: whoever changes them orphans every record that users have."""

from __future__ import annotations

import pytest
from pytest_regressions.data_regression import DataRegressionFixture

from actshift.config.composition import compose
from actshift.planning.expand import expand_grid


@pytest.mark.parametrize("sweep", ["demo"])
def test_identities_are_the_published_ones(sweep: str, data_regression: DataRegressionFixture) -> None:
    """After a change that is meant: raise the `version` or `revision` of what changed, and `make golden`."""
    manifest = expand_grid(compose([f"sweep={sweep}"]).sweep, compose)
    data_regression.check({f"{run.cell} lr={run.lr:g} seed={run.seed}": run.identity for run in manifest.runs})


def test_a_run_of_the_paper_keeps_its_identity(data_regression: DataRegressionFixture) -> None:
    from actshift.config.identity import identity_of, ignored_keys

    cells = [
        ("llama3.2-1b", "sft", "boolq"),
        ("gemma3-1b", "lora_r8", "gsm8k"),
        ("llama3.1-8b", "post_block", "listops"),
    ]
    identities = {}
    for model, method, dataset in cells:
        config = compose([f"model={model}", f"method={method}", f"dataset={dataset}", "data.source=hub", "lr=1e-3"])
        identities[f"{model} {method} {dataset}"] = identity_of(config, ignore=ignored_keys())
    data_regression.check(identities)
