"""A sweep's needs: fetched once where there is a network, enough for everything afterwards, and missed by name."""

from __future__ import annotations

import json

from conftest import ROWS, TOKEN, Client, winogrande
from server import Hub

DATA = (
    "data.source=hub",
    "dataset.hub.revision=null",
    *(f"dataset.hub.rows.{split}={count}" for split, count in ROWS.items()),
)
MODEL = ("model.source=hub", "model.path=org/tiny", "model.revision=main")
SWEEP = ("smoke", "sweep.methods=[sft]", "sweep.datasets=[boolq]", "sweep.seeds=[42]", "hardware.workers=1")
SMALL = ("training.max_steps=2", "data.limit.validation=8", "data.limit.test=8", "training.validations=1")
RUN = ("run", "model=tiny", *MODEL, "dataset=boolq", *DATA, "debug=few_steps", "hardware.threads=1")

HUB_SPLITS = """
import json, sys
from actshift.composition import compose
from actshift.tasks.sources import hub_split
for overrides in json.loads(sys.argv[1]):
    config = compose([*overrides, "data.source=hub"])
    print(json.dumps(hub_split(config["dataset"], "validation", source="hub", directory=None).to_list()))
"""


def records(client: Client) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(client.results.glob("records/*.json"))]


def test_after_prefetching_a_sweep_runs_offline_to_its_table(hub: Hub, client: Client) -> None:
    said, _ = client.actshift("prefetch", *SWEEP, *MODEL, *DATA)
    assert "model org/tiny (revision main): 2." in said and "MB are to be downloaded" in said
    assert "dataset google/boolq (revision main): train 200 rows, validation 60 rows" in said
    client.assert_cache_is_whole()

    downloads = len([request for request in hub.requests if "/bytes/" in request.path])
    said, _ = client.actshift("prefetch", *SWEEP, *MODEL, *DATA)
    assert said.count("of which 0.00 MB are to be downloaded") == 2
    assert len([request for request in hub.requests if "/bytes/" in request.path]) == downloads

    hub.stop()
    client.more["HF_HUB_OFFLINE"] = "1"
    said, _ = client.actshift("sweep", *SWEEP, *SMALL, *MODEL, *DATA)
    assert "[2/2]" in said and (client.results / "tables" / "smoke.md").is_file()
    assert {record["provenance"]["source"] for record in records(client)} == {"hub"}  # type: ignore[index]
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
    _, complained = client.actshift("prefetch", *SWEEP, *MODEL, *DATA, code=2)
    assert "HF_HUB_OFFLINE is set, but prefetching needs the network" in complained


def test_checking_asks_no_network_and_names_what_is_not_there(hub: Hub, client: Client) -> None:
    _, complained = client.actshift("prefetch", "--check", *SWEEP, *MODEL, *DATA, code=1)
    assert complained.count("missing: ") == 2 and "org/tiny" in complained and "google/boolq" in complained
    assert hub.requests == []
    client.model("org/tiny")
    _, complained = client.actshift("prefetch", "--check", *SWEEP, *MODEL, *DATA, code=1)
    assert complained.count("missing: ") == 1 and "google/boolq" in complained


def test_all_problems_are_told_and_keep_nothing_else_from_being_fetched(hub: Hub, client: Client) -> None:
    wrong = ("model.path=org/gated", "dataset.hub.rows.train=201")
    said, complained = client.actshift("prefetch", *SWEEP, *MODEL, *DATA, *wrong, code=1)
    assert "missing: model org/gated (revision main) is gated: accept its licence" in complained
    assert "split 'train' has 200 rows, but 201 are expected" in complained
    assert TOKEN not in said + complained


def test_two_runs_at_once_share_an_empty_cache_and_both_finish(hub: Hub, client: Client) -> None:
    running = [client.start("-m", "actshift.cli", *RUN, f"seed={n}", f"results={client.results}") for n in (1, 2)]
    for process in running:
        said, complained = process.communicate(timeout=200)
        assert process.returncode == 0, said + complained
    assert {record["seed"] for record in records(client)} == {1, 2}
    client.assert_cache_is_whole()


def test_a_run_of_a_gated_model_stops_before_any_training(hub: Hub, client: Client) -> None:
    _, complained = client.actshift(*RUN, "model.path=org/gated", code=2)
    assert "is gated: accept its licence at" in complained and "`hf auth login`" in complained
    assert records(client) == [] and not list(client.results.rglob("*.safetensors"))


def test_data_are_those_of_the_revision_and_config_asked_for_offline_too(hub: Hub, client: Client) -> None:
    old, new = hub.repositories["datasets/google/boolq"].commits
    asked = [["dataset=boolq", *DATA[1:], f"dataset.hub.revision={revision}"] for revision in (old, new, old)] + [
        ["dataset=winogrande", "dataset.hub.revision=null", "dataset.hub.rows={train: 230, validation: 20}"]
    ]
    said, _ = client.call("-c", HUB_SPLITS, json.dumps(asked))
    first, second, again, debiased = [json.loads(line) for line in said.splitlines()]
    assert first == again != second
    assert [row["question"] for row in first[:30]] == [row["question"] for row in second[30:60]]
    assert debiased == [json.loads(line) for line in winogrande()["winogrande_debiased/validation.jsonl"].splitlines()]
    hub.stop()
    client.more["HF_HUB_OFFLINE"] = "1"
    assert client.call("-c", HUB_SPLITS, json.dumps(asked)) == (said, "")
