"""A running hub, and a user of it, as processes or as this process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients import TOKEN, Client, boolq, tiny, winogrande
from server import Hub, repository


@pytest.fixture
def hub() -> Iterator[Hub]:
    repositories = {
        "models/org/tiny": repository({"config.json": b"{}"}, tiny()),
        # Large enough for the client to write down a part of it: it does so by 10 MiB.
        "models/org/large": repository({**tiny(), "model.safetensors": random.Random(0).randbytes(24 << 20)}),
        "models/org/gated": repository(tiny(), readers=(TOKEN,)),
        "models/org/pickled": repository({k: v for k, v in tiny().items() if not k.endswith(".safetensors")}),
        "datasets/google/boolq": repository(boolq(30), boolq()),
        "datasets/allenai/winogrande": repository(winogrande()),
    }
    with Hub(repositories) as running:
        yield running


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path)


@pytest.fixture
def inside(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as the client: the hub's and the data sets' libraries with their endpoint and caches set anew."""
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    huggingface_hub.close_session()  # the next one reads the variables
    monkeypatch.setattr(constants, "ENDPOINT", client.hub.endpoint)
    template = client.hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(client.cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(client.home / "token"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", client.home / "hf" / "datasets")
    yield
    huggingface_hub.close_session()
