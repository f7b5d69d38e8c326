"""A sweep whose runs train at once gives the records of one whose runs train alone, and says so in them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.estimates import costs
from actshift.evaluation.predictions import read_predictions
from actshift.planning.manifests import Manifest, read_manifest
from actshift.runtime.run import run, run_together
from actshift.schema.config import Config
from actshift.store.records import Record
from actshift.store.store import Store
from actshift.sweeps.worker import Event, Worker

LIMITS = ["data.limit.train=160", "data.limit.validation=40", "data.limit.test=40"]
SWEEP = [
    "sweep.methods=[lora_r8,post_block]",
    "sweep.reference=post_block",
    "sweep.datasets=[listops]",
    "sweep.seeds=[1,2,3]",
    *LIMITS,
]
ONE = ["model=tiny", "method=post_block", "dataset=listops", *LIMITS, "training.validations=2"]


def swept(folder: Path, execution: str) -> dict[str, Record]:
    # Slow steps, as far as the estimate knows: on a CPU it would train none of these at once.
    slow = "hardware.speed.layer_seconds=1"
    assert main(["sweep", "demo", *SWEEP, f"results={folder}", f"execution={execution}", slow]) == 0
    return {record.file_name: record for record in Store(folder).records()}


def test_a_sweep_at_once_is_the_sweep_one_by_one(tmp_path: Path) -> None:
    apart, together = swept(tmp_path / "apart", "separate"), swept(tmp_path / "together", "replicas")
    assert {record.cell for record in together.values()} == {record.cell for record in apart.values()}
    several = 0
    for name, record in together.items():
        if name not in apart:  # another rate was chosen: a row or two of validation may differ
            continue
        alone = apart[name]
        assert record.config == alone.config, "the same run, under the same identity"
        assert alone.provenance["replicas"] == {"train": 1, record.split: 1}
        several += record.provenance["replicas"]["train"] > 1
        assert record.metrics["final_loss"] == pytest.approx(alone.metrics["final_loss"], abs=2e-3)
        assert abs(record.metrics["accuracy"] - alone.metrics["accuracy"]) <= 5.0
        assert record.cell.method == "post_block" or record.provenance["replicas"]["train"] == 1, "LoRA has none"
    assert several >= 2


def configs(folder: Path, **changes: Any) -> list[Config]:
    base = compose([*ONE, f"results={folder}"])
    return [replace(base, lr=lr, seed=1, **changes) for lr in (1e-3, 3e-3, 1e-2)]


def outputs_of(folder: Path, record: Record) -> list[str]:
    path = Store(folder).run_folder(record.identity) / "predictions-validation.jsonl"
    return [prediction.output for prediction in read_predictions(path)]


def agreement(first: list[str], second: list[str]) -> float:
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def test_runs_at_once_leave_what_each_would_leave_alone(tmp_path: Path) -> None:
    records = run_together(configs(tmp_path / "together"))
    outputs = [outputs_of(tmp_path / "together", record) for record in records]
    assert all(agreement(*pair) < 0.8 for pair in combinations(outputs, 2)), "each answers in its own way"
    for record, config, output in zip(records, configs(tmp_path / "apart"), outputs, strict=True):
        alone = run(config)
        assert agreement(output, outputs_of(tmp_path / "apart", alone)) >= 0.95, "rounding may change a row or two"
        assert record.identity == alone.identity
        assert record.metrics["loss_curve"] == [
            [step, pytest.approx(loss, abs=2e-5)] for step, loss in alone.metrics["loss_curve"]
        ]
        assert record.metrics["validation_curve"] == [
            [step, pytest.approx(loss, abs=2e-5)] for step, loss in alone.metrics["validation_curve"]
        ]
        folder = Store(tmp_path / "together").run_folder(record.identity)
        assert sorted(path.name for path in folder.iterdir()) == [
            "adapter",
            "claims",
            "predictions-validation.jsonl",
        ], "no checkpoint is left behind"


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = run(configs(tmp_path)[1])
    stamp = Store(tmp_path).record_path(first.identity, "validation").stat().st_mtime_ns
    records = run_together(configs(tmp_path))
    assert records[1] == first
    assert Store(tmp_path).record_path(first.identity, "validation").stat().st_mtime_ns == stamp
    assert [record.provenance["replicas"]["train"] for record in records] == [2, 1, 2]


def test_a_diverging_one_leaves_the_others_alone(tmp_path: Path) -> None:
    fine, wild = configs(tmp_path)[0], replace(configs(tmp_path)[0], lr=1e30)
    records = run_together([fine, wild])
    assert [record.metrics["diverged"] for record in records] == [False, True]
    assert records[1].metrics["accuracy"] == 0


def test_only_rates_and_seeds_may_differ(tmp_path: Path) -> None:
    one, *_ = configs(tmp_path)
    other = compose([*ONE, f"results={tmp_path}", "method=post_block_r1"])
    with pytest.raises(ValueError, match="lr and seed alone"):
        run_together([one, replace(other, lr=1e-3)])


def test_where_it_goes_wrong_at_once_the_runs_are_done_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds one run and not three: what a launcher hears, and what is there in the end."""
    import actshift.runtime.train

    overrides = [*SWEEP, "sweep.methods=[sft,post_block]", f"results={tmp_path}", "execution=replicas"]
    assert main(["plan", "demo", *overrides]) == 0
    whole = actshift.runtime.train.train

    def small_device(*arguments: object, lrs: list[float], **options: object) -> object:
        if len(lrs) > 1:
            raise MemoryError("not enough memory for several")
        return whole(*arguments, lrs=lrs, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(actshift.runtime.train, "train", small_device)
    heard: list[Event] = []
    store = Store(tmp_path)
    manifest = read_manifest(store.manifest_path("demo", "grid"))
    Worker(tmp_path, overrides=["execution=replicas", "hardware.speed.layer_seconds=1"], tell=heard.append).work(
        manifest
    )
    assert [event.kind for event in heard].count("apart") == 1
    assert all(store.state(each.identity, each.split) == "done" for each in manifest.runs)
    assert not any(store.deaths(each.identity, each.split) for each in manifest.runs)


@pytest.mark.parametrize(
    ("method", "layer_seconds", "rows"), [("post_block", 1.0, 8), ("lora_r8", 1.0, 0), ("post_block", 0.0, 0)]
)
def test_runs_are_trained_at_once_where_it_pays(method: str, layer_seconds: float, rows: int) -> None:
    config = compose([f"method={method}", f"hardware.speed.layer_seconds={layer_seconds}"])
    assert costs.replica_rows(config, 5) == rows


def test_micro_batches_shrink_until_all_fit_the_device() -> None:
    config = compose(["method=post_block", "hardware.speed.layer_seconds=1.0"])
    sizes = [
        costs.replica_rows(
            replace(config, hardware=replace(config.hardware, speed=replace(config.hardware.speed, memory_bytes=room))),
            5,
        )
        for room in (1e12, 2e8, 1e6)
    ]
    assert sizes[0] == 8 > sizes[1] and sizes[2] == 0


def planned(folder: Path) -> Manifest:
    """A plan of three cells with two rates each, whose runs all meet a file where their adapter's folder should go."""
    sweep = ["sweep.methods=[post_block,sft]", "sweep.datasets=[listops,boolq]", "sweep.seeds=[1]"]
    rates = "sweep.rates.tiny={sft:[1e-4,1e-3],steering_r8:[1e-3,1e-2]}"
    assert main(["plan", "demo", *sweep, rates, *LIMITS, f"results={folder}"]) == 0
    manifest = read_manifest(Store(folder).manifest_path("demo", "grid"))
    for each in manifest.runs:
        (folder / "runs" / each.identity).mkdir(parents=True)
        (folder / "runs" / each.identity / "adapter").write_text("a file where a folder should go")
    return manifest


def test_a_cause_that_meets_every_run_stops_the_sweep(tmp_path: Path) -> None:
    manifest, heard = planned(tmp_path), list[Event]()
    Worker(tmp_path, overrides=[], tell=heard.append).work(manifest)
    kinds = [event.kind for event in heard]
    assert (kinds.count("failed"), kinds.count("stopped"), len(manifest.runs)) == (3, 1, 8)
    assert "3 runs in a row failed for one cause" in heard[-1].error
    assert len({event.run.cell for event in heard if event.kind == "failed" and event.run}) == 2
    states = [Store(tmp_path).state(each.identity, each.split) for each in manifest.runs]
    assert (states.count("failed"), states.count("missing")) == (3, 5)


def test_a_run_that_succeeds_between_failures_lets_the_sweep_go_on(tmp_path: Path) -> None:
    manifest, heard = planned(tmp_path), list[Event]()
    for each in manifest.runs[1::2]:
        (tmp_path / "runs" / each.identity / "adapter").unlink()
    Worker(tmp_path, overrides=[], tell=heard.append).work(manifest)
    kinds = [event.kind for event in heard]
    assert (kinds.count("failed"), kinds.count("done"), kinds.count("stopped")) == (4, 4, 0)


def test_the_launcher_of_a_stopped_sweep_ends_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(tmp_path)
    sweep = ["sweep.methods=[post_block,sft]", "sweep.datasets=[listops,boolq]", "sweep.seeds=[1]"]
    rates = "sweep.rates.tiny={sft:[1e-4,1e-3],steering_r8:[1e-3,1e-2]}"
    assert main(["sweep", "demo", *sweep, rates, *LIMITS, f"results={tmp_path}", "hardware.workers=1"]) == 1
    said = capsys.readouterr()
    assert "stopped: 3 runs in a row failed for one cause" in said.out
    assert said.err.count("failed: ") == 3
