"""The `actshift` command. Each subcommand imports what it needs when it is called, so that help is immediate."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from actshift.commands import completion
from actshift.commands.catalogue import COMMANDS
from actshift.errors import ActshiftError
from actshift.files import UNFINISHED
from actshift.libraries.user_code import raised_in_user_code

EPILOG = (
    "Overrides are Hydra's: `method=sft lr=1e-3 training.epochs=2`. `actshift list` shows what exists. Every command "
    "takes `--config-dir FOLDER`, a folder with config groups of your own."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 where runs failed, 2 where the request was wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if completion.MARK in os.environ:
        completion.complete(_parser())
    try:
        if sys.flags.optimize > 1:
            raise ActshiftError("python -OO takes docstrings away, which transformers reads: leave out -OO, or take -O")
        arguments = _without_config_dir(arguments)
        if arguments[:1] == ["run"]:
            # Everything after `run` is Hydra's, its flags included.
            from actshift.commands.hydra import run_command

            return run_command(arguments[1:])
        # Intermixed: overrides stand before and after flags.
        parser = _parser()
        known, rest = parser.parse_known_args(arguments)
        return _handler(COMMANDS[known.verb].handler)(_with_rest(known, rest, parser=parser))
    except ActshiftError as error:
        print(f"actshift: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, UnicodeEncodeError) as error:
        print(f"actshift: {_sentence(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        where = raised_in_user_code(error)
        if where is None:
            raise
        print(f"actshift: {where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("actshift: interrupted; what is done is kept, the same command goes on from here", file=sys.stderr)
        return 130


def _without_config_dir(arguments: list[str]) -> list[str]:
    """The arguments after ``--config-dir FOLDER`` was obeyed, which every command takes, wherever it stands.

    Errors: a folder that is not there, two folders.
    """
    from actshift.paths import CONFIG_DIR, use_config_dir

    left, words, folders = list[str](), iter(arguments), dict[Path, str]()
    if named := os.environ.get(CONFIG_DIR):
        use_config_dir(named)
    for word in words:
        flag, sign, folder = word.partition("=")
        if flag not in ("--config-dir", "-cd"):
            left.append(word)
            continue
        folder = folder if sign else next(words, "")
        if not Path(folder).expanduser().is_dir() or not folder:
            raise ActshiftError(
                f"--config-dir {folder or '(nothing)'}: there is no such folder. It holds config groups of your own, "
                "as in FOLDER/method/mine.yaml, and Python files that they name."
            )
        folders[Path(folder).expanduser().resolve()] = folder
        if len(folders) > 1:
            raise ActshiftError(f"--config-dir {' and --config-dir '.join(folders.values())}: there can be one folder")
        use_config_dir(folder)
    return left


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
            sub.add_argument("overrides", nargs="*", default=[], help=command.overrides)
        for name, options in flags.items():
            sub.add_argument(name, **options)
    return parser


if __name__ == "__main__":
    sys.exit(main())
