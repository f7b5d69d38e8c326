"""Write the numbers that other people's code gives, with where they come from.

    python tests/parity/make_expected.py steerer|lofit|jola CHECKOUT

`steerer` runs in the project's environment, `lofit` and `jola` in one of their own with the old transformers that they
need (pip install torch transformers==4.44.2): nothing of actshift is imported for these.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from reference import expected  # noqa: E402

REPOSITORIES = {
    "steerer": ("SprocketLab/steerling", "steerer.py"),
    "lofit": ("fc2869/lo-fit", "models/modeling_llama.py"),
    "jola": ("wenlai-lavine/jola", "jola/modeling_llama.py"),
}


def main(name: str, checkout: Path) -> None:
    torch.set_num_threads(1)
    repository, file = REPOSITORIES[name]
    commit = (checkout / "COMMIT").read_text().strip() if (checkout / "COMMIT").exists() else _head(checkout)
    provenance = {
        "repository": repository,
        "commit": commit,
        "file": file,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "command": f"python tests/parity/make_expected.py {name} CHECKOUT",
    }
    written = {"provenance": provenance, "cases": cases(name, checkout)}
    Path(__file__).with_name(f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
    print(f"{len(written['cases'])} cases")


def cases(name: str, checkout: Path) -> dict[str, Any]:
    if name == "steerer":
        from ours import filled
        from steerer_reference import CASES, measured

        models = ("random-llama", "random-qwen3", "random-gemma3")
        return {
            f"{model} {case}": expected(*measured(checkout, filled(model).model, case))
            for model in models
            for case in CASES
        }
    from heads_reference import CASES as HEADS
    from heads_reference import measured as measured_heads

    return {case: expected(*measured_heads(name, checkout, case)) for case in HEADS[name]}


def _head(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
