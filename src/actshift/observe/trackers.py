"""Trackers: mirrors of a run for people to watch. Records never depend on them."""

from __future__ import annotations

import logging
import netrc
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actshift.errors import ActshiftError
from actshift.schema.building import plain
from actshift.schema.config import Config

log = logging.getLogger("actshift")
SYNCED = 100
"""Runs that one call of `wandb sync` takes: a command line has an end."""


class Tracker:
    """`logger=none`: nothing is mirrored. The other trackers have its methods."""

    def step(self, step: int, *, loss: float, lr: float) -> None:
        """A training step was done."""

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """The run ended with these metrics, or with none where it failed."""


class Wandb(Tracker):
    """Weights & Biases, offline where it has no key. The run's id is its identity, so a resumed run continues there.

    What the configuration leaves open, wandb's environment variables say: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY.
    """

    def __init__(self, config: Config, *, identity: str, folder: Path) -> None:
        logger = config.logger
        mode: Any = logger.mode or _mode()
        if mode != "online":
            # wandb reports on itself over the network even then, unless it is told not to.
            os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        cell = f"{config.model.name}/{config.method.name}/{config.dataset.name}"
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=logger.project or os.environ.get("WANDB_PROJECT") or "actshift",
            id=identity,
            resume="allow",
            reinit="create_new",  # runs that are trained at once are mirrored at once
            mode=mode,
            dir=str(folder),
            name=f"{cell}/lr={config.lr:g}/seed={config.seed}",
            group="/".join(filter(None, (logger.sweep, cell))),
            job_type=config.stage,
            config={key: value for key, value in plain(config).items() if key not in ("results", "hardware", "sweep")},
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )

    def step(self, step: int, *, loss: float, lr: float) -> None:
        self._run.log({"loss": loss, "lr": lr}, step=step)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(metrics))
        self._run.finish()


class Guarded(Tracker):
    """Another tracker whose faults are logged once and then stay without effect: a mirror never stops a run."""

    def __init__(self, start: Any) -> None:
        self._tracker: Tracker | None = None
        self._call(lambda: setattr(self, "_tracker", start()))

    def step(self, step: int, *, loss: float, lr: float) -> None:
        tracker = self._tracker
        if tracker is not None:
            self._call(lambda: tracker.step(step, loss=loss, lr=lr))

    def finish(self, metrics: Mapping[str, Any]) -> None:
        tracker = self._tracker
        if tracker is not None:
            self._call(lambda: tracker.finish(metrics))

    def _call(self, action: Any) -> None:
        try:
            action()
        except Exception as error:
            log.warning("the tracker failed and is off for this run: %s", error)
            self._tracker = None


def start_tracker(config: Config, *, identity: str, folder: Path) -> Tracker:
    """The tracker that a resolved config asks for."""
    if config.logger.name == "none":
        return Tracker()
    return Guarded(lambda: Wandb(config, identity=identity, folder=folder))


def sync(root: Path) -> int:
    """Send what runs below a results folder have mirrored offline to Weights & Biases; how many there were.

    What was sent before is not sent again. Errors: no key, or wandb's own.
    """
    folders = sorted(str(path) for path in root.glob("runs/*/wandb/offline-run-*"))
    if folders and not _has_key():
        raise ActshiftError("Weights & Biases has no key here: set WANDB_API_KEY, or call `wandb login`")
    for start in range(0, len(folders), SYNCED):
        command = [
            sys.executable,
            "-m",
            "wandb",
            "sync",
            "--yes",
            "--no-include-synced",
            *folders[start : start + SYNCED],
        ]
        if subprocess.run(command, check=False).returncode:
            raise ActshiftError(f"`wandb sync` failed after {start} of {len(folders)} runs; call this again")
    return len(folders)


def _mode() -> str:
    """The mode that wandb's environment variables ask for; without them online where there is a key."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
        return "disabled"
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    """Whether wandb will find a key, in the variable or in the file where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    own = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname
    try:
        hosts = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, netrc.NetrcParseError):
        return False
    # The public service answers at api.wandb.ai and, for newer versions of wandb, below coreweave.com.
    return any(host == own or "wandb" in host or "coreweave" in host for host in hosts)
