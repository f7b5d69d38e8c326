"""A sweep's needs: fetched once where there is a network, enough for everything afterwards, and missed by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clients import ROWS, TOKEN, Client, winogrande
from server import Hub

from actshift.cli import main
from actshift.config.composition import compose
from actshift.data.sources import hub_split
from actshift.libraries.private import hub_offline

DATA = (
    "data.source=hub",
    "dataset.hub.revision=null",
    *(f"dataset.hub.rows.{split}={count}" for split, count in ROWS.items()),
)
MODEL = ("model.source=hub", "model.path=org/tiny", "model.revision=main")
SWEEP = ("smoke", "sweep.methods=[sft]", "sweep.datasets=[boolq]", "sweep.seeds=[42]")
SMALL = ("training.max_steps=2", "data.limit.validation=8", "data.limit.test=8", "training.validations=1")
RUN = ("run", "model=tiny", *MODEL, "dataset=boolq", *DATA, "debug=few_steps", "hardware.threads=1")

HUB_SPLITS = """
import json, sys
from actshift.config.composition import compose
from actshift.data.sources import hub_split
for overrides in json.loads(sys.argv[1]):
    config = compose([*overrides, "data.source=hub"])
    print(json.dumps(hub_split(config.dataset, "validation", source="hub", directory=None).to_list()))
"""


def records(client: Client) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(client.results.glob("records/*.json"))]


def downloads(hub: Hub) -> list[str]:
    return [request.path for request in hub.requests if request.method == "GET" and "/bytes/" in request.path]


def test_what_is_missing_is_named_and_once_prefetched_a_run_needs_no_network(hub: Hub, client: Client) -> None:
    client.model("org/tiny")
    before = len(hub.requests)
    _, complained = client.actshift("prefetch", "--check", *SWEEP, *MODEL, *DATA, code=1)
    assert complained.startswith("missing: dataset google/boolq (revision main) is not all in")
    assert complained.count("\n") == 1 and len(hub.requests) == before

    said, _ = client.actshift("prefetch", *SWEEP, *MODEL, *DATA)
    assert "model org/tiny (revision main): 2.05 MB, of which 0.00 MB are to be downloaded" in said
    assert "dataset google/boolq (revision main): train 200 rows, validation 60 rows" in said
    assert len(downloads(hub)) == 3  # one file of weights, two of rows: nothing twice
    client.assert_cache_is_whole()

    hub.stop()
    client.more["HF_HUB_OFFLINE"] = "1"
    client.actshift(*RUN)
    (record,) = records(client)
    assert record["provenance"]["source"] == "hub" and record["metrics"]["rows"] == 16
    # Both name a branch: the record says what it stood for.
    for kind, name in (("data_commit", "datasets/google/boolq"), ("model_commit", "models/org/tiny")):
        assert record["provenance"][kind] == hub.repositories[name].refs["main"]


@pytest.mark.slow
def test_after_prefetching_a_sweep_runs_offline_to_its_table(hub: Hub, client: Client) -> None:
    client.actshift("prefetch", *SWEEP, *MODEL, *DATA)
    fetched = downloads(hub)
    said, _ = client.actshift("prefetch", *SWEEP, *MODEL, *DATA)
    assert said.count("of which 0.00 MB are to be downloaded") == 2 and downloads(hub) == fetched

    hub.stop()
    client.more["HF_HUB_OFFLINE"] = "1"
    said, _ = client.actshift("sweep", *SWEEP, *SMALL, *MODEL, *DATA)
    assert "[2/2]" in said and (client.results / "tables" / "smoke.md").is_file()
    # What is done needs nothing: not even the cache.
    (client.home / "hf").rename(client.home / "gone")
    client.actshift("sweep", *SWEEP, *SMALL, *MODEL, *DATA)


def test_offline_with_an_empty_cache_nothing_starts_and_all_that_is_missing_is_named(client: Client) -> None:
    client.more["HF_HUB_OFFLINE"] = "1"
    _, complained = client.actshift("sweep", *SWEEP, *SMALL, *MODEL, *DATA, code=2)
    assert "nothing was started" in complained and "actshift prefetch" in complained
    assert "- model org/tiny (revision main) is not all in" in complained
    assert "- dataset google/boolq (revision main) is not all in" in complained
    assert not (client.results / "runs").exists() and records(client) == []


def test_all_problems_are_told_and_keep_nothing_else_from_being_fetched(hub: Hub, client: Client) -> None:
    wrong = ("model.path=org/gated", "dataset.hub.rows.train=201")
    said, complained = client.actshift("prefetch", *SWEEP, *MODEL, *DATA, *wrong, code=1)
    assert "missing: model org/gated (revision main) is gated: accept its licence" in complained
    assert "split 'train' has 200 rows, but 201 are expected" in complained
    assert TOKEN not in said + complained


@pytest.mark.slow
def test_two_runs_at_once_share_an_empty_cache_and_both_finish(hub: Hub, client: Client) -> None:
    running = [client.start("-m", "actshift.cli", *RUN, f"seed={n}", f"results={client.results}") for n in (1, 2)]
    for process in running:
        said, complained = process.communicate(timeout=200)
        assert process.returncode == 0, said + complained
    assert {record["seed"] for record in records(client)} == {1, 2}
    client.assert_cache_is_whole()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=org/gated", "model org/gated (revision main) is gated: accept its licence at"),
        ("model.revision=v9", "model org/tiny has no revision 'v9'"),
        ("dataset.hub.revision=v9", "dataset google/boolq has no revision 'v9'"),
    ],
)
def test_a_run_that_cannot_have_its_model_or_data_stops_before_any_training(
    client: Client, inside: None, capfd: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert main([*RUN, override, f"results={client.results}"]) == 2
    assert message in capfd.readouterr().err
    assert records(client) == [] and not list(client.results.rglob("*.safetensors"))


def test_data_are_those_of_the_revision_and_config_asked_for_offline_too(
    hub: Hub, client: Client, inside: None
) -> None:
    old, new = hub.repositories["datasets/google/boolq"].commits
    asked = [["dataset=boolq", *DATA[1:], f"dataset.hub.revision={revision}"] for revision in (old, new, old)] + [
        ["dataset=winogrande", "dataset.hub.revision=null", "dataset.hub.rows={train: 230, validation: 20}"]
    ]
    both = [client.start("-c", HUB_SPLITS, json.dumps(asked)) for _ in range(2)]  # at once, on one cache
    (said, _), other = [process.communicate(timeout=200) for process in both]
    assert other == (said, "")
    first, second, again, debiased = [json.loads(line) for line in said.splitlines()]
    assert first == again != second
    assert [row["question"] for row in first[:30]] == [row["question"] for row in second[30:60]]
    assert debiased == [json.loads(line) for line in winogrande()["winogrande_debiased/validation.jsonl"].splitlines()]
    hub.stop()
    with hub_offline():
        for overrides, rows in zip(asked, (first, second, again, debiased), strict=True):
            dataset = compose([*overrides, "data.source=hub"]).dataset
            assert hub_split(dataset, "validation", source="hub", directory=None).to_list() == rows
