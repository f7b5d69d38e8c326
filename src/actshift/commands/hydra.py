"""`actshift run` as Hydra users expect it: overrides, --cfg, multirun."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from actshift.config.composition import check_names, register_schemas
from actshift.config.groups import groups, search_path
from actshift.errors import ActshiftError, unknown
from actshift.libraries.private import multirun_jobs
from actshift.paths import conf_dir
from actshift.schema.config import EVALUATE, Config
from actshift.store.adapter_card import compose_request

if TYPE_CHECKING:
    from actshift.runtime.session import Session

USAGE = "actshift run [override ...] [--cfg job [--resolve]] [-m]"
HELP = f"""usage: {USAGE}

One run: train, evaluate the stage's split, record. Overrides are Hydra's:

  actshift run model=tiny method=sft dataset=boolq lr=1e-3 seed=1
  actshift run --cfg job method=lora_r8          print the composed configuration and stop
  actshift run -m method=sft,lora_r8 seed=1,2    a Hydra multirun, one job after the other
  actshift run stage=final                       score the test split (grid, the default, scores validation)
  actshift run stage=evaluate adapter=FOLDER     score a saved adapter on a test split; dataset=... names another

`actshift list` shows every group and its options. A whole table, with selection and seeds: actshift sweep."""
_SWITCH: Mapping[str, Any] = {"action": "store_true"}
FLAGS: Mapping[tuple[str, ...], Mapping[str, Any]] = {
    ("--help", "-h"): _SWITCH,
    ("--multirun", "-m"): _SWITCH,
    ("--cfg", "-c"): {"choices": ["job", "hydra", "all"]},
    ("--package", "-p"): {},
    ("--info", "-i"): {
        "nargs": "?",
        "const": "all",
        "choices": ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"],
    },
    ("--resolve",): _SWITCH,
    ("--hydra-help",): _SWITCH,
}
"""The flags of Hydra's that `actshift run` takes, as `argparse.ArgumentParser.add_argument` declares them."""


def run_command(arguments: Sequence[str]) -> int:
    """`actshift run`: one run, or with -m a Hydra multirun, every job of which is checked before the first starts."""
    given, unknown_flags = _parser().parse_known_intermixed_args(list(arguments))
    if given.help:
        print(HELP)
        return 0
    if unknown_flags:
        flag = unknown_flags[0].lstrip("-")  # --debg may mean a group, which has no dashes
        raise unknown(
            "option", flag, [*sum(FLAGS, ()), *(f"{group}=..." for group in groups())], where="actshift run --help"
        )
    printing = [flag for flag in ("cfg", "info", "hydra_help") if getattr(given, flag)]
    if given.multirun and printing:
        raise ActshiftError(
            f"-m runs several jobs, --{printing[0].replace('_', '-')} prints and runs none: leave one out"
        )
    if given.multirun:
        return multirun(given.overrides)
    if printing:
        return through_hydra(_flags_of(given), overrides=given.overrides)
    return single(given.overrides)


def _parser() -> argparse.ArgumentParser:
    """The parser of `actshift run`, whose flags stand before, between and after overrides."""
    parser = argparse.ArgumentParser(prog="actshift run", usage=USAGE, add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names, options in FLAGS.items():
        parser.add_argument(*names, **options)
    return parser


def _flags_of(given: argparse.Namespace) -> list[str]:
    """Hydra's flags of a parsed command line, each with its value."""
    valued = {f"--{name}": getattr(given, name) for name in ("cfg", "package", "info")}
    switches = {"--resolve": given.resolve, "--hydra-help": given.hydra_help}
    words = [word for flag, value in valued.items() if value is not None for word in (flag, value)]
    return [*words, *(flag for flag, on in switches.items() if on)]


def single(overrides: Sequence[str]) -> int:
    """Compose, run, and print what came out."""
    _do(compose_request(overrides))
    return 0


def multirun(overrides: Sequence[str]) -> int:
    """Hydra's own multirun, after every one of its jobs was composed and validated."""
    check_names(overrides)
    for job in _jobs(overrides):
        compose_request(job)
    return _hand_over(["--multirun"], overrides)


def through_hydra(flags: Sequence[str], *, overrides: Sequence[str]) -> int:
    """Hydra's flags, such as --cfg, for a configuration that composes and is valid."""
    compose_request(overrides)
    return _hand_over(flags, overrides)


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


def _hand_over(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Give `hydra.main` the command line: flags first, since its parser takes no overrides on both sides of one."""
    import hydra
    from omegaconf import DictConfig

    register_schemas()
    sys.argv = ["actshift run", *flags, *overrides, *search_path()]

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
