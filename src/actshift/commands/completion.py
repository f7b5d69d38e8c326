"""What the shell offers after TAB: commands and flags, config groups, their options, dotted keys, planned sweeps.

argcomplete asks the `actshift` command itself, with the line so far in its environment; it is imported then alone.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Iterator
from typing import Any

MARK = "_ARGCOMPLETE"
"""The environment variable by which the shell asks for completions and not for a command."""


def complete(parser: ArgumentParser) -> None:
    """Answer the shell, and end the process."""
    import argcomplete

    for action in _actions(parser):
        if action.dest == "overrides":
            _set_completer(action, lambda prefix, **_: list(overrides(prefix)))
        if action.dest == "sweep":
            _set_completer(action, lambda prefix, **_: [name for name in sweeps() if name.startswith(prefix)])
    argcomplete.autocomplete(parser)


def overrides(prefix: str) -> Iterator[str]:
    """Overrides that begin like this: ``group=option`` of the config groups, ``key=`` of dotted keys."""
    from actshift.config.groups import groups
    from actshift.config.keys import choices, known_keys

    name, sign, option = prefix.partition("=")
    options = groups()
    if sign:
        values = options.get(name) or sorted("null" if each is None else each for each in choices().get(name, ()))
        yield from (f"{name}={value}" for value in values if value.startswith(option))
    else:
        keys = [key for key in known_keys() if "*" not in key]
        inner = {key.rpartition(".")[0] for key in known_keys()}  # a key that holds others is given by these
        yield from (
            f"{key}="
            for key in dict.fromkeys([*options, *keys])
            if key.startswith(name) and key not in inner - {*options}
        )


def sweeps() -> list[str]:
    """Sweeps that have a file, and those that are planned in ./results under another name."""
    from actshift.config.groups import groups
    from actshift.store.store import Store

    return sorted({*groups()["sweep"], *Store("results").planned()})


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """The arguments of every command."""
    for action in parser._actions:  # argparse has no public way to its subcommands
        children: Any = action.choices if action.nargs == "A..." else None
        for child in children.values() if children else ():
            yield from child._actions


def _set_completer(action: Action, completer: Any) -> None:
    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks for it
