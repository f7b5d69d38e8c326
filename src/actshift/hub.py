"""A hub repository's files at one revision, from the cache or the network, or the reason why not in our words.

Models and data sets both come through here before any library opens them as a folder. So licences, revisions and a
missing network are dealt with in one place, a process sees one commit of a repository however often it asks, and
what is in the cache behaves the same with a network and without. Tokens are the client's own business: nothing here
reads one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.schema.config import ModelConfig
from actshift.schema.data import HubConfig

MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What a model is read from: sizes, weights as safetensors, and the files of any tokenizer. Never a pickle."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
REACHABLE_SECONDS = 5.0
_FETCH_IT = "run `actshift prefetch <sweep>` where there is a network, with the same HF_HOME."
_ALLOW: dict[str, list[str] | None] = {"model": list(MODEL_FILES), "dataset": None}
# `*` also matches a slash: what lies in a folder of a model's repository is another format of the same weights.
_IGNORE = {"model": ["*/*", "consolidated*"], "dataset": ["*.py", "*.pkl", "*.pickle"]}


@dataclass(frozen=True)
class Repository:
    """A repository as a config names it; `key` is the config key that its path and revision stand below."""

    kind: str  # model | dataset
    path: str
    revision: str | None
    key: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path} (revision {self.revision or 'main'})"

    @property
    def local(self) -> Path | None:
        """The folder that the path is, where it is one: no name on the hub starts like this."""
        return Path(self.path).expanduser() if self.path.startswith(("/", ".", "~")) else None


def model_repository(model: ModelConfig) -> Repository:
    """Where the files of a resolved model config with ``source: hub`` are."""
    return Repository("model", str(model.path), model.revision, "model")


def dataset_repository(hub: HubConfig) -> Repository:
    """Where the files of a resolved `HubConfig` are."""
    return Repository("dataset", str(hub.path), hub.revision, "dataset.hub")


def folder(repository: Repository, *, weights: bool = True) -> Path:
    """The folder with the repository's files, downloaded into the hub's ordinary cache where they are not there yet.

    Without `weights` a model is its tokenizer and sizes, and its weights are neither fetched nor missed.

    Raises `ActshiftError` for a repository, revision or licence that is not to be had, for a network that is not
    there or breaks, and for a model without safetensors.
    """
    if repository.local is not None and not repository.local.is_dir():
        raise ActshiftError(f"{repository.key}.path = {repository.path} is no folder.")
    found = repository.local or _download(repository, weights=weights)
    if repository.kind == "model":
        _check_model(found, repository, weights=weights)
    return found


def size(repository: Repository) -> tuple[int, int]:
    """Bytes of the repository's files, and how many of them are still to be downloaded. Asks the hub; see `folder`."""
    from huggingface_hub import snapshot_download

    if repository.local is not None:
        return 0, 0
    with _explaining(repository), quiet():
        files = snapshot_download(
            repository.path,
            repo_type=repository.kind,
            revision=repository.revision,
            allow_patterns=_ALLOW[repository.kind],
            ignore_patterns=_IGNORE[repository.kind],
            dry_run=True,
        )
    sizes = [(file.file_size or 0, file.will_download) for file in files]
    return sum(size for size, _ in sizes), sum(size for size, ahead in sizes if ahead)


def is_offline() -> bool:
    """Whether the hub's clients were told to do without a network, by HF_HUB_OFFLINE=1."""
    import huggingface_hub

    return bool(huggingface_hub.is_offline_mode())


def is_reachable() -> bool:
    """Whether the hub answers within some seconds, through the proxy that the environment names."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACHABLE_SECONDS)
    except Exception:  # of whichever library does the asking: no name, no route, no answer, no certificate
        return False
    return True


@contextmanager
def quiet(*more: Any) -> Iterator[None]:
    """No bars and no warnings of the hub's client, and of `more` modules like its utils; settings are put back."""
    import huggingface_hub.utils

    modules = (huggingface_hub.utils, *more)
    disabled = [module.are_progress_bars_disabled() for module in modules]
    levels = [module.logging.get_verbosity() for module in modules]
    for module in modules:
        module.disable_progress_bars()
        module.logging.set_verbosity_error()
    try:
        yield
    finally:
        for module, was_disabled, level in zip(modules, disabled, levels, strict=True):
            if not was_disabled:
                module.enable_progress_bars()
            module.logging.set_verbosity(level)


@lru_cache(maxsize=64)
def _download(repository: Repository, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    ignored = _IGNORE[repository.kind] + ([] if weights else ["*.safetensors"])
    with _explaining(repository):
        found = snapshot_download(
            repository.path,
            repo_type=repository.kind,
            revision=repository.revision,
            allow_patterns=_ALLOW[repository.kind],
            ignore_patterns=ignored,
        )
    return Path(found)


def _check_model(found: Path, repository: Repository, *, weights: bool) -> None:
    """Refuse a model whose config, weights or tokenizer are not all there, by name."""
    index = found / "model.safetensors.index.json"
    wanted = {"config.json", "model.safetensors"}
    if not weights:
        wanted = set()
    elif index.is_file():
        wanted = {"config.json", *json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    elif not list(found.glob("*.safetensors")):
        raise ActshiftError(
            f"{repository} has no safetensors files. Weights in any other format can carry code and are never "
            f"opened: set {repository.key}.path to a repository that has them. If it has them there and not yet in "
            f"{found}: {_FETCH_IT}"
        )
    missing = sorted(name for name in wanted if not (found / name).is_file())
    if not any((found / name).is_file() for name in TOKENIZER_FILES):
        missing.append(f"a tokenizer ({' or '.join(TOKENIZER_FILES)})")
    if missing:
        raise ActshiftError(f"{repository} lacks {', '.join(missing)} in {found}: {_FETCH_IT}")


@contextmanager
def _explaining(repository: Repository) -> Iterator[None]:
    """What the client refuses, in our words."""
    from huggingface_hub import errors

    # Its HTTP library is another one from version to version.
    http_error: type[BaseException] = errors.HfHubHTTPError.__mro__[1]
    try:
        yield
    except errors.DryRunError as error:
        raise _explained(error.__cause__ or error, repository) from error
    except (OSError, errors.HFValidationError, http_error) as error:
        raise _explained(error, repository) from error


def _explained(error: BaseException, repository: Repository) -> ActshiftError:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.path}"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    match error:
        case errors.HFValidationError():
            text = f"{repository.key}.path = {repository.path} is no name on the hub: {reason}."
        case errors.GatedRepoError():
            whose = " and your account has no access to it" if error.response.status_code == 403 else ""
            text = (
                f"{repository} is gated{whose}: accept its licence at {page}, then log in on this machine once with "
                "`hf auth login`."
            )
        case errors.RepositoryNotFoundError():
            text = (
                f"{repository} is not on the hub, or is private and you are not logged in (`hf auth login`). "
                f"Set {repository.key}.path=<owner>/<name>."
            )
        case errors.RevisionNotFoundError():
            text = (
                f"{repository.kind} {repository.path} has no revision '{repository.revision}'. Set "
                f"{repository.key}.revision to a branch, tag or commit of {page}."
            )
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            reached = "is not to be asked (HF_HUB_OFFLINE)" if is_offline() else "cannot be reached"
            text = (
                f"{repository} is not all in {constants.HF_HUB_CACHE}, and {constants.ENDPOINT} {reached}: {_FETCH_IT}"
            )
        case _:
            text = (
                f"{repository} could not be downloaded: {reason}. What is complete is kept: the same command goes on "
                "from there."
            )
    return ActshiftError(text)
