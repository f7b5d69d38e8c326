"""Repositories with the tiny model and small data sets, and users of a hub with caches of their own.

The clients read their endpoint and cache folder when they are imported, so each use is a process.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from server import Files, Hub

from actshift.config.composition import compose
from actshift.data.sources import procedural_rows
from actshift.paths import embedded_model_dir

ROWS = {"train": 200, "validation": 60}
TOKEN = "hf_" + "s3cr3t" * 5

# Each asked-for (kind, path, revision) becomes the folder, or the message that refuses it.
FOLDERS = """
import json, sys
from actshift.errors import ActshiftError
from actshift.hub import Repository, folder, quiet

def outcome(asked):
    try:
        with quiet():
            return str(folder(Repository(*asked, key="model" if asked[0] == "model" else "dataset.hub")))
    except ActshiftError as error:
        return f"refused: {error}"

print(json.dumps([outcome(asked) for asked in json.loads(sys.argv[1])]))
"""


@cache
def tiny() -> dict[str, bytes]:
    """The embedded model as a repository, with what a repository holds beside it."""
    names = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    files = {name: (embedded_model_dir("tiny_llama") / name).read_bytes() for name in names}
    others = {"README.md": b"# tiny", "pytorch_model.bin": b"pickle", "original/params.json": b"{}"}
    return files | others | {"original/consolidated.00.pth": b"pickle", "modeling_tiny.py": b"raise SystemExit(3)"}


@cache
def rows(dataset: str, count: int) -> list[dict[str, Any]]:
    config = compose([f"dataset={dataset}", f"dataset.procedural.rows.train={count}"])
    return procedural_rows(config.dataset, "train")


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def card(configs: dict[str, dict[str, str]]) -> bytes:
    """The README of a data set: which files are which split of which config."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
    return "\n".join([*lines, "---", "# a data set", ""]).encode()


@cache
def boolq(first: int = 0) -> Files:
    """google/boolq as it is laid out: parquet files of one config. `first` shifts the rows, for another commit."""
    drawn = rows("boolq", 300)[first:]
    train, validation = drawn[: ROWS["train"]], drawn[ROWS["train"] : sum(ROWS.values())]
    readme = card({"default": {"train": "data/train-*", "validation": "data/validation-*"}})
    name = "data/{}-00000-of-00001.parquet"
    return {
        "README.md": readme,
        name.format("train"): parquet(train),
        name.format("validation"): parquet(validation),
        "boolq.py": b"raise SystemExit(3)",
    }


@cache
def winogrande() -> Files:
    """Two configs as JSON lines, the second of which is the one that conf/dataset/winogrande.yaml takes."""
    drawn = rows("winogrande", 300)
    parts = {"winogrande_xl": drawn[250:], "winogrande_debiased": drawn[:250]}
    files = {"README.md": card({c: {s: f"{c}/{s}.jsonl" for s in ROWS} for c in parts})}
    for config, part in parts.items():
        files |= {f"{config}/train.jsonl": jsonl(part[:-20]), f"{config}/validation.jsonl": jsonl(part[-20:])}
    return files


@dataclass
class Client:
    """A user of a hub: a cache folder, a results folder, and perhaps a token."""

    hub: Hub
    home: Path
    token: str | None = None
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        own = {"HF_HOME": str(self.home / "hf"), "HF_ENDPOINT": self.hub.endpoint, "HOME": str(self.home)}
        more = {
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            **self.more,
        }
        return {**clean, **own, **more, **({"HF_TOKEN": self.token} if self.token else {})}

    @property
    def results(self) -> Path:
        return self.home / "results"

    @property
    def cache(self) -> Path:
        return self.home / "hf" / "hub"

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            env=self.environment,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *command: str, code: int = 0) -> tuple[str, str]:
        """What a Python process says on stdout and on stderr; it has to end with this exit code."""
        process = self.start(*command)
        said, complained = process.communicate(timeout=200)
        assert process.returncode == code, said + complained
        return said, complained

    def actshift(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        return self.call("-m", "actshift.cli", *arguments, f"results={self.results}", code=code)

    def folders(self, *asked: tuple[str, str, str]) -> list[str]:
        """What `actshift.hub.folder` answers in a process of its own, a folder or `refused: ...`, to each of these."""
        said, complained = self.call("-c", FOLDERS, json.dumps(asked))
        assert complained == ""
        answers: list[str] = json.loads(said)
        return answers

    def model(self, name: str, revision: str = "main") -> str:
        return self.folders(("model", name, revision))[0]

    def assert_cache_is_whole(self) -> None:
        """Every link of a snapshot leads to a blob whose content is what its name, a digest, says."""
        links = [path for path in self.cache.glob("*/snapshots/*/**/*") if not path.is_dir()]
        assert links
        for link in links:
            content, name = link.read_bytes(), link.resolve().name
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            assert name in (hashlib.sha256(content).hexdigest(), blob), link
