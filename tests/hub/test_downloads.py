"""The files of one repository: downloaded once, whole or not at all, and refused in words that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

from clients import FOLDERS, TOKEN, Client, tiny
from server import Hub


def test_a_model_comes_without_pickles_and_code_and_only_once(hub: Hub, client: Client) -> None:
    folder = Path(client.model("org/tiny"))
    wanted = [name for name in tiny() if name.endswith((".json", ".safetensors")) and "/" not in name]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: tiny()[name] for name in wanted}
    assert not [request for request in hub.requests if request.path.endswith((".bin", ".pth", ".py"))]
    assert folder.name == hub.repositories["models/org/tiny"].refs["main"]
    client.assert_cache_is_whole()

    before = len(hub.requests)
    assert client.model("org/tiny", folder.name) == str(folder)  # a commit that is there needs the hub for nothing
    assert len(hub.requests) == before
    hub.stop()
    answers = client.folders(("model", "org/tiny", "main"), ("dataset", "google/boolq", "main"))
    assert answers[0] == str(folder)
    assert f"{hub.endpoint} cannot be reached: run `actshift prefetch <sweep>`" in answers[1]


def test_a_gated_model_without_access_names_licence_and_login_and_never_the_token(hub: Hub, client: Client) -> None:
    without = client.model("org/gated")
    assert f"model org/gated (revision main) is gated: accept its licence at {hub.endpoint}/org/gated" in without
    assert "`hf auth login`" in without
    client.token = "hf_" + "wr0ng" * 6
    assert "is gated and your account has no access to it: accept its licence" in client.model("org/gated")
    assert not list(client.cache.rglob("*.safetensors"))
    client.token = TOKEN
    assert (Path(client.model("org/gated")) / "model.safetensors").is_file()
    files = [path for path in client.home.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"hf_" in path.read_bytes()]


def test_what_is_not_to_be_had_is_refused_by_name(hub: Hub, client: Client) -> None:
    tag, commit, typo, name, folder, pickled = client.folders(
        ("model", "org/tiny", "v9"),
        ("dataset", "google/boolq", "0" * 40),
        ("model", "org/tny", "main"),
        ("model", "a/b/c", "main"),
        ("model", "./nowhere", "main"),
        ("model", "org/pickled", "main"),
    )
    page = f"{hub.endpoint}/org/tiny"
    assert f"no revision 'v9'. Set model.revision to a branch, tag or commit of {page}." in tag
    assert f"dataset google/boolq has no revision '{'0' * 40}'. Set dataset.hub.revision to" in commit
    assert "model org/tny (revision main) is not on the hub, or is private" in typo and "Set model.path=" in typo
    assert "model.path = a/b/c is no name on the hub" in name
    assert "model.path = ./nowhere is no folder" in folder
    assert "model org/pickled (revision main) has no safetensors files" in pickled
    assert hub.gets("pytorch_model.bin") == []


def test_a_connection_that_breaks_once_is_taken_up_where_it_broke(hub: Hub, client: Client) -> None:
    large = hub.repositories["models/org/large"]
    weights = large.commits[large.refs["main"]]["model.safetensors"]
    hub.broken_once["model.safetensors"] = len(weights) * 2 // 3
    assert (Path(client.model("org/large")) / "model.safetensors").read_bytes() == weights
    first, second = [request for request in hub.gets("model.safetensors") if request.status != 302]
    assert first.range is None and second.range is not None and second.status == 206
    client.assert_cache_is_whole()


def test_a_connection_that_always_breaks_leaves_nothing_half(hub: Hub, client: Client) -> None:
    hub.breaks["model.safetensors"] = 1000
    assert "refused: model org/tiny (revision main) could not be downloaded" in client.model("org/tiny")
    assert not list(client.cache.glob("*/snapshots/*/model.safetensors"))
    client.more["HF_HUB_OFFLINE"] = "1"
    assert "is not all in" in client.model("org/tiny")
    client.more.clear()
    hub.breaks.clear()
    assert (Path(client.model("org/tiny")) / "model.safetensors").read_bytes() == tiny()["model.safetensors"]
    client.assert_cache_is_whole()


def test_processes_that_download_the_same_at_once_all_find_it_whole(hub: Hub, client: Client) -> None:
    asked = json.dumps([("model", "org/tiny", "main")])
    running = [client.start("-c", FOLDERS, asked) for _ in range(4)]
    answers = [process.communicate(timeout=100) for process in running]
    commit = hub.repositories["models/org/tiny"].refs["main"]
    folder = client.cache / "models--org--tiny" / "snapshots" / commit
    assert answers == [(json.dumps([str(folder)]) + "\n", "")] * 4
    client.assert_cache_is_whole()
