"""SLURM profiles: what a site calls its nodes, in files that a user edits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from actshift.errors import ActshiftError, unknown

TIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d{2}):(\d{2})")


@dataclass(frozen=True)
class ClusterProfile:
    """How jobs ask for a node. A field that is null leaves its option of sbatch out."""

    name: str
    hardware: str
    scales: tuple[str, ...]
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    gres: str | None
    cpus: int
    memory: str
    time: str
    warning_seconds: int
    throttle: int

    @property
    def seconds(self) -> int:
        """The time limit in seconds."""
        return _length(self.time)

    def options(self, *, gpu: bool = True) -> list[str]:
        """The options of sbatch; without `gpu` those of a small job that needs none."""
        given = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint if gpu else None,
            "gres": self.gres if gpu else None,
            "cpus-per-task": str(self.cpus if gpu else 1),
            "mem": self.memory if gpu else "4G",
            "time": self.time if gpu else min(self.time, "00:30:00", key=_length),
        }
        return [f"--{name}={value}" for name, value in given.items() if value is not None]


def read_profiles(folder: Path) -> dict[str, ClusterProfile]:
    """The profiles of a folder by name. Errors: none there, a key that is missing or not known, an impossible value."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise ActshiftError(f"there is no SLURM profile in {folder}: name the folder that holds them with --slurm")
    return {file.stem: _read(file) for file in files}


def profile_of(scale: str, profiles: dict[str, ClusterProfile], *, chosen: str | None) -> ClusterProfile:
    """The chosen profile, or the first that lists a model's scale. Errors: none does."""
    if chosen is not None:
        if chosen not in profiles:
            raise unknown("profile", chosen, profiles, where="profile=<name> (files in slurm/profiles)")
        return profiles[chosen]
    for profile in profiles.values():
        if scale in profile.scales and profile.gres is not None:
            return profile
    raise ActshiftError(
        f"no profile is meant for models of scale '{scale}': list it in `scales` of a file in slurm/profiles, "
        f"or choose one with profile=... ({', '.join(profiles)})"
    )


def _read(file: Path) -> ClusterProfile:
    import yaml

    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ActshiftError(f"{file} is not YAML: {error}") from error
    wanted = [entry.name for entry in fields(ClusterProfile) if entry.name != "name"]
    if not isinstance(data, dict):
        raise ActshiftError(f"{file} must hold the keys {', '.join(wanted)}")
    for key in data:
        if key not in wanted:
            raise unknown("profile key", str(key), wanted, where=str(file))
    if missing := [key for key in wanted if key not in data]:
        raise ActshiftError(f"{file} lacks {', '.join(missing)}: null leaves an option of sbatch out")
    if not TIME.fullmatch(str(data["time"])):
        raise ActshiftError(f"{file}: time = {data['time']!r} must be 'hours:minutes:seconds', quoted")
    _check_numbers(data, file=file, names=("cpus", "warning_seconds", "throttle"))
    _check_texts(data, file=file, names=("partition", "account", "qos", "constraint", "gres", "memory"))
    return ClusterProfile(name=file.stem, **data | {"scales": tuple(data["scales"])})


def _check_numbers(data: dict[str, object], *, file: Path, names: Iterable[str]) -> None:
    for name in names:
        value = data[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ActshiftError(f"{file}: {name} = {value!r} must be a whole number of at least 1")


def _check_texts(data: dict[str, object], *, file: Path, names: Iterable[str]) -> None:
    for name in names:
        value = data[name]
        if value is not None and (not isinstance(value, str) or not re.fullmatch(r"[\w.,:=+*|&!\[\]()-]+", value)):
            raise ActshiftError(f"{file}: {name} = {value!r} must be null or what sbatch takes, without blanks")


def _length(time: str) -> int:
    match = TIME.fullmatch(time)
    assert match is not None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
