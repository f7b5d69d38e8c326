"""Analyses as jobs of a cluster: what they cost, what they wait for, and what sbatch is called with."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from adapted import base_of, composed

from actshift.analysis import oracle as oracle_module
from actshift.analysis.activations import batch_of
from actshift.cli import main
from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.estimates.analyses import WORKS, estimate_analysis, fitting, has_rows, tokens_of
from actshift.estimates.memory import all_weights
from actshift.paths import slurm_dir
from actshift.runtime.session import Session
from actshift.sweeps import slurm
from actshift.sweeps.profiles import read_profiles
from actshift.sweeps.slurm import Job

PAPER = ["model=llama3.2-1b", "dataset=winogrande", "data.source=hub"]
OF_TABLE_4 = ["analysis.sweep=table4", "hardware=a100-40gb"]


# --- estimates --------------------------------------------------------------------------------------------------


def test_every_analysis_has_an_estimate_on_every_model_of_the_paper() -> None:
    for name in groups()["analysis"]:
        small, *larger = (
            compose([f"analysis={name}", f"model={model}", *PAPER[1:], "hardware=a100-80gb"])
            for model in ("llama3.2-1b", "qwen3-4b", "llama3.1-8b")
        )
        costs = [estimate_analysis(config, adapters=10) for config in (small, *larger)]
        assert all(0 < cost.seconds < 100 * 3600 for cost in costs), name
        assert [cost.peak_bytes for cost in costs] == sorted(cost.peak_bytes for cost in costs)
        assert costs[0].peak_bytes >= 4 * all_weights(small.model.shape)
    assert {type(compose([f"analysis={name}"]).analysis) for name in groups()["analysis"]} == set(WORKS)


def test_more_rows_and_more_adapters_cost_more() -> None:
    def cost(rows: int, adapters: int) -> tuple[float, float]:
        config = compose(["analysis=shares", *PAPER, "hardware=a100-40gb", f"analysis.rows={rows}"])
        found = estimate_analysis(config, adapters=adapters)
        return found.seconds, found.peak_bytes

    assert cost(100, 5)[0] > cost(100, 1)[0] and cost(100, 5)[1] == cost(100, 1)[1]
    assert cost(200, 5) > cost(100, 5)


def test_hidden_states_and_logits_by_hand() -> None:
    """Shares keep two sites of every layer twice, and logits of one pass, beside weights and the inside of an MLP."""
    config = compose(["analysis=shares", *PAPER, "hardware=a100-40gb", "analysis.rows=10"])
    shape, tokens = config.model.shape, 10 * 80
    assert tokens_of(config) == tokens
    expected = 4 * all_weights(shape) + 4 * 4 * 16 * tokens * 2048 + 4 * tokens * 128256 + 4 * tokens * 3 * 8192
    assert estimate_analysis(config, adapters=1).peak_bytes == pytest.approx(expected)


def test_rows_are_halved_until_an_analysis_fits() -> None:
    config = compose(["analysis=oracle", *PAPER, "hardware=a100-40gb", "analysis.rows=400"])
    assert has_rows(config) and estimate_analysis(config, adapters=0).peak_bytes > 40e9
    rows = fitting(config, 40e9, adapters=0)
    assert rows == 50
    assert fitting(config, 1e9, adapters=0) is None, "the weights alone are more"
    assert not has_rows(compose(["analysis=latency"]))


def test_the_hidden_states_that_oracle_steering_holds_are_those_that_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every tensor of the size of a hidden state that is alive when the first map is fitted."""
    config = composed("analysis=oracle", "model=random-llama", "dataset=listops", "analysis.rows=6", "hardware=cpu")
    base = base_of("random-llama")
    wanted = (*batch_of(config, base, rows=6, session=Session()).ids_BT.shape, base.sites.model_width)
    counted: list[int] = []

    def count(batch: object, before: dict, after: dict, analysis: object) -> list:
        shifts = base.sites.layers
        counted.append(sum(tensor.shape == wanted for places in (before, after) for tensor in places.values()) + shifts)
        return []

    monkeypatch.setattr(oracle_module, "_maps", count)
    monkeypatch.setattr(oracle_module, "_steering", lambda *given: [])
    oracle_module.oracle(config)
    work = WORKS[type(config.analysis)](config, config.analysis, 1.0, 0)
    assert counted == [work.states] and torch.is_grad_enabled()


# --- plan -------------------------------------------------------------------------------------------------------


def test_the_plan_prices_an_analysis_of_the_papers_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "cosines", *PAPER, OF_TABLE_4[0], "--plan", f"results={tmp_path}"]) == 0
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.strip().startswith("cosines")).split()
    assert line[:5] == ["cosines", "llama3.2-1b", "winogrande", "a100-40gb", "10"], "two methods, five seeds"
    assert 0 < float(line[5]) < 12 and 5 < float(line[6]) < 40
    assert "adapters of table4 (joint, joint_orth): not planned yet; `actshift plan table4`" in text
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"
    assert main(["analyze", "oracle", *PAPER, "analysis.rows=400", "--plan", f"results={tmp_path}"]) == 0
    assert "over 40 GB: fits with analysis.rows=50" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan", "--submit"], "leave --submit and --train out"),
        (["--plan", "--train"], "leave --submit and --train out"),
        (["--dry-run"], "--dry-run: only with --submit"),
        (["profile=cpu"], "profile=...: only with --submit"),
        (["--submit", "--slurm", "nowhere"], "there is no nowhere/array.sbatch"),
        (["--submit", "profile=nothing"], "unknown profile 'nothing'"),
    ],
)
def test_what_means_nothing_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["analyze", "norms", f"results={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err


# --- submission -------------------------------------------------------------------------------------------------


class Cluster:
    """What sbatch and squeue answer: jobs are numbered from 7, and all of them wait."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> str:
        if command[0] == "squeue":
            return "".join(f"{7 + number}|N/A\n" for number in range(len(self.calls)))
        self.calls.append(list(command))
        return f"{6 + len(self.calls)}\n"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(slurm, "_call", found)
    monkeypatch.setattr(slurm, "array_size", lambda: 1000)
    return found


def test_an_analysis_is_one_job_that_asks_for_a_gpu(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["analyze", "overlap", *PAPER, "analysis.rows=8", "results=my results", "--submit"]
    assert main(words) == 0
    (call,) = cluster.calls
    assert {"--gres=gpu:a100:1", "--mem=48G", "--job-name=actshift-analyze-overlap"} <= set(call)
    assert not any(option.startswith(("--array", "--signal", "--dependency")) for option in call)
    given = call[call.index("actshift.cli") :]
    assert given[:2] == ["actshift.cli", "analyze"] and "hardware=a100-40gb" in given and "analysis.rows=8" in given
    (results,) = [word for word in given if word.startswith("results=")]
    assert compose([results]).results == str(tmp_path / "my results"), "the same folder wherever the job starts"
    assert main(words) == 0
    assert len(cluster.calls) == 1
    assert "job 7 is this analysis, and waits or runs" in capsys.readouterr().out
    assert main([*words, "analysis.directions=20"]) == 0
    assert len(cluster.calls) == 2, "another request is another job"


def test_a_dry_run_prints_the_call_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "cosines", *PAPER, OF_TABLE_4[0], f"results={tmp_path}", "--submit", "--dry-run"]
    assert main(words) == 0
    first, call = capsys.readouterr().out.splitlines()
    assert first.startswith("adapters of table4 (joint, joint_orth): not planned yet: `actshift submit table4")
    assert first.endswith("must be there or in the queue first")
    assert "--dependency=afterany:<jobs of table4>" in shlex.split(call)
    assert list(tmp_path.iterdir()) == []


def test_missing_adapters_are_named_or_waited_for(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["analyze", "norms", "dataset=boolq", f"results={tmp_path}", "profile=cpu", "--submit"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "needs adapters of shifts (joint, joint_orth): not planned yet" in message
    assert f"`actshift submit shifts results={tmp_path}`" in message and "--train" in message
    assert cluster.calls == []
    assert main([*words, "--train"]) == 0
    *sweep, last = cluster.calls
    assert len(sweep) >= 3, "grid, selection and final stage of the sweep"
    before = ":".join(str(7 + number) for number in range(len(sweep)))
    assert f"--dependency=afterany:{before}" in last and "--kill-on-invalid-dep=yes" in last
    notes = (tmp_path / "slurm/analyze-norms/jobs.jsonl").read_text().splitlines()
    assert [json.loads(line)["job"] for line in notes] == [str(7 + len(sweep))]


def test_an_analysis_that_is_longer_than_a_job_may_be_is_refused(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    shutil.copytree(slurm_dir(), site)
    profile = site / "profiles" / "a100-40gb.yaml"
    profile.write_text(profile.read_text().replace('"12:00:00"', '"00:05:00"'))
    words = ["analyze", "oracle", *PAPER, f"results={tmp_path}", "--submit", "--slurm", str(site)]
    assert main(words) == 2
    assert "profile a100-40gb ends a job after 0.1 h: give it fewer rows" in capsys.readouterr().err
    assert cluster.calls == []


def test_a_job_without_an_array_may_ask_for_a_node() -> None:
    profile = read_profiles(slurm_dir() / "profiles")["a100-40gb"]
    calls = [
        Job("n", profile, ("m",), device=device, after_jobs=("3", "4")).command(
            script=Path("/s/array.sbatch"), logs=Path("/l"), ids=[]
        )
        for device in (False, True)
    ]
    assert ["--gres=gpu:a100:1" in call for call in calls] == [False, True]
    assert all("--dependency=afterany:3:4" in call for call in calls)
