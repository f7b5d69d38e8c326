"""The `actshift` command. Each subcommand imports what it needs when it is called, so that help is immediate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from actshift.errors import ActshiftError

EPILOG = "Overrides are Hydra's: `method=sft lr=1e-3 training.epochs=2`. `actshift list` shows what exists."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 where runs failed, 2 where the request was wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["run"]:
            # Everything behind `run` is Hydra's, its flags included.
            from actshift.commands import run_command

            return run_command(arguments[1:])
        parsed = _parser().parse_args(arguments)
        handler: Callable[[argparse.Namespace], int] = getattr(_commands(), parsed.command)
        return handler(parsed)
    except ActshiftError as error:
        print(f"actshift: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("actshift: interrupted; what is done is kept, the same command goes on from here", file=sys.stderr)
        return 130


def _commands() -> object:
    from actshift import commands

    return commands


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="actshift", description=__doc__.splitlines()[0], epilog=EPILOG)
    commands = parser.add_subparsers(dest="verb", required=True, metavar="command")
    commands.add_parser("run", help="one run: train, evaluate, record (Hydra flags: --cfg job, -m)", add_help=False)
    about = "do a whole table: grid, selection, final, tables"
    sweep = _sweep_parser(commands, "sweep", about, handler="sweep_command")
    sweep.add_argument("--retry", action="store_true", help="try failed runs again")
    sweep.add_argument("--replan", action="store_true", help="replace a manifest that differs from the request")
    plan = _sweep_parser(commands, "plan", "freeze a table's grid and print its counts", handler="plan_command")
    plan.add_argument("--replan", action="store_true", help="replace a manifest that differs from the request")
    select = _sweep_parser(commands, "select", "choose learning rates by validation", handler="select_command")
    select.add_argument("--allow-missing", action="store_true", help="select though runs are missing, and say so")
    submit = _sweep_parser(commands, "submit", "do a whole table as jobs of a SLURM cluster", handler="submit_command")
    submit.add_argument("--dry-run", action="store_true", help="print the script and the calls of sbatch")
    submit.add_argument("--replan", action="store_true", help="replace a manifest that differs from the request")
    submit.add_argument("--slurm", metavar="FOLDER", help="a folder of your own with array.sbatch and profiles/")
    submit.epilog = f"profile=<name> chooses a file of slurm/profiles for all models. {EPILOG}"
    _sweep_parser(commands, "retry", "make a table's failed runs missing again", handler="retry_command")
    status = _sweep_parser(commands, "status", "states of a table's runs, from files alone", handler="status_command")
    status.add_argument("--watch", action="store_true", help="show it anew every few seconds")
    status.add_argument("--json", action="store_true", help="print it for a program to read")
    _sweep_parser(commands, "tables", "write a table from its records and print it", handler="tables_command")
    listing = commands.add_parser("list", help="what exists: models, methods, data sets, protocols, sweeps")
    listing.add_argument("group", nargs="?", help="one group only")
    listing.set_defaults(command="list_command")
    return parser


def _sweep_parser(commands, verb: str, text: str, *, handler: str) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
    parser: argparse.ArgumentParser = commands.add_parser(verb, help=text, description=text, epilog=EPILOG)
    parser.add_argument("sweep", help="a file of conf/sweep, without .yaml")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    parser.set_defaults(command=handler)
    return parser


if __name__ == "__main__":
    sys.exit(main())
