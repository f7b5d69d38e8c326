"""Write the numbers that other people's code gives, with where they come from.

    python tests/parity/make_expected.py steerer|steerer_variants|lofit|jola CHECKOUT COMMIT

CHECKOUT holds the repository as of COMMIT. Those of the steerer run in the project's environment, `lofit` and `jola`
each in one with torch and the transformers that its authors pin (4.39.2 and 4.45.1): nothing of actshift is imported
for these.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from reference import BASE, LOGITS, LOSSES, ROWS_SEED  # noqa: E402

SOURCES = {
    "steerer": ("SprocketLab/steerling", "steerer.py", "none"),
    "steerer_variants": ("SprocketLab/steerling", "steerer.py custom_trainer.py", "none"),
    "lofit": ("fc2869/lo-fit", "models/modeling_llama.py", "none"),
    "jola": ("wenlai-lavine/jola", "jola/modeling_llama.py", "none; in training torch.rand gives the noise by name"),
}
"""Repository, file, and what was changed about the code to run it."""


def main(name: str, checkout: Path, commit: str) -> None:
    torch.set_num_threads(1)
    repository, file, patches = SOURCES[name]
    provenance = {
        "made_by": f"tests/parity/make_expected.py {name}",
        "repository": f"github.com/{repository}",
        "commit": commit,
        "sha256": {each: hashlib.sha256((checkout / each).read_bytes()).hexdigest() for each in file.split()},
        "patches": patches,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "tensors": "by name, tests/parity/reference.py",
        "rows_seed": ROWS_SEED,
        "tolerance": {"logits": LOGITS, "logits_per_base": BASE, "losses": LOSSES},
    }
    written = {"provenance": provenance, **results(name, checkout)}
    Path(__file__).with_name(f"{name}.json").write_text(json.dumps(written, indent=1) + "\n")
    print(f"{len(written['cases'])} cases")


def results(name: str, checkout: Path) -> dict[str, Any]:
    """By base model, some logits; by case, some logits and ten losses."""
    if name == "steerer":
        import steerer_reference

        return steerer_reference.results(checkout)
    if name == "steerer_variants":
        import steerer_variants

        return steerer_variants.results(checkout)
    import heads_reference

    return heads_reference.results(name, checkout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
