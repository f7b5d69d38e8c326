"""`actshift run` as Hydra users expect it: overrides, --cfg, multirun."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from actshift.config.composition import check_names, register_schemas
from actshift.config.groups import search_path
from actshift.errors import ActshiftError
from actshift.libraries.private import multirun_jobs
from actshift.paths import conf_dir
from actshift.schema.config import EVALUATE, Config
from actshift.store.adapter_card import compose_request

if TYPE_CHECKING:
    from actshift.runtime.session import Session

HELP = """usage: actshift run [override ...] [--cfg job [--resolve]] [-m]

One run: train, evaluate the stage's split, record. Overrides are Hydra's:

  actshift run model=tiny method=sft dataset=boolq lr=1e-3 seed=1
  actshift run --cfg job method=lora_r8          print the composed configuration and stop
  actshift run -m method=sft,lora_r8 seed=1,2    a Hydra multirun, one job after the other
  actshift run stage=final                       score the test split (grid, the default, scores validation)
  actshift run stage=evaluate adapter=FOLDER     score a saved adapter on a test split; dataset=... names another

`actshift list` shows every group and its options. A whole table, with selection and seeds: actshift sweep."""


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """The overrides among the arguments: what is neither a flag nor the value of one."""
    with_value = ("--cfg", "-c", "--package", "-p", "--info", "-i")
    return [
        argument
        for index, argument in enumerate(arguments)
        if not argument.startswith("-") and not (index and arguments[index - 1] in with_value)
    ]


def single(overrides: Sequence[str]) -> int:
    """Compose, run, and print what came out."""
    _do(compose_request(overrides))
    return 0


def multirun(arguments: Sequence[str], *, overrides: Sequence[str]) -> int:
    """Hydra's own multirun, after every one of its jobs was composed and validated."""
    check_names(overrides)
    for job in _jobs(overrides):
        compose_request(job)
    return _hand_over(arguments)


def through_hydra(arguments: Sequence[str], *, overrides: Sequence[str]) -> int:
    """Hydra's flags, such as --cfg, for a configuration that composes and is valid."""
    compose_request(overrides)
    return _hand_over(arguments)


def _jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a multirun, as Hydra's sweeper takes them apart."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            # The loader knows which options a glob stands for.
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            jobs = multirun_jobs(parser.parse_overrides(list(overrides)))
    except HydraException as error:
        raise ActshiftError(f"this multirun cannot be taken apart: {error}") from error
    return [[override for override in job if not override.startswith("hydra")] for job in jobs]


def _hand_over(arguments: Sequence[str]) -> int:
    """Give `hydra.main` the command line."""
    import hydra
    from omegaconf import DictConfig

    register_schemas()
    sys.argv = ["actshift run", *arguments, *search_path()]

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(_: DictConfig) -> float:
        from hydra.core.hydra_config import HydraConfig

        try:
            return _do(compose_request(list(HydraConfig.get().overrides.task)), session=_warm_session())
        except ActshiftError as error:
            print(f"actshift: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    job()
    return 0


@cache
def _warm_session() -> Session:
    """One for all jobs of a multirun, so that the base model is loaded once."""
    from actshift.runtime.session import Session

    return Session()


def _do(config: Config, *, session: Session | None = None) -> float:
    """Run a resolved configuration, print the result, and return the accuracy (percent) or loss."""
    from actshift.observe.progress import PrintedProgress
    from actshift.runtime.run import run

    if config.stage == EVALUATE:
        return _evaluate(config, session=session)
    record = run(config, session=session, progress=PrintedProgress())
    metrics = record.metrics
    print(
        f"{record.cell} lr={record.lr:g} seed={record.seed}: {record.split} {record.outcome}, "
        f"trainable {metrics['trainable_parameters']:,} of "
        f"{metrics['total_parameters']:,}\n{config.results}/records/{record.file_name}"
    )
    return float(metrics["accuracy"] if "accuracy" in metrics else metrics["loss"] or "nan")


def _evaluate(config: Config, *, session: Session | None) -> float:
    """Evaluate an adapter, print the result and what it is not, and return the accuracy (percent)."""
    from actshift.observe.progress import PrintedProgress
    from actshift.runtime.evaluate import evaluate

    found = evaluate(config, session=session, progress=PrintedProgress())
    adapter, metrics = found.adapter, found.metrics
    print(
        f"adapter {adapter['identity']} ({adapter['model']} / {adapter['method']}, trained on {adapter['dataset']}, "
        f"{adapter['source']}, {adapter['protocol']}) on the test split of {found.dataset} "
        f"({config.data.source}, {config.protocol.name}): accuracy {metrics['accuracy']:.2f} "
        f"({metrics['correct']}/{metrics['rows']}). An evaluation is no record: no table shows it.\n"
        f"{config.results}/evaluations/{found.file_name}"
    )
    return float(metrics["accuracy"])
