"""Write released_scores.json: what the released scorers say of a sample of mutated real answers.

    python tests/parity/make_released_scores.py CHECKOUT COMMIT DATA

CHECKOUT holds github.com/SprocketLab/steerling as of COMMIT, DATA the real data sets.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

from mutations import pairs

from actshift.tasks import get_task

SCORES = Path(__file__).with_name("released_scores.json")
CLASSES = {
    "aqua": ("dataloaders", "AQuA", str),
    "arc_challenge": ("dataloaders", "ARC_Challenge", str),
    "boolq": ("dataloaders", "BoolQ", str),
    "gsm8k": ("dataloaders", "GSM8K", float),
    "listops": ("dataloaders_LRA", "ListOps", int),
    "winogrande": ("dataloaders", "Winogrande", int),
}
"""Where the released scorer of a task is, and the type in which it gets its label."""
SHARE, SHORT, DRAWN = 50, 200, 2000
"""Pairs kept of each task; the longest output, in characters; pairs that they are chosen from."""


def released_scorers(checkout: Path) -> dict[str, Callable[[str, str], bool]]:
    """By task, the released code's verdict on (output, label). Nothing is downloaded: no loader is made."""
    package = types.ModuleType("released_utils")
    package.__path__ = [str(checkout / "utils")]
    sys.modules["released_utils"] = package
    scorers = {}
    for name, (module, class_name, kind) in CLASSES.items():
        loader = getattr(importlib.import_module(f"released_utils.{module}"), class_name)
        blank = loader.__new__(loader)
        scorers[name] = lambda output, label, blank=blank, kind=kind: bool(blank.evaluate(output, kind(label)))
    return scorers


def main(checkout: Path, commit: str, data: Path) -> None:
    scorers, chosen = released_scorers(checkout), []
    mutated = [pair for pair in pairs(data, count=DRAWN) if len(pair[1]) <= SHORT]
    for name in CLASSES:
        drawn = [pair for pair in mutated if pair[0] == name]
        unequal = [pair for pair in drawn if get_task(name).score(*pair[1:]) != scorers[name](*pair[1:])]
        # A third of them where the paper's rule disagrees, as far as there are so many.
        chosen += [*unequal[: SHARE // 3], *(pair for pair in drawn if pair not in unequal)][:SHARE]
    sources = {path.name: path.read_bytes() for path in sorted((checkout / "utils").glob("dataloaders*.py"))}
    document = {
        "provenance": {
            "made_by": "tests/parity/make_released_scores.py",
            "repository": "github.com/SprocketLab/steerling",
            "commit": commit,
            "sha256": {name: hashlib.sha256(text).hexdigest() for name, text in sources.items()},
            "outputs": "answers of the public data sets, altered by tests/parity/mutations.py",
        },
        "columns": ["task", "output", "label", "verdict"],
        "rows": [[name, output, label, scorers[name](output, label)] for name, output, label in chosen],
    }
    rows = ",\n".join(json.dumps(row) for row in document.pop("rows"))
    head = json.dumps(document, indent=1).rstrip("}\n")
    SCORES.write_text(f'{head},\n "rows": [\n{rows}\n ]\n}}\n')


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
