"""The data that a process has loaded. Needs no torch: commands that compute nothing use it too."""

from __future__ import annotations

import json

from actshift.data.splits import Split, load_split
from actshift.schema.building import plain
from actshift.schema.config import Config


class LoadedData:
    """The splits of the data set that was asked for last, each read once."""

    def __init__(self) -> None:
        self._data: tuple[str, dict[str, Split]] = "", {}

    def split(self, config: Config, name: str) -> Split:
        """One split of a configuration's data."""
        key = json.dumps(plain([config.dataset, config.data]), sort_keys=True)
        if self._data[0] != key:
            self._data = key, {}
        splits = self._data[1]
        if name not in splits:
            splits[name] = load_split(config, name)
        return splits[name]
