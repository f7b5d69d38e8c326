"""The one error that is meant for users."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ActshiftError(ValueError):
    """Bad input: its message says what was got, what is allowed and where to fix it. Shown without a traceback."""


def unknown(kind: str, got: object, allowed: Iterable[object], *, where: str) -> ActshiftError:
    """The error for a name that does not exist: the nearest match first, then all that do."""
    names = sorted(set(map(shown, allowed)))
    near = difflib.get_close_matches(str(got), names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ActshiftError(f"unknown {kind} '{got}'.{hint} Allowed: {', '.join(names) or 'none'}. Set it in {where}.")


def impossible(key: str, value: object, allowed: str) -> ActshiftError:
    """The error for a value that a config key cannot have."""
    return ActshiftError(
        f"{key} = {shown(value)} is impossible: it must be {allowed}. Set it with {key}=... or in its YAML."
    )


def shown(value: object) -> str:
    """A value as it is written in a config."""
    return "null" if value is None else str(value)
