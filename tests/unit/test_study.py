"""Studies: effects, shares of variance, figures and the page, from made-up records of a small design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_sweep
from synthetic_sweep import finished, planned

from actshift.cli import main
from actshift.files import write_file
from actshift.planning.fraction import combinations
from actshift.planning.manifests import Manifest, freeze
from actshift.report.evidence import answers
from actshift.report.statistics import paired_difference, seed_variance
from actshift.report.study import effects, figures, page
from actshift.report.study.design import Study, study_of
from actshift.report.study.variance import block_runs, partial_interval, variance
from actshift.schema.building import built
from actshift.schema.config import SweepConfig
from actshift.store.store import Store

FRACTION: dict[str, Any] = {
    "factors": {
        "site": {"block": ["method=post_block", "x.site=block"], "mlp": ["method=post_block", "x.site=mlp"]},
        "scope": {"all": [], "last": []},
    },
    "blocks": [{"site": ["block", "mlp"], "scope": ["all", "last"]}],
    "contrasts": {
        "site": {"about": "the block", "claim": "takeaway_2", "compares": {"site": ["block", "mlp"]}, "within": {}},
        "scope": {"about": "every token", "compares": {"scope": ["all", "last"]}, "within": {}},
        "both": {"about": "both", "compares": {"site": ["block", "mlp"], "scope": ["all", "last"]}, "within": {}},
        "lora": {"about": "LoRA", "compares": {"method": ["lora_r8", "sft"]}, "within": {}},
    },
}
COUNTS = {
    "sft": [900, 905, 910, 895, 890],
    "lora_r8": [880, 890, 885, 870, 900],
    "block-all": [800, 810, 805, 790, 795],
    "block-last": [700, 690, 710, 720, 680],
    "mlp-all": [600, 630, 570, 610, 590],
    "mlp-last": [500, 520, 480, 490, 510],
}


def study(counts: dict[str, list[int]] = COUNTS, *, datasets: tuple[str, ...] = ("listops",)) -> Study:
    manifest, selection = a_plan(datasets)
    right = {("tiny", name, dataset): numbers for name, numbers in counts.items() for dataset in datasets}
    return study_of(manifest, finished(manifest, right), selection)


def a_plan(datasets: tuple[str, ...]) -> tuple[Manifest, Any]:
    return planned(
        methods=["sft", "lora_r8"], datasets=list(datasets), fraction=FRACTION, seeds_by_method={}, name="small"
    )


@pytest.fixture(autouse=True)
def shares(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(combinations(built(SweepConfig, {"name": "small", "fraction": FRACTION})))
    monkeypatch.setattr(synthetic_sweep, "SHARES", {**synthetic_sweep.SHARES, **dict.fromkeys(names, 440)})
    original: Callable[..., Any] = synthetic_sweep.record

    def recorded(run: Any, config: Any, **options: Any) -> Any:
        """A record's cell has the name of the method that a combination begins with."""
        made = original(run, config, **options)
        return replace(made, cell=replace(made.cell, method=config["method"]["name"]))

    monkeypatch.setattr(synthetic_sweep, "record", recorded)


def test_contrasts_are_the_differences_of_means() -> None:
    found = {each.contrast.name: each for each in effects.effects(study())}
    means = {name: np.mean(counts) / 10 for name, counts in COUNTS.items()}
    all_, last = means["block-all"] - means["mlp-all"], means["block-last"] - means["mlp-last"]
    assert found["site"].difference == pytest.approx((all_ + last) / 2)
    assert found["both"].difference == pytest.approx(all_ - last)
    assert found["scope"].difference == pytest.approx(
        (means["block-all"] - means["block-last"] + means["mlp-all"] - means["mlp-last"]) / 2
    )
    assert found["lora"].difference == pytest.approx(means["lora_r8"] - means["sft"])
    assert (found["site"].pairs, found["site"].planned) == (2, 2)
    assert found["site"].shown and not found["both"].shown
    assert all(each.difference in each.interval for each in found.values())


def test_a_contrast_of_two_methods_is_the_difference_of_tables() -> None:
    manifest, selection = a_plan(("listops",))
    records = finished(manifest, {("tiny", name, "listops"): numbers for name, numbers in COUNTS.items()})
    bits: dict[str, list[Any]] = {
        name: [answers(each) for each in records if each.cell.method == name] for name in ("sft", "lora_r8")
    }
    seeds = seed_variance(list(bits.values()))
    assert seeds is not None
    expected = paired_difference(bits["lora_r8"], bits["sft"], seeds=seeds)
    (found,) = [e for e in effects.effects(study_of(manifest, records, selection)) if e.contrast.name == "lora"]
    assert (found.interval, found.p) == (expected.interval, expected.p)


def test_p_values_are_adjusted_for_all_that_was_planned() -> None:
    """Four contrasts on two data sets: the smallest of the p values is taken eight times, finished or not."""
    counts = {name: numbers for name, numbers in COUNTS.items() if name != "mlp-last"}
    found = effects.effects(study(counts, datasets=("listops", "boolq")))
    tested = [each for each in found if each.dataset != effects.ALL]
    assert {each.contrast.name: each.pairs for each in tested} == {"site": 1, "scope": 1, "lora": 1}
    smallest = min(tested, key=lambda each: each.p)
    assert smallest.p_holm == pytest.approx(min(1.0, 8 * smallest.p))
    (mean,) = [each for each in found if each.dataset == effects.ALL and each.contrast.name == "site"]
    assert mean.p_holm is None and (mean.pairs, mean.planned) == (2, 4)
    assert mean.interval.high - mean.interval.low < tested[0].interval.high - tested[0].interval.low


def test_pairs_at_a_floor_are_counted() -> None:
    found = effects.effects(study(COUNTS | {"block-last": [0, 3, 0, 10, 0], "mlp-last": [0] * 5}))
    assert {each.contrast.name: (each.pairs, each.floors) for each in found} == {
        **{"site": (2, 1), "scope": (2, 0), "both": (1, 0), "lora": (1, 0)}
    }
    made = study(COUNTS | {"block-last": [0] * 5, "mlp-last": [0] * 5})
    (site,) = [each for each in effects.effects(made) if each.contrast.name == "site"]
    assert "In 1 of 2 pairs neither side answers anything right" in page.sentence(site, made)


def test_the_analysis_of_variance_is_the_one_of_the_textbook() -> None:
    """Balanced, so that sums of squares are those of means: a = sites, b = scopes, n = 5 runs of each."""
    made = study()
    runs = block_runs(made, made.fraction.blocks[0], "listops")
    assert runs is not None and len(runs) == 20
    table = variance(made).set_index("source")
    grand = runs["accuracy"].mean()
    of = {name: 10 * ((runs.groupby(name)["accuracy"].mean() - grand) ** 2).sum() for name in ("site", "scope")}
    cells = runs.groupby(["site", "scope"])["accuracy"].transform("mean")
    noise = ((runs["accuracy"] - cells) ** 2).sum()
    together = ((cells - grand) ** 2).sum() - of["site"] - of["scope"]
    for source, square in {**of, "site:scope": together, "runs": noise}.items():
        assert table.loc[source, "sum_sq"] == pytest.approx(square, rel=1e-5, abs=1e-6)
    total = ((runs["accuracy"] - grand) ** 2).sum()
    assert table.loc["site", "share"] == pytest.approx(of["site"] / total, rel=1e-5)
    assert table.loc["site", "F"] == pytest.approx(of["site"] / (noise / 16), rel=1e-4)
    assert table.loc["site", "partial"] == pytest.approx(of["site"] / (of["site"] + noise), rel=1e-5)
    assert table.loc["site", "partial_low"] < table.loc["site", "partial"] < table.loc["site", "partial_high"]


def test_the_interval_of_partial_eta_squared() -> None:
    """Its ends have the observed F at the 97.5th and 2.5th percentile of the noncentral distribution."""
    from scipy.stats import ncf

    low, high = partial_interval(9.0, 2, 30)
    for end, share in ((low, 0.975), (high, 0.025)):
        noncentrality = end * (2 + 30 + 1) / (1 - end)
        assert ncf.cdf(9.0, 2, 30, noncentrality) == pytest.approx(share, abs=1e-6)
    assert partial_interval(0.1, 2, 30)[0] == 0.0


def test_a_block_that_is_not_finished_has_no_analysis_and_its_cells_are_named() -> None:
    counts = {name: numbers for name, numbers in COUNTS.items() if name != "mlp-last"}
    part = study(counts)
    assert variance(part).empty and part.done == 5 and part.planned == 6
    text = page.markdown([page.Findings(part, effects.effects(part), variance(part), {})], command="actshift study x")
    assert "5 of 6 cells finished" in text and "not finished" in text and "1/2" in text


def test_the_page_says_what_is_shown_and_what_is_excluded() -> None:
    made = study()
    found = page.Findings(made, effects.effects(made), variance(made), {"contrasts": "small_contrasts.png"})
    text = page.markdown([found], command="actshift study small")
    assert "* Shown, the block: ListOps +20.0 points." in text
    assert "**A gain is shown**; a gain of less than" in text
    assert "](small_contrasts.png)" in text and "\nactshift study small\n" in text
    assert "actshift sweep small --extend execution=replicas" in text
    assert "No study here bears on it." in text, "takeaway 1 has no contrast here"


def test_nothing_run_yet_is_a_page_too() -> None:
    none = study({})
    assert effects.effects(none) == [] and figures.combinations(none) is None and figures.contrasts(none, []) is None
    text = page.markdown([page.Findings(none, [], variance(none), {})], command="actshift study x")
    assert "0 of 6 cells are finished" in text
    assert "answered by every seed (42, 43, 44, 45 and 46)" in text, "the seeds that are planned"


def test_figures_show_every_run_and_every_contrast() -> None:
    made = study(datasets=("listops", "boolq"))
    bars, lines = figures.combinations(made), figures.contrasts(made, effects.effects(made))
    assert bars is not None and lines is not None
    assert [len(ax.lines) for ax in bars.axes] == [6, 6]
    assert [label.get_text() for label in lines.axes[0].get_yticklabels()] == ["site", "scope", "both", "lora"]
    assert len(lines.axes) == 3, "two data sets and their mean"


def test_a_frame_of_effects_has_a_row_for_each() -> None:
    found = effects.effects(study())
    frame = effects.frame(found)
    assert list(frame.columns) == list(effects.COLUMNS) and len(frame) == len(found) == 4
    assert isinstance(frame, pd.DataFrame) and frame["low"].lt(frame["difference"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["small1"], "the sweep 'small1' is no study"),
        (["stdy"], "Did you mean 'study'"),
        (["study", "method=sft"], "takes results=FOLDER and no other override"),
    ],
)
def test_the_command_refuses(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    manifests = Path(__file__).parents[2] / "results" / "manifests"
    store = Store(tmp_path / "results")
    write_file(store.manifest_path("small1", "grid"), (manifests / "small1.grid.jsonl").read_text(encoding="utf-8"))
    freeze(store, replace(a_plan(("listops",))[0], sweep="study", stage="grid", runs=()))
    assert main(["study", *words]) == 2
    assert message in capsys.readouterr().err
