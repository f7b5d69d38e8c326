"""The table of peak memory by model and method: estimated, measured where runs on CUDA left records, and cards."""

from __future__ import annotations

import csv as csv_module
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actshift.config.cached import CachedComposer, hub_models
from actshift.config.groups import groups
from actshift.errors import ActshiftError
from actshift.estimates.memory import CARDS, Fit, Peak, estimate_peak, fit
from actshift.estimates.sweep import planned_hardware
from actshift.report import names
from actshift.report.markdown_text import table as markdown_table
from actshift.schema.config import Config
from actshift.store.records import Record, read_records

if TYPE_CHECKING:
    pass

METHODS = ("sft", "lora_r8", "post_block", "joint")
"""One of each family."""
SHORT: dict[str, dict[Any, str]] = {
    "training.precision": {"bfloat16": "bf16"},
    "training.optimizer": {"adamw_8bit": "8-bit", "adamw_bf16_stochastic": "stochastic"},
    "hardware.gradient_checkpointing": {True: "recompute"},
}
COLUMNS = ("Model", "Method", "Weights", "Trained", "Step", "Evaluation", "Peak ~", "Measured")
CARD_COLUMNS = tuple(f"{card / 1e9:.0f} GB" for card in CARDS)
LEGEND = (
    "GB (1e9 bytes) of tensors. Peak ~ is an estimate from sizes: the larger of training (Weights + Trained: what the "
    "method adds, its gradients and the optimizer's states + Step: a micro-batch) and of Weights + Evaluation: a batch "
    "with its keys and values. Measured: the median of records made on CUDA devices by the same model, method, data "
    "set, precision, optimizer and micro-batch.",
    "Under a card: yes, or what would make it fit, or by how many GB it does not. recompute: "
    "hardware.gradient_checkpointing=true; rows: hardware.micro_batch; eval: hardware.evaluation_tokens, in thousands. "
    "These change no result. bf16: training.precision=bfloat16; stochastic: training.optimizer=adamw_bf16_stochastic; "
    "8-bit: training.optimizer=adamw_8bit. These change the arithmetic and make it another run.",
    "A card's context and its allocator take a gigabyte or two, about what it has beyond its name.",
)


@dataclass(frozen=True)
class Row:
    """One method on one model: its estimate, measured peaks (bytes) and what each card takes."""

    config: Config
    peak: Peak
    measured: tuple[int, ...]
    cards: Mapping[float, Fit]

    @property
    def card(self) -> float | None:
        """The smallest card that holds it as it is."""
        return next((card for card in CARDS if self.peak.bytes <= card), None)


def rows_of(axes: Mapping[str, str], overrides: Sequence[str]) -> list[Row]:
    """A row a model and method: the options that `axes` names, or the models of the hub and one method of each family.

    The overrides are of all rows. Errors: another group with several options, and what composing refuses.
    """
    for override in overrides:
        key, _, options = override.partition("=")
        if "," in options and key in ("dataset", "hardware", "protocol"):
            raise ActshiftError(f"{override}: the table has one {key}; only model= and method= may name several")
    composer = CachedComposer()
    models = axes["model"].split(",") if "model" in axes else hub_models(groups()["model"], composer)
    methods = axes["method"].split(",") if "method" in axes else METHODS
    results = Path(composer([*overrides, f"model={models[0]}"]).results)
    records = read_records(results / "records")
    return [
        _row(_composed(composer, [f"model={model}", f"method={method}", *overrides]), records)
        for model in models
        for method in methods
    ]


def _composed(composer: CachedComposer, overrides: list[str]) -> Config:
    """The config of a row: the card that its model is planned on, the longest rows, where the overrides name none."""
    given = {override.partition("=")[0] for override in overrides}
    if "hardware" not in given:
        scale = composer(overrides[:1]).model.scale
        overrides = [f"hardware={planned_hardware(scale)}", *overrides]
    if "dataset" not in given:
        overrides = [f"dataset={_longest(composer)}", *overrides]
    return composer(overrides)


def _longest(composer: CachedComposer) -> str:
    def longest(name: str) -> int:
        return int(composer([f"dataset={name}", "data.source=hub"]).dataset.tokens.longest)

    return max(groups()["dataset"], key=longest)


def _row(config: Config, records: Iterable[Record]) -> Row:
    measured = tuple(record.provenance["peak_memory_bytes"] for record in records if _is_of(record, config))
    return Row(config, estimate_peak(config), measured, {card: fit(config, card) for card in CARDS})


def _is_of(record: Record, config: Config) -> bool:
    """Whether a record says what the run of a config takes on a CUDA device, alone."""
    training, provenance, hardware = record.settings.training, record.provenance, config.hardware
    return (
        (record.cell.model, record.cell.method, record.cell.dataset)
        == (config.model.name, config.method.name, config.dataset.name)
        and training.precision == config.training.precision
        and training.optimizer == config.training.optimizer
        and provenance.get("device") == "cuda"
        and provenance.get("micro_batch") == hardware.micro_batch
        and provenance.get("gradient_checkpointing", False) == hardware.gradient_checkpointing
        and provenance.get("replicas", {}).get("train", 1) == 1
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table as a Markdown page."""
    columns = COLUMNS + CARD_COLUMNS
    lines = markdown_table(columns, map(texts, rows), right=COLUMNS[2:])
    notes = "\n".join(f"- {note}" for note in LEGEND)
    return f"# Peak memory\n\n{title(rows)}\n\n{lines}\n\n{notes}\n"


def csv(rows: Sequence[Row]) -> str:
    """A line a row: bytes, whether they are estimated in the columns' names, and overrides that can be used."""
    file = io.StringIO()
    writer = csv_module.writer(file, lineterminator="\n")
    parts = ("weights", "trained", "gradients", "states", "step", "batch")
    keys = ("dataset", "hardware", "precision", "optimizer")
    fits = [f"{kind}_{_card(card).replace(' ', '').lower()}" for card in CARDS for kind in ("fits", "overrides")]
    estimated = [f"estimated_{part}_bytes" for part in (*parts, "peak")]
    writer.writerow(["model", "method", *keys, *estimated, "measured_peak_bytes", "measured_runs", "card", *fits])
    for row in rows:
        config = row.config
        names = [config.dataset.name, config.hardware.name, config.training.precision, config.training.optimizer]
        sizes = [round(getattr(row.peak, part)) for part in parts] + [round(row.peak.bytes)]
        measured = round(statistics.median(row.measured)) if row.measured else ""
        cards = [text for each in row.cards.values() for text in (each.fits, " ".join(each.overrides))]
        card = "" if row.card is None else _card(row.card)
        head = [config.model.name, config.method.name]
        writer.writerow([*head, *names, *sizes, measured, len(row.measured), card, *cards])
    return file.getvalue()


def texts(row: Row) -> tuple[str, ...]:
    """A line of the table."""
    peak, config = row.peak, row.config
    measured = f"{_gb(statistics.median(row.measured))} ({len(row.measured)})" if row.measured else "–"
    return (
        names.model(config.model.name),
        names.method(config.method.name),
        *map(_gb, (peak.weights, peak.trained + peak.gradients + peak.states, peak.step, peak.batch, peak.bytes)),
        measured,
        *(_fit_text(row.cards[card], card) for card in CARDS),
    )


def title(rows: Sequence[Row]) -> str:
    """What all rows are computed with, and what only some are."""
    configs = [row.config for row in rows]
    found = {
        "data set": [config.dataset.name for config in configs],
        "hardware": [config.hardware.name for config in configs],
        "precision": [config.training.precision for config in configs],
        "optimizer": [config.training.optimizer for config in configs],
        "micro-batch": [str(config.hardware.micro_batch) for config in configs],
    }
    return ", ".join(f"{name} {' or '.join(dict.fromkeys(values))}" for name, values in found.items())


def _fit_text(found: Fit, card: float) -> str:
    if not found.fits:
        return f"no: {_gb(found.peak.bytes - card)} more"
    return " ".join(_short(key, value) for key, value in found.changes.items()) or "yes"


def _short(key: str, value: Any) -> str:
    if key in SHORT:
        return SHORT[key][value]
    return f"rows={value}" if key == "hardware.micro_batch" else f"eval={value // 1024}k"


def _card(size: float) -> str:
    return f"{size / 1e9:.0f} GB"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e8 else f"{size / 1e9:.2f}"
