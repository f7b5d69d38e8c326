"""The config groups as files: the package's, and those of a folder of the user's (``--config-dir``)."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from actshift.errors import ActshiftError
from actshift.paths import conf_dir, user_conf_dir


def groups() -> dict[str, list[str]]:
    """The config groups and the options that each has, from the files alone, those of ``--config-dir`` among them.

    Errors: a file of the user's that has the name of one of the package's, which Hydra would leave out silently.
    """
    options = {
        folder.name: [file.stem for file in folder.glob("*.yaml")]
        for folder in sorted(conf_dir().iterdir())
        if folder.is_dir()
    }
    user_folder = user_conf_dir()
    if user_folder is not None:
        _refuse_overlooked(user_folder, options)
    for group, names in options.items():
        files = sorted((user_folder / group).glob("*.yaml")) if user_folder else []
        for file in files:
            if file.stem in names:
                raise ActshiftError(
                    f"{file} has the name of {group}={file.stem} of the package, which would be taken instead: give "
                    "the file another name."
                )
        names += [file.stem for file in files]
    return {group: sorted(names) for group, names in options.items()}


def _refuse_overlooked(folder: Path, groups: Collection[str]) -> None:
    """Refuse YAML files that Hydra would overlook: .yml, or in a folder whose name is nearly that of a group."""
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        near = get_close_matches(below.name, groups, n=1, cutoff=0.7)
        if below.name in groups:
            for file in sorted(below.glob("*.yml")):
                raise ActshiftError(f"{file} would be overlooked: rename it to {file.with_suffix('.yaml').name}.")
        elif near and any(below.glob("*.y*ml")):
            raise ActshiftError(
                f"{below} is the folder of no config group, and its files would be overlooked. Did you mean "
                f"'{near[0]}'? Allowed: {', '.join(groups)}."
            )


def option_shown(group: str, option: str) -> str:
    """What a message calls the file of an option: below conf/, or with its whole path in the user's folder."""
    file = option_file(group, option)
    return f"conf/{group}/{option}.yaml" if file.is_relative_to(conf_dir()) else str(file)


def folders_shown(group: str) -> str:
    """What a message says of where the options of a group are looked for."""
    user_folder = user_conf_dir()
    own = f"FOLDER/{group}/ with --config-dir FOLDER" if user_folder is None else f"{user_folder}/{group}/"
    return f"conf/{group}/ or {own}"


def option_file(group: str, option: str) -> Path:
    """The YAML file of an option, in the package or in the folder of ``--config-dir``."""
    user_folder, file = user_conf_dir(), Path(group) / f"{option}.yaml"
    return user_folder / file if user_folder is not None and (user_folder / file).is_file() else conf_dir() / file


def search_path() -> list[str]:
    """The Hydra override that adds the folder of ``--config-dir`` to the search path; none where none was given."""
    user_folder = user_conf_dir()
    if user_folder is None:
        return []
    url = f"file://{user_folder}".replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.searchpath=['{url}']"]
