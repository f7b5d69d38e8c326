"""The `actshift` command. Each subcommand imports what it needs when it is called, so that help is immediate."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import UNFINISHED

EPILOG = "Overrides are Hydra's: `method=sft lr=1e-3 training.epochs=2`. `actshift list` shows what exists."


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

COMMANDS = {
    "run": Command(
        "one run: train, evaluate, record (Hydra's flags: --cfg job, -m)",
        "runs.run_command",
        "actshift run method=sft dataset=boolq lr=1e-3",
        overrides="Hydra overrides and flags",
    ),
    "sweep": Command(
        "do a whole table: grid, selection, final, tables",
        "runs.sweep_command",
        "actshift sweep smoke",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={"--retry": {**FLAG, "help": "try failed runs again"}, **REPLAN},
    ),
    "plan": Command(
        "freeze a table's grid, and print its counts and what it will cost",
        "runs.plan_command",
        "actshift plan table1 hardware=a100-80gb",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={**REPLAN, **EXTEND},
    ),
    "select": Command(
        "choose learning rates by validation",
        "runs.select_command",
        "actshift select smoke",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={"--allow-missing": {**FLAG, "help": "select though runs are missing, and say so in the table"}},
    ),
    "prefetch": Command(
        "bring a table's weights, tokenizers and data to the hub's cache, where there is a network",
        "runs.prefetch_command",
        "actshift prefetch table1 --check",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={"--check": {**FLAG, "help": "without a network: name what is missing"}},
    ),
    "submit": Command(
        "do a whole table as jobs of a SLURM cluster",
        "runs.submit_command",
        "actshift submit smoke --dry-run profile=cpu",
        sweep=True,
        overrides="Hydra overrides for every run; profile=NAME takes one file of slurm/profiles for all models",
        arguments={
            "--dry-run": {**FLAG, "help": "print the script and the calls of sbatch"},
            **REPLAN,
            "--slurm": {"metavar": "FOLDER", "help": "a folder of your own with array.sbatch and profiles/"},
        },
    ),
    "retry": Command(
        "make a table's failed runs missing again",
        "runs.retry_command",
        "actshift retry table1",
        sweep=True,
        overrides=EVERY_RUN,
    ),
    "status": Command(
        "states of a table's runs, from files alone",
        "runs.status_command",
        "actshift status smoke --json",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={
            "--watch": {**FLAG, "help": "print it anew every few seconds"},
            "--json": {**FLAG, "help": "print it for a program to read"},
        },
    ),
    "tables": Command(
        "write a table from its records and print it (table11 to table13: the standard deviations)",
        "reports.tables_command",
        "actshift tables table1 --variant gap",
        sweep=True,
        overrides=EVERY_RUN,
        arguments={
            "--variant": {
                "default": "ours",
                "metavar": "NAME",
                "help": "what is printed: ours, paper (as printed there), gap (both), std (standard deviations)",
            }
        },
    ),
    "figures": Command(
        "draw a table's figures from its records",
        "reports.figures_command",
        "actshift figures smoke",
        sweep=True,
        overrides=EVERY_RUN,
    ),
    "report": Command(
        "one HTML page with every planned table, its evidence and the audit",
        "reports.report_command",
        "actshift report --tables",
        overrides=RESULTS,
        arguments={
            "--out": {"metavar": "FILE", "help": "the page (FOLDER/report.html by default)"},
            "--tables": {**FLAG, "help": "write the files of every table too (FOLDER/tables)"},
        },
    ),
    "show": Command(
        "one row as the model will see it: text, tokens, what is trained, where scopes act, how it is scored",
        "inspection.show_command",
        "actshift show dataset=gsm8k protocol=paper row=3",
        overrides="dataset=A protocol=B row=N split=train|validation|test ...",
    ),
    "lengths": Command(
        "rows and lengths in tokens of every data set, and what each protocol's limit does to them",
        "inspection.lengths_command",
        "actshift lengths dataset=boolq,gsm8k --csv lengths.csv",
        overrides="dataset=A,B protocol=A,B model=A data.source=...",
        arguments={
            "--tokenizer": {"metavar": "FOLDER", "help": "another tokenizer than the model's"},
            **CSV,
            **MARKDOWN,
        },
    ),
    "overlaps": Command(
        "questions that splits share, within data sets and across them",
        "inspection.overlaps_command",
        "actshift overlaps data.source=local data.dir=FOLDER",
        overrides="data.source=hub, or data.source=local data.dir=FOLDER; dataset=A,B",
    ),
    "adapters": Command(
        "the trained adapters of a results folder",
        "inspection.adapters_command",
        "actshift adapters results=FOLDER",
        overrides=RESULTS,
    ),
    "score": Command(
        "score a predictions file again, without a model",
        "inspection.score_command",
        "actshift score results/runs/IDENTITY/predictions-test.jsonl",
        arguments={
            "file": {"metavar": "PREDICTIONS.jsonl", "help": "runs/<identity>/predictions-<split>.jsonl of a run"},
            "--task": {"help": "the task, where the file lies in no run's folder"},
            "--rule": {"help": "paper or released, where it is not the run's own"},
        },
    ),
    "params": Command(
        "trainable parameters by method and model, and what the paper prints",
        "reports.params_command",
        "actshift params model=llama3.2-1b method=lora_r8,jola",
        overrides="model=A,B method=A,B: some models or methods only",
        arguments={**CSV, **MARKDOWN},
    ),
    "memory": Command(
        "peak memory by model and method, estimated and measured, and the cards that hold it",
        "reports.memory_command",
        "actshift memory model=llama3.1-8b training.precision=bfloat16",
        overrides="model=A,B method=A,B; dataset=A (the longest rows), hardware=A, training.precision=bfloat16 ...",
        arguments={**CSV, **MARKDOWN},
    ),
    "analyze": Command(
        "theory (every statement of the paper, evaluated), oracle, overlap (Figure 3)",
        "analyses.analyze_command",
        "actshift analyze theory analysis.seed=1",
        overrides="Hydra overrides: model=A dataset=B analysis.rows=N results=FOLDER ...",
        arguments={"name": {"metavar": "NAME", "help": "a file of conf/analysis without .yaml"}},
    ),
    "audit": Command(
        "the paper's numbers against themselves and what can be computed",
        "reports.audit_command",
        "actshift audit --out docs",
        arguments={"--out": {"metavar": "FOLDER", "help": "write audit.md and audit.csv there"}},
    ),
    "sync": Command(
        "send what runs mirrored offline (logger=wandb) to Weights & Biases",
        "runs.sync_command",
        "actshift sync",
        overrides=RESULTS,
    ),
    "list": Command(
        "what exists: models, methods, data sets, protocols, sweeps",
        "inspection.list_command",
        "actshift list method",
        arguments={"group": {"nargs": "?", "help": "one group only"}},
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 where runs failed, 2 where the request was wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["run"]:
            # Everything after `run` is Hydra's, its flags included.
            from actshift.commands.runs import run_command

            return run_command(arguments[1:])
        # Intermixed: overrides stand before and after flags.
        parser = _parser()
        known, rest = parser.parse_known_args(arguments)
        return _handler(COMMANDS[known.verb].handler)(_with_rest(known, rest, parser=parser))
    except ActshiftError as error:
        print(f"actshift: {error}", file=sys.stderr)
        return 2
    except (OSError, UnicodeEncodeError) as error:
        print(f"actshift: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("actshift: interrupted; what is done is kept, the same command goes on from here", file=sys.stderr)
        return 130


def _sentence(error: OSError | UnicodeEncodeError) -> str:
    """What a file system or a terminal refused, and what to do, where no other message was better."""
    if isinstance(error, UnicodeEncodeError):
        return f"this terminal cannot print {error.object[error.start : error.end]!r}: set PYTHONIOENCODING=utf-8"
    path = Path(error.filename) if error.filename else None
    if path is not None and path.name.endswith(UNFINISHED):  # a hidden file that a reader never meets
        path = path.parent
    where = f"{path}: " if path else ""
    remedy = REMEDIES.get(error.errno or 0, "Check that path")
    return f"{where}{error.strerror or error}. {remedy}; the same command then goes on."


_NO_ROOM, _NO_RIGHT = "Make room", "Give yourself the right to it, or name another folder with results=..."
REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: "A part of that path is a file: move it away, or name another folder",
    errno.EISDIR: "It is a folder, and a file is needed: name a file",
    errno.ENOENT: "There is no such file or folder: name one that exists",
}
"""What to do about an error of the file system, by its number."""


def _with_rest(
    known: argparse.Namespace, rest: Sequence[str], *, parser: argparse.ArgumentParser
) -> argparse.Namespace:
    """The parsed request with the overrides that stand after its flags; anything else there is an error."""
    if rest and (COMMANDS[known.verb].overrides is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        known.overrides = [*known.overrides, *rest]
    return known


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """The function of `actshift.commands` that a command names, as in "reports.tables_command"."""
    theme, _, name = command.partition(".")
    handler: Callable[[argparse.Namespace], int] = getattr(import_module(f"actshift.commands.{theme}"), name)
    return handler


def _parser() -> argparse.ArgumentParser:
    about = "Experiments with adaptation methods: runs, sweeps, tables with their evidence."
    parser = argparse.ArgumentParser(prog="actshift", description=about, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"actshift {version('actshift')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="command")
    for verb, command in COMMANDS.items():
        epilog = f"Example: {command.example}" + (f". {EPILOG}" if command.overrides else "")
        sub = verbs.add_parser(verb, help=command.help, description=f"{command.help}.", epilog=epilog)
        if command.sweep:
            sub.add_argument("sweep", help="a file of conf/sweep without .yaml, or the name of a planned sweep")
        flags = {name: options for name, options in command.arguments.items() if name.startswith("-")}
        for name in command.arguments.keys() - flags.keys():  # what stands by its place comes before overrides
            sub.add_argument(name, **command.arguments[name])
        if command.overrides:
            sub.add_argument("overrides", nargs="*", help=command.overrides)
        for name, options in flags.items():
            sub.add_argument(name, **options)
    return parser


if __name__ == "__main__":
    sys.exit(main())
