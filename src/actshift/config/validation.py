"""The values that a configuration can have, checked before any model or data is loaded."""

from __future__ import annotations

import math
from operator import attrgetter
from pathlib import Path
from typing import Any

from actshift.config.keys import REGISTERED
from actshift.config.objective_validation import validate_objective
from actshift.config.packages import validate_installed
from actshift.data.splits import check_rules
from actshift.errors import ActshiftError, shown, unknown
from actshift.errors import impossible as _impossible
from actshift.methods import KINDS
from actshift.paths import embedded_model_dir
from actshift.schema.analysis import AnalysisConfig, ContinuationsConfig, OracleConfig
from actshift.schema.building import plain
from actshift.schema.config import EVALUATE, SWEEP_NAME, Config, ModelConfig, SweepConfig
from actshift.schema.data import DatasetConfig
from actshift.schema.fields import refuse_impossible
from actshift.tasks import TASKS, task_of


def validate(config: Config, *, planned: bool = False) -> None:
    """Refuse a resolved configuration that cannot be run, naming the key, the value and what is allowed.

    One that is only planned needs no folder of data and no optional package yet: each launch checks that.
    """
    for key, names in REGISTERED.items():
        if (value := attrgetter(key)(config)) not in names:
            raise unknown(key, value, names, where=f"{key}=<name> or conf/")
    refuse_impossible(config)
    if (config.stage == EVALUATE) != (config.adapter is not None):
        raise _impossible("adapter", config.adapter, "an adapter's folder with stage=evaluate, else null")
    if not config.results or Path(config.results).is_file():
        raise _impossible("results", config.results or "''", "a folder")
    _validate_halving(config)
    _validate_model(config.model)
    _validate_optimizer(config)
    if not planned:
        validate_folder(config.data.dir, source=config.data.source)
        validate_installed(config)
    _validate_data(config)
    validate_objective(config)
    check = KINDS[config.method.kind].check
    if check is not None:
        check(config.method, model=config.model)
    if config.sweep is not None:
        _validate_sweep(config.sweep)
    if config.analysis is not None:
        _validate_analysis(config.analysis)


def _validate_analysis(analysis: AnalysisConfig) -> None:
    ranks = analysis.ranks if isinstance(analysis, OracleConfig | ContinuationsConfig) else []
    if not all(rank >= 1 for rank in ranks):
        raise _impossible("analysis.ranks", ranks, "a list of ranks of 1 or more")


def _validate_model(model: ModelConfig) -> None:
    shape = model.shape
    if shape.heads % shape.kv_heads:
        raise _impossible("model.shape.kv_heads", shape.kv_heads, f"a divisor of the {shape.heads} heads")
    if not model.path:
        raise _impossible("model.path", model.path, "a name on the hub, a model's folder or a GGUF file")
    if model.source in ("embedded", "random") and not embedded_model_dir(model.path).is_dir():
        there = [folder.name for folder in embedded_model_dir("").iterdir() if (folder / "config.json").is_file()]
        raise unknown("embedded model", model.path, there, where="model.path")


def validate_folder(folder: str | None, *, source: str) -> None:
    """Refuse local data without the folder that holds them."""
    if source == "local" and not (folder and Path(folder).expanduser().is_dir()):
        raise ActshiftError(
            f"data.dir = {shown(folder)} is impossible: it must be an existing folder of data sets, since "
            "data.source=local. Give data.dir=FOLDER to this command, whatever was planned: rows lie elsewhere on each "
            "machine."
        )


def _validate_optimizer(config: Config) -> None:
    """Refuse stochastic rounding to bfloat16 where nothing that trains is bfloat16: adapters are float32."""
    training = config.training
    full = KINDS[config.method.kind].trains_base
    rounded = training.precision == "bfloat16" and full
    if training.optimizer == "adamw_bf16_stochastic" and not rounded:
        trains = "weights" if full else "adapters"
        raise _impossible(
            "training.optimizer",
            training.optimizer,
            f"adamw or adamw_8bit, since the {trains} that train here are float32 and are not rounded. "
            "It is for method=sft training.precision=bfloat16",
        )


def _validate_halving(config: Config) -> None:
    """Refuse successive halving where runs cannot be continued one by one or have no validation loss."""
    if config.selection != "halving":
        return
    if config.execution != "separate":
        raise _impossible("execution", config.execution, "separate with selection=halving, which stops runs singly")
    if not config.training.validation_rows:
        raise _impossible("training.validation_rows", 0, "at least 1 with selection=halving, which compares their loss")


def _validate_data(config: Config) -> None:
    data, dataset = config.data, config.dataset
    check_rules(data.splits)
    rows = {"procedural": dataset.procedural.rows, "hub": dataset.hub.rows}.get(data.source)
    for split, rule in data.splits.by_name().items():
        if rows and rule is not None and rule.source not in rows:
            raise unknown(f"split of {dataset.name}", rule.source, rows, where=f"data.splits.{split}.source")
    task = task_of(dataset)
    if (dataset.kind == "benchmark") != task.scored:
        raise _impossible("dataset.kind", dataset.kind, f"what task '{dataset.task}' is: benchmarks are scored")
    if config.evaluation.scoring == "likelihood" and not task.multiple_choice:
        able = ", ".join(name for name, task in TASKS.items() if task.multiple_choice)
        raise _impossible("evaluation.scoring", "likelihood", f"generation for {dataset.name}; likelihood for {able}")
    if data.source == "procedural":
        _validate_procedural(dataset)
    if data.source == "hub" and not dataset.hub.path:
        raise _impossible("data.source", "hub", f"local: {dataset.name} has no dataset.hub.path")
    if data.origin != dataset.origin(data.source):
        # The run reads the data set's settings and its identity counts these: they must be the same.
        raise ActshiftError(
            f"data.origin = {plain(data.origin)} is impossible: it follows dataset.{data.source}. "
            f"Set that key instead, with dataset.{data.source}.<key>=... or in conf/dataset/."
        )


def _validate_procedural(dataset: DatasetConfig) -> None:
    where = "dataset.procedural"
    if not dataset.procedural.rows:
        raise _impossible("data.source", "procedural", f"local or hub: {dataset.name} has no generator of rows")
    for split, rows in dataset.procedural.rows.items():
        if rows < 1:
            raise _impossible(f"{where}.rows.{split}", rows, "at least 1")
    given, taken = dataset.procedural.difficulty, task_of(dataset).difficulty
    for name in given:
        if name not in taken:
            raise unknown(f"difficulty of {dataset.task}", name, taken, where=f"{where}.difficulty")
    if missing := sorted(set(taken) - set(given)):
        raise ActshiftError(f"{where}.difficulty of {dataset.task} lacks {', '.join(missing)}. Set them in conf/.")


def _validate_sweep(sweep: SweepConfig) -> None:
    if not SWEEP_NAME.fullmatch(sweep.name):
        allowed = "letters, digits, '.', '_' and '-', a letter or digit first: it names files"
        raise _impossible("sweep.name", sweep.name or "''", allowed)
    axes: dict[str, list[Any]] = {
        "models": sweep.models,
        "methods": sweep.methods,
        "datasets": sweep.datasets,
        "seeds": sweep.seeds,
    }
    for axis, values in axes.items():
        if not values or len(set(values)) < len(values):
            raise _impossible(f"sweep.{axis}", values, "a list of at least one value, none of them twice")
    if sweep.reference not in sweep.methods:
        raise unknown("reference method", sweep.reference, sweep.methods, where="sweep.reference")
    for method in sweep.seeds_by_method:
        if method not in sweep.methods:
            raise unknown("method", method, sweep.methods, where="sweep.seeds_by_method")
    for scale, grids in sweep.rates.items():
        for family, rates in grids.items():
            if not rates:
                raise _impossible(f"sweep.rates.{scale}.{family}", rates, "a grid of at least one learning rate")
            for rate in rates:
                if not 0 < rate < math.inf:
                    raise _impossible(f"sweep.rates.{scale}.{family}", rates, "positive learning rates")
