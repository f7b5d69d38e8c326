"""`actshift analyze`: what an analysis finds, printed and written to FOLDER/analyses."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.commands import analysis_jobs
from actshift.commands.requests import console, split_options
from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.config.identity import identity_of, ignored_keys
from actshift.errors import ActshiftError, unknown
from actshift.files import write_file
from actshift.schema.analysis import AnalysisConfig, TheoryConfig
from actshift.schema.config import Config

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def analyze_command(request: Namespace) -> int:
    """Do one analysis. Errors: a name that conf/analysis does not have, or that no code of ours knows."""
    if request.name not in groups()["analysis"]:
        raise unknown("analysis", request.name, groups()["analysis"], where="conf/analysis/")
    if any(override.startswith("analysis=") for override in request.overrides):
        raise ActshiftError("analysis=... : the analysis is the command's first word, as in `actshift analyze theory`")
    own, overrides = split_options(request.overrides, ["profile"])
    _refuse_together(request, profile=own.get("profile"))
    config = compose([f"analysis={request.name}", *overrides])
    if request.plan:
        return analysis_jobs.plan_analysis(config, overrides)
    if request.submit:
        return analysis_jobs.submit_analysis(request, config, profile=own.get("profile"), overrides=overrides)
    if request.train:
        _train(config)
    ANALYSES[request.name](config, Path(config.results) / "analyses")
    return 0


def _refuse_together(request: Namespace, *, profile: str | None) -> None:
    """Refuse what means nothing: plan and submit at once, and options of a submission without one."""
    if request.plan and (request.submit or request.train):
        raise ActshiftError("--plan does nothing but print what the analysis costs: leave --submit and --train out")
    given = {"--dry-run": request.dry_run, "--slurm": request.slurm, "profile=...": profile}
    if not request.submit and (alone := [name for name, value in given.items() if value]):
        raise ActshiftError(f"{', '.join(alone)}: only with --submit, which hands the analysis to a SLURM cluster")


def _train(config: Config) -> None:
    """Do the sweeps whose adapters an analysis looks at, where some are missing. Errors: an analysis of no sweep."""
    from actshift.commands.runs import sweep_command

    for each in analysis_jobs.missing_adapters(config):
        overrides = analysis_jobs.sweep_overrides(config)
        sweep_command(Namespace(sweep=each.sweep, overrides=overrides, retry=False, replan=False, extend=False))


def theory(config: Config, folder: Path) -> None:
    """The theory ledger: one line a statement in the terminal; theory.json, theory.csv and theory.md."""
    from actshift.analysis.theory import ledger
    from actshift.commands.terminal_frames import theory_table
    from actshift.report import theory as pages

    analysis = config.analysis_as(TheoryConfig)
    real, model = {}, None
    if analysis.activations:
        from actshift.analysis.real_draws import families

        real = families(config)
        identity = identity_of(config, ignore=ignored_keys())
        model = {"model": config.model.name, "dataset": config.dataset.name, "identity": identity}
    entries = ledger.ledger(analysis, real)
    checks, record = ledger.frame(entries), ledger.record(entries, analysis, model=model)
    console().print(theory_table(record))
    texts = {"json": ledger.json_text(record), "csv": checks.to_csv(index=False), "md": pages.markdown(record, checks)}
    for ending, text in texts.items():
        write_file(folder / f"theory.{ending}", text)
        print(folder / f"theory.{ending}")


def oracle(config: Config, folder: Path) -> None:
    """Oracle steering of one model: oracle-MODEL.csv, .json and three figures."""
    from actshift.analysis.oracle import oracle as frame_of
    from actshift.report.analysis_figures import oracle_maps, oracle_sites, oracle_spectrum

    frame = frame_of(config)
    print(frame[frame["layer"].isna()].to_string(index=False))
    figures = {"_sites": oracle_sites(frame), "_maps": oracle_maps(frame), "_spectrum": oracle_spectrum(frame)}
    _write(config, folder, {"": frame}, figures)


def overlap(config: Config, folder: Path) -> None:
    """Figure 3 of one model: overlap-MODEL.csv, the inner products of three layers, .json and two figures."""
    from actshift.analysis.overlap import overlaps
    from actshift.report.analysis_figures import overlap_by_layer, overlap_maps

    frame, maps = overlaps(config)
    print(frame.to_string(index=False))
    figures = {"": overlap_by_layer(frame), "_maps": overlap_maps(maps)}
    _write(config, folder, {"": frame, "_maps": maps}, figures)


def shares(config: Config, folder: Path) -> None:
    """Figure 2 of one model: shares-MODEL.csv, .json and a figure."""
    from actshift.analysis.shares import shares as frame_of
    from actshift.report.adapter_figures import mlp_shares

    frame = frame_of(config)
    print(frame.to_string(index=False))
    _write(config, folder, {"": frame}, {"": mlp_shares(frame)})


def cosines(config: Config, folder: Path) -> None:
    """Figure 5 of one model: cosines-MODEL.csv by layer, histograms over all layers, .json and two figures."""
    from actshift.analysis.shifts import cosines as frames_of
    from actshift.report.adapter_figures import cosine_histograms, cosines_by_layer

    frame, pooled = frames_of(config)
    keys = ["tokens", "method", "against"]
    print(frame.groupby(keys, sort=False)[["mean", "std", "mean_abs"]].mean().round(4).to_string())
    figures = {"": cosines_by_layer(frame), "_pooled": cosine_histograms(pooled)}
    _write(config, folder, {"": frame, "_pooled": pooled}, figures)


def norms(config: Config, folder: Path) -> None:
    """Figure 6 of one model: norms-MODEL.csv, .json and a figure."""
    from actshift.analysis.shifts import norms as frame_of
    from actshift.report.adapter_figures import norms_by_layer

    frame = frame_of(config)
    print(frame.groupby(["method", "layer"], sort=False)[["norm", "product"]].mean().round(4).to_string())
    _write(config, folder, {"": frame}, {"": norms_by_layer(frame)})


def continuations(config: Config, folder: Path) -> None:
    """Divergence along the fine-tuned model's continuations: continuations-MODEL.csv, .json and a figure."""
    from actshift.analysis.continuations import continuations as frame_of
    from actshift.report.analysis_figures import divergence_by_token

    frame = frame_of(config)
    print(frame[frame["token"] <= 8].to_string(index=False))
    _write(config, folder, {"": frame}, {"": divergence_by_token(frame)})


def retention(config: Config, folder: Path) -> None:
    """What adaptation costs elsewhere: retention-MODEL.csv, .json and a figure."""
    from actshift.analysis.retention import retention as frame_of
    from actshift.report.adapter_figures import retention_fronts

    frame = frame_of(config)
    print(frame.groupby("method", sort=False).mean().drop(columns="seed").round(3).to_string())
    _write(config, folder, {"": frame}, {"_front": retention_fronts(frame)})


def latency(config: Config, folder: Path) -> None:
    """What adapters cost when they answer: latency-MODEL.csv, .json and a figure. Times are of this machine."""
    from actshift.analysis.latency import latency as frame_of
    from actshift.report.latency_figure import latency_ratios

    frame = frame_of(config)
    shown = ["method", "folded", "batch", "milliseconds_per_token", "token_ratio", "prompt_ratio", "adapter_bytes"]
    print(frame[shown].round(2).to_string(index=False))
    _write(config, folder, {"": frame}, {"_ratios": latency_ratios(frame)})


def _write(config: Config, folder: Path, frames: Mapping[str, pd.DataFrame], figures: Mapping[str, Figure]) -> None:
    """The frames as CSV, what they were made from as JSON, and the figures; NAME-MODEL is what all files begin with."""
    from actshift.analysis.records import record
    from actshift.report.figures import write

    name = f"{config.analysis_as(AnalysisConfig).name}-{config.model.name}"
    texts = {f"{name}{part}.csv": frame.to_csv(index=False, float_format="%.6g") for part, frame in frames.items()}
    texts[f"{name}.json"] = record(config, texts)
    for file, text in texts.items():
        write_file(folder / file, text)
        print(folder / file)
    for path in write({part.strip("_") or "layers": each for part, each in figures.items()}, folder, sweep=name):
        print(path)


ANALYSES: dict[str, Callable[[Config, Path], None]] = {
    "theory": theory,
    "oracle": oracle,
    "overlap": overlap,
    "shares": shares,
    "cosines": cosines,
    "norms": norms,
    "continuations": continuations,
    "retention": retention,
    "latency": latency,
}
"""What does each analysis of conf/analysis."""
