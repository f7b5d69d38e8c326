"""Training: from resolved configurations to adapters on disk, one run alone or several over one base at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.config.identity import identity_of
from actshift.data.chat import chat_of
from actshift.data.examples import Examples, tokenize
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.observe.progress import Progress
from actshift.observe.provenance import peak_memory, reset_peak_memory
from actshift.observe.trackers import Tracker
from actshift.planning.halving import pause_step
from actshift.runtime.objectives import curve_facts, objective_of, reinforcement, thinned
from actshift.runtime.session import Interrupted, Paused, Session
from actshift.schema.building import plain
from actshift.schema.config import Config
from actshift.store.adapter_card import ADAPTER_CARD
from actshift.store.adapters import save_adapter
from actshift.store.pauses import Pause
from actshift.store.store import Store
from actshift.tasks import scoring_task
from actshift.training.batches import count_steps
from actshift.training.checkpoints import Checkpoints, read_facts
from actshift.training.loop import Curves, train

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VARIED = ("lr", "seed")
"""What runs that are trained at once may differ in."""


@dataclass(frozen=True)
class Trained:
    """What is kept of a training beside the adapter's tensors.

    Of `replicas` runs trained at once, `train_seconds` is one's share of the time, `peak_memory_bytes` all of it.
    """

    identity: str
    steps: int
    final_loss: float
    diverged: bool
    trainable_parameters: int
    total_parameters: int
    train_fingerprint: str
    truncated: int
    lost_answers: int
    dropped: int
    train_seconds: float
    peak_memory_bytes: int
    device: str
    device_name: str
    overlap: int
    replicas: int
    loss_curve: list[list[float]]
    """(steps done, mean loss of the steps since the point before), as `actshift.runtime.objectives.thinned` has it."""
    validation_curve: list[list[float]]
    """(steps done, loss on the watched validation rows; their reward where the objective is one of rewards)."""
    reinforcement: dict[str, Any] = field(default_factory=dict)
    """What `actshift.runtime.objectives.reinforcement` keeps; nothing of SFT."""


def trained(folder: Path) -> Trained | None:
    """What a run's folder holds of a finished training, or None where it holds none."""
    facts = read_facts(folder / "adapter")
    return None if facts is None or not (folder / "adapter" / ADAPTER_CARD).exists() else Trained(**facts["trained"])


def train_runs(
    configs: Mapping[str, Config],
    base: Base,
    *,
    store: Store,
    session: Session,
    progress: Progress,
    trackers: Sequence[Tracker],
    share: float = 1.0,
) -> None:
    """Train runs, given by identity, at once and save the adapter of each in its folder.

    They differ in learning rate and seed alone. An interrupted training goes on from its newest checkpoint, if the same
    runs are trained at once again. One run alone may be trained for a `share` of its steps, from whose checkpoint it
    goes on the next time. Errors: `Interrupted`, `Paused`.
    """
    folders = list(map(store.run_folder, configs))
    config, *others = configs.values()
    if any(_shared(other) != _shared(config) for other in others):
        raise ValueError(f"runs that are trained at once differ in {' and '.join(VARIED)} alone: {', '.join(configs)}")
    started, training, stop = time.monotonic(), config.training, session.stop
    reset_peak_memory(base.device.type)
    split = session.split(config, "train")
    examples = partial(training_examples, config=config, tokenizer=base.tokenizer, cache=store.cache)
    rows, watched = examples(split), examples(session.split(config, "validation"))
    _refuse_without_answers(rows, config)
    checkpoint_folder = _checkpoint_folder(folders[0], identities=list(configs))
    every = config.hardware.checkpoint_every
    steps = count_steps(len(rows), batch_size=training.batch_size, epochs=training.epochs, max_steps=training.max_steps)
    pause = pause_step(steps, share)
    kept = partial(Checkpoints, checkpoint_folder, every=every, data=split.fingerprint, say=progress.note)
    checkpoints = kept(stop=stop, pause=pause)
    seeds = [each.seed for each in configs.values()]
    adaptation = attach(base, config=config.method, seeds=seeds)
    try:
        progress.start("train")
        all_curves = train(
            base,
            adaptation,
            rows=rows,
            validation_rows=[watched[row] for row in range(min(len(watched), training.validation_rows))],
            training=training,
            lrs=[each.lr for each in configs.values()],
            seeds=seeds,
            micro_batch=config.hardware.micro_batch,
            checkpoints=checkpoints,
            progress=partial(_report_step, trackers=trackers, progress=progress, stop=stop, checkpoints=checkpoints),
            gradient_checkpointing=config.hardware.gradient_checkpointing,
            objective=objective_of(config, base, adaptation, seeds=seeds),
        )
        progress.end()
        seconds = (time.monotonic() - started) / len(configs) + _seconds_before(store, configs)
        if pause is not None and len(all_curves[0].loss) < steps and all_curves[0].diverged_at is None:
            _pause(store, next(iter(configs)), all_curves[0], steps=steps, seconds=seconds, data=split.fingerprint)
        _save(folders, adaptation, configs, all_curves, base=base, rows=rows, split=split, seconds=seconds)
    finally:
        adaptation.detach()
    checkpoints.clear()
    if checkpoint_folder != folders[0] and checkpoint_folder.exists():
        checkpoint_folder.rmdir()


def _seconds_before(store: Store, configs: Mapping[str, Config]) -> float:
    """What the steps of a run before its last pause took."""
    pause = store.paused(next(iter(configs))) if len(configs) == 1 else None
    return 0.0 if pause is None else pause.train_seconds


def _pause(store: Store, identity: str, curves: Curves, *, steps: int, seconds: float, data: str) -> None:
    """Note how far a run has come and end its training here. Raises `Paused`."""
    curve = tuple((step, loss) for step, loss in curves.validation)
    store.pause(Pause(identity, len(curves.loss), steps, curve, round(seconds, 3), data))
    raise Paused


def _refuse_without_answers(rows: Examples, config: Config) -> None:
    """Refuse to train where the protocol's length leaves no row a single answer token: nothing would be trained."""
    name = config.dataset.name
    if rows.lost_answers == len(rows):
        raise ActshiftError(
            f"a limit of {rows.max_tokens} tokens cuts the answers of all {len(rows)} rows of {name}: nothing would be "
            f"trained. Raise training.max_tokens or, for prompts in a chat template, protocol.chat_max_tokens.{name}."
        )


def _save(
    folders: Sequence[Path],
    adaptation: Adaptation,
    configs: Mapping[str, Config],
    all_curves: Sequence[Curves],
    *,
    base: Base,
    rows: Examples,
    split: Split,
    seconds: float,
) -> None:
    """Save the adapter of each run in its folder, with how its training went; `seconds` are one run's share."""
    for replica, ((identity, run_config), curves) in enumerate(zip(configs.items(), all_curves, strict=True)):
        result = _trained(base, adaptation, replica, rows=rows, split=split, curves=curves, identity=identity)
        result |= {"train_seconds": round(seconds, 3), "replicas": len(configs)}
        result |= {"reinforcement": reinforcement(run_config, curves, replicas=len(configs))}
        save_adapter(
            folders[replica] / "adapter",
            adaptation,
            replica=replica,
            base=base,
            config=run_config,
            facts={"trained": result, "config": plain(run_config), "curves": curve_facts(curves)},
            identity=identity,
            diverged=result["diverged"],
        )


def _checkpoint_folder(folder: Path, *, identities: Sequence[str]) -> Path:
    """Where the checkpoints of runs that are trained at once lie: with the first of them, under a name of their own."""
    if len(identities) == 1:
        return folder
    return folder / f"replicas-{identity_of({'runs': list(identities)}, ignore=())}"


def _report_step(
    step: int,
    steps: int,
    curves: Sequence[Curves],
    *,
    trackers: Sequence[Tracker],
    progress: Progress,
    stop: threading.Event,
    checkpoints: Checkpoints,
) -> None:
    """Tell trackers and the terminal of a step; end the training where the process was told to stop.

    It ends at a step that a checkpoint holds: told to stop a moment after one could have been written, it goes on for
    another step.
    """
    for tracker, curve in zip(trackers, curves, strict=True):
        if len(curve.loss) == step:  # a run that diverged has no more steps
            tracker.step(step, loss=curve.loss[-1], lr=curve.lr[-1])
    shown = [("reward", curve.measures["reward"]) if curve.measures else ("loss", curve.loss) for curve in curves]
    progress.update(step, steps, f"{shown[0][0]} " + " ".join(f"{values[-1]:.3f}" for _, values in shown))
    if stop.is_set() and checkpoints.saved_after == step:
        raise Interrupted


def _shared(config: Config) -> dict[str, Any]:
    return {key: value for key, value in plain(config).items() if key not in VARIED}


def training_examples(
    split: Split,
    *,
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    cache: Path | None,
    limited: bool = True,
    name: str = "train",
) -> Examples:
    """A split's rows as a resolved config trains on them; where they are not `limited`, whole however long they are.

    `name` is the split's: that of a test split may be another task's.
    """
    training, chat = config.training, chat_of(config, tokenizer)
    return tokenize(
        split,
        task=scoring_task(config.dataset, name, rule=config.evaluation.rule),
        tokenizer=tokenizer,
        end_token=training.end_token,
        max_tokens=most_tokens(config, chat=chat is not None) if limited else None,
        overlong=training.overlong,
        chat=chat,
        cache=cache,
    )


def most_tokens(config: Config, *, chat: bool) -> int | None:
    """The tokens that a row may have: for prompts in a chat template a protocol may set another limit."""
    limits = [config.training.max_tokens]
    limits += [config.protocol.chat_max_tokens.get(config.dataset.name)] if chat else []
    return min((limit for limit in limits if limit is not None), default=None)


def _trained(
    base: Base,
    adaptation: Adaptation,
    replica: int,
    *,
    rows: Examples,
    split: Split,
    curves: Curves,
    identity: str,
) -> dict[str, Any]:
    """The facts of one run's training, but for its time."""
    last = curves.loss[-10:]
    finite = all(bool(parameter.isfinite().all()) for _, parameter in adaptation.named_parameters(replica))
    return {
        "identity": identity,
        "steps": len(curves.loss),
        "final_loss": round(sum(last) / len(last), 6),
        # A loss is computed before its step, so that what the last step did shows in the parameters alone.
        "diverged": curves.diverged_at is not None or not finite,
        "trainable_parameters": adaptation.trainable_parameters(),
        "total_parameters": base.parameters,
        "train_fingerprint": split.fingerprint,
        "truncated": rows.truncated,
        "lost_answers": rows.lost_answers,
        "dropped": rows.dropped,
        "overlap": split.overlap,
        "loss_curve": thinned(curves.loss),
        "validation_curve": [[step, round(loss, 5)] for step, loss in curves.validation],
        "peak_memory_bytes": peak_memory(base.device.type),
        "device": base.device.type,
        "device_name": base.device_name,
    }
