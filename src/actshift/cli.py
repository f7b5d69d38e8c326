"""The `actshift` command. Each subcommand imports what it needs when it is called, so that help is immediate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from actshift.errors import ActshiftError

EPILOG = "Overrides are Hydra's: `method=sft lr=1e-3 training.epochs=2`. `actshift list` shows what exists."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 where runs failed, 2 where the request was wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["run"]:
            # Everything behind `run` is Hydra's, its flags included.
            from actshift.commands.runs import run_command

            return run_command(arguments[1:])
        parsed = _parser().parse_args(arguments)
        return _handler(parsed.command)(parsed)
    except ActshiftError as error:
        print(f"actshift: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("actshift: interrupted; what is done is kept, the same command goes on from here", file=sys.stderr)
        return 130


def _handler(command: str) -> Callable[[argparse.Namespace], int]:
    """The function of `actshift.commands` that a subcommand names, as in "reports.tables_command"."""
    theme, _, name = command.partition(".")
    handler: Callable[[argparse.Namespace], int] = getattr(import_module(f"actshift.commands.{theme}"), name)
    return handler


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="actshift", description=__doc__.splitlines()[0], epilog=EPILOG)
    commands = parser.add_subparsers(dest="verb", required=True, metavar="command")
    commands.add_parser("run", help="one run: train, evaluate, record (Hydra flags: --cfg job, -m)", add_help=False)
    about = "do a whole table: grid, selection, final, tables"
    sweep = _sweep_parser(commands, "sweep", about, handler="runs.sweep_command")
    sweep.add_argument("--retry", action="store_true", help="try failed runs again")
    sweep.add_argument("--replan", action="store_true", help="replace a manifest that differs from the request")
    plan = _sweep_parser(commands, "plan", "freeze a table's grid and print its counts", handler="runs.plan_command")
    plan.add_argument("--replan", action="store_true", help="replace a manifest that differs from the request")
    select = _sweep_parser(commands, "select", "choose learning rates by validation", handler="runs.select_command")
    select.add_argument("--allow-missing", action="store_true", help="select though runs are missing, and say so")
    about = "bring a table's weights, tokenizers and data to the hub's cache, where there is a network"
    prefetch = _sweep_parser(commands, "prefetch", about, handler="runs.prefetch_command")
    prefetch.add_argument("--check", action="store_true", help="without a network: name what is not there")
    about = "do a whole table as jobs of a SLURM cluster"
    submit = _sweep_parser(commands, "submit", about, handler="runs.submit_command")
    submit.add_argument("--dry-run", action="store_true", help="print the script and the calls of sbatch")
    submit.add_argument("--replan", action="store_true", help="replace a manifest that differs from the request")
    submit.add_argument("--slurm", metavar="FOLDER", help="a folder of your own with array.sbatch and profiles/")
    submit.epilog = f"profile=<name> chooses a file of slurm/profiles for all models. {EPILOG}"
    _sweep_parser(commands, "retry", "make a table's failed runs missing again", handler="runs.retry_command")
    about = "states of a table's runs, from files alone"
    status = _sweep_parser(commands, "status", about, handler="runs.status_command")
    status.add_argument("--watch", action="store_true", help="show it anew every few seconds")
    status.add_argument("--json", action="store_true", help="print it for a program to read")
    about = "write a table from its records and print it (table11 to table13: the standard deviations)"
    tables = _sweep_parser(commands, "tables", about, handler="reports.tables_command")
    shown = "what is printed: ours, paper (what it prints), gap (both side by side), std (standard deviations)"
    tables.add_argument("--variant", default="ours", metavar="NAME", help=shown)
    about = "questions that splits share, within data sets and across them"
    shared = commands.add_parser("overlaps", help=about, description=about, epilog=EPILOG)
    sources = "data.source=hub, or data.source=local data.dir=FOLDER; dataset=A,B"
    shared.add_argument("overrides", nargs="+", help=sources)
    shared.set_defaults(command="inspection.overlaps_command")
    about = "one row as the model will see it: text, tokens, what is trained, where scopes act, how it is scored"
    show = commands.add_parser("show", help=about, description=about, epilog=EPILOG)
    show.add_argument("overrides", nargs="*", help="dataset=A protocol=B row=N split=train|validation|test ...")
    show.set_defaults(command="inspection.show_command")
    about = "rows and lengths in tokens of every data set, and what each protocol's limit does to them"
    lengths = commands.add_parser("lengths", help=about, description=about, epilog=EPILOG)
    lengths.add_argument("overrides", nargs="*", help="dataset=A,B protocol=A,B model=A data.source=...")
    lengths.add_argument("--tokenizer", metavar="FOLDER", help="another tokenizer than the model's")
    lengths.add_argument("--csv", metavar="FILE", help="write the table as CSV too")
    lengths.add_argument("--markdown", metavar="FILE", help="write the table as Markdown too")
    lengths.set_defaults(command="inspection.lengths_command")
    adapters = commands.add_parser("adapters", help="the trained adapters of a results folder", epilog=EPILOG)
    adapters.add_argument("overrides", nargs="*", help="results=FOLDER, where it is not ./results")
    adapters.set_defaults(command="inspection.adapters_command")
    params = commands.add_parser("params", help="trainable parameters by method and model, and what the paper prints")
    params.add_argument("axes", nargs="*", metavar="model=A,B | method=A,B", help="some models or methods only")
    params.add_argument("--csv", metavar="FILE", help="write the table as CSV too")
    params.add_argument("--markdown", metavar="FILE", help="write the table as Markdown too")
    params.set_defaults(command="reports.params_command")
    about = "peak memory by model and method, estimated and measured, and the cards that hold it"
    memory = commands.add_parser("memory", help=about, description=about, epilog=EPILOG)
    axes = "model=A,B method=A,B; dataset=A (the longest rows), hardware=A, training.precision=bfloat16 ..."
    memory.add_argument("overrides", nargs="*", help=axes)
    memory.add_argument("--csv", metavar="FILE", help="write the table as CSV too")
    memory.add_argument("--markdown", metavar="FILE", help="write the table as Markdown too")
    memory.set_defaults(command="reports.memory_command")
    score = commands.add_parser("score", help="score a predictions file again, without a model")
    score.add_argument("file", metavar="PREDICTIONS.jsonl", help="of a run: runs/<identity>/predictions-<split>.jsonl")
    score.add_argument("--task", help="the task, where the file lies in no run's folder")
    score.add_argument("--rule", help="paper or released, where it is not the run's own")
    score.set_defaults(command="inspection.score_command")
    _sweep_parser(commands, "figures", "draw a table's figures from its records", handler="reports.figures_command")
    report = commands.add_parser("report", help="one HTML page with every planned table, its evidence and the audit")
    report.add_argument("--results", default="results", metavar="FOLDER", help="where records and manifests lie")
    report.add_argument("--out", metavar="FILE", help="the page (FOLDER/report.html where it is not given)")
    report.add_argument("--tables", action="store_true", help="write the files of every table too (FOLDER/tables)")
    report.set_defaults(command="reports.report_command")
    audit = commands.add_parser("audit", help="the paper's numbers against themselves and what can be computed")
    audit.add_argument("--out", metavar="FOLDER", help="write audit.md and audit.csv there")
    audit.set_defaults(command="reports.audit_command")
    about = "send what runs mirrored offline (logger=wandb) to Weights & Biases"
    sync = commands.add_parser("sync", help=about, description=about)
    sync.add_argument("--results", default="results", metavar="FOLDER", help="where the runs lie")
    sync.set_defaults(command="runs.sync_command")
    listing = commands.add_parser("list", help="what exists: models, methods, data sets, protocols, sweeps")
    listing.add_argument("group", nargs="?", help="one group only")
    listing.set_defaults(command="inspection.list_command")
    return parser


def _sweep_parser(commands, verb: str, text: str, *, handler: str) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
    parser: argparse.ArgumentParser = commands.add_parser(verb, help=text, description=text, epilog=EPILOG)
    parser.add_argument("sweep", help="a file of conf/sweep, without .yaml")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    parser.set_defaults(command=handler)
    return parser


if __name__ == "__main__":
    sys.exit(main())
