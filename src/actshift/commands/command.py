"""What a subcommand is, and arguments that several have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Command:
    """A subcommand: what its help says, an example, the function that does it, and its arguments.

    `handler` is a module of `actshift.commands` and a function, as in "reports.tables_command". `arguments` are keyword
    arguments of `argparse.ArgumentParser.add_argument` by name; one that begins with "-" is a flag. A command with
    `sweep` takes a sweep's name, and one with `overrides` takes Hydra's overrides, before or after its flags.
    """

    help: str
    handler: str
    example: str
    sweep: bool = False
    overrides: str | None = None
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


FLAG = {"action": "store_true"}
CSV = {"--csv": {"metavar": "FILE", "help": "write the table as CSV too"}}
MARKDOWN = {"--markdown": {"metavar": "FILE", "help": "write the table as Markdown too"}}
REPLAN = {"--replan": {**FLAG, "help": "replace a manifest that differs from the request"}}
RESULTS = "results=FOLDER, where it is not ./results"
EXTEND = {"--extend": {**FLAG, "help": "add a learning rate beyond every edge of a grid at which the best one lies"}}
EVERY_RUN = "Hydra overrides for every run"
