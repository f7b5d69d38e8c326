"""Peak memory: what adds up, what follows which option, which cards hold what; held against real bytes where quick."""

from __future__ import annotations

import csv
import dataclasses
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from actshift.cli import main
from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.estimates.memory import CARDS, STATES, all_weights, changed_config, estimate_peak, fit
from actshift.estimates.parameters import meta_base, trainable_parameters
from actshift.evaluation.limits import batch_tokens
from actshift.models.loading import meta_model
from actshift.models.packing.forward_pass import ForwardPass
from actshift.report import memory as report
from actshift.schema.config import OPTIMIZERS
from actshift.store.records import Cell, Record, read_records
from actshift.store.store import Store

COMPOSE = CachedComposer()  # which composes what is only planned: no optional package is asked for
EIGHT_BILLION = ("model=llama3.1-8b", "dataset=boolq", "hardware=a100-80gb", "training.precision=bfloat16")
GB = 1e9


def config(*overrides: str) -> dict[str, Any]:
    return COMPOSE([*EIGHT_BILLION, *overrides])


@pytest.mark.parametrize("model", ["llama3.1-8b", "llama3.2-1b", "gemma3-1b", "qwen3-4b"])
def test_weights_are_those_of_the_model_but_for_its_norms(model: str) -> None:
    shape = compose([f"model={model}"]).model
    real = sum(parameter.numel() for parameter in meta_model(shape).parameters())
    assert all_weights(shape.shape) == pytest.approx(real, rel=1e-3)


@pytest.mark.parametrize("method", ["lora_r8", "post_block", "joint", "reft"])
def test_what_an_adapter_adds_is_about_what_it_trains(method: str) -> None:
    own = config(f"method={method}")
    real = 4 * trainable_parameters(meta_base(own.model), own.method)
    assert estimate_peak(own).trained == pytest.approx(real, rel=0.05)


def test_an_8b_model_is_fine_tuned_on_a_card_of_80_gb_and_steered_on_one_of_24_gb() -> None:
    sft = config("method=sft", "training.optimizer=adamw_8bit", "hardware.gradient_checkpointing=true")
    peak = estimate_peak(fit(sft, 80 * GB).peak and sft)
    assert peak.weights == pytest.approx(16.06 * GB, rel=0.01) and peak.gradients == peak.weights
    assert peak.states == pytest.approx(8.03 * GB * 2 * (1 + 4 / 256), rel=0.01)
    assert peak.training < 60 * GB and fit(sft, 80 * GB).fits
    full = estimate_peak(config("method=sft", "training.precision=float32", "hardware.gradient_checkpointing=true"))
    assert full.training > 128 * GB, "float32 with AdamW's states: no card of the paper's holds it"
    found = fit(config("method=post_block"), 24 * GB)
    assert found.fits and not {"training.precision", "training.optimizer"} & found.changes.keys()
    assert estimate_peak(changed_config(config("method=post_block"), found.changes)) == found.peak


def test_the_parts_follow_the_optimizer_and_what_is_trained() -> None:
    assert STATES.keys() == OPTIMIZERS.keys()
    states = {
        name: estimate_peak(config("method=sft", f"training.optimizer={name}")).states / (8.03 * GB)
        for name in OPTIMIZERS
    }
    expected = {"adamw": 4.0, "adamw_8bit": 2.03, "adamw_bf16_stochastic": 4.0}
    assert states == pytest.approx(expected, rel=0.01)
    in_float32 = estimate_peak(config("method=sft", "training.precision=float32"))
    assert in_float32.states / (8.03 * GB) == pytest.approx(8.0, rel=0.01)
    for method in ("lora_r8", "post_block"):
        peak = estimate_peak(config(f"method={method}"))
        assert peak.trained + peak.gradients + peak.states < 0.03 * peak.weights


@pytest.mark.parametrize("method", ["sft", "lora_r8", "post_block", "joint"])
def test_activations_follow_rows_and_gradient_checkpointing(method: str) -> None:
    whole = estimate_peak(config(f"method={method}"))
    recomputed = estimate_peak(config(f"method={method}", "hardware.gradient_checkpointing=true"))
    fewer = estimate_peak(config(f"method={method}", "hardware.micro_batch=4"))
    shorter = estimate_peak(config(f"method={method}", "training.max_tokens=256"))
    assert recomputed.step < whole.step / 4
    assert fewer.step < 0.55 * whole.step and shorter.step < 0.3 * whole.step
    assert recomputed.batch == whole.batch == fewer.batch
    assert dataclasses.replace(whole, step=0.0) == dataclasses.replace(recomputed, step=0.0)


SMALL = ["model=random-llama", "method=post_block", "dataset=boolq", "data.source=hub", "hardware=cpu"]


def test_bytes_of_an_evaluation_batch_are_those_counted_by_hand() -> None:
    """Of 16,384 tokens in 3 layers of 2 key/value heads of size 16, in float32; prompts have 165 tokens.

    Keys and values of a layer: 2 x 16,384 x 2 x 16 x 4 bytes = 4,194,304. All three with room for 32 tokens a row more,
    and one as it is put together: (3 (1 + 32 / 165) + 1) x 4,194,304.
    """
    peak = estimate_peak(compose([*SMALL, "training.precision=float32", "hardware.evaluation_tokens=16384"]))
    assert peak.batch == pytest.approx(4_194_304 * (4 + 96 / 165))
    assert peak.weights == 4 * (110_592 + 64 * 1_101)
    # Prompts of 2,048 tokens at once: 3 MLP values of 128 and 4 values of 64 a token, beside the layers' 32,768 each.
    few = estimate_peak(compose([*SMALL, "training.precision=float32", "hardware.evaluation_tokens=1024"]))
    assert few.batch == 3 * 262_144 + 1_024 * 4 * (3 * 128 + 4 * 64)


@pytest.mark.parametrize(
    ("hardware", "tokens"),
    [
        ([], 32_768),  # as the CPU's file says: 25 MB, far from its 0.75 GB
        (["hardware.evaluation_bytes=null"], 32_768),
        (["hardware.evaluation_bytes=1e6"], 1_302),
        (["hardware.evaluation_bytes=1e6", "hardware.evaluation_tokens=1000"], 1_000),
        (["hardware.evaluation_bytes=1e6", "training.precision=bfloat16"], 2_604),
        (["hardware.evaluation_bytes=10"], 1),
    ],
)
def test_a_batch_has_as_many_tokens_as_both_limits_allow(hardware: list[str], tokens: int) -> None:
    """Keys and values of a token in 3 layers of 2 key/value heads of size 16: 2 x 3 x 2 x 16 = 192 numbers."""
    assert batch_tokens(compose([*SMALL, "training.precision=float32", *hardware])) == tokens


def test_the_real_model_has_batches_of_three_quarters_of_a_gigabyte_on_a_cpu() -> None:
    """Keys and values of a token in 30 layers of 3 heads of size 64 take 2 x 30 x 3 x 64 x 4 = 46,080 bytes."""
    assert batch_tokens(compose(["model=smollm2-135m", "dataset=boolq", "hardware=cpu"])) == 750_000_000 // 46_080


def test_bytes_of_the_logits_are_those_counted_by_hand() -> None:
    """Of 8 rows with 6 answer tokens: logits and their gradients as they come, and both in float32, for each token."""
    small, large = (
        estimate_peak(compose([*SMALL, "training.precision=float32", "training.max_tokens=32", f"{size}"])).step
        for size in ("model.shape.vocabulary=20000", "model.shape.vocabulary=30000")
    )
    assert large - small == 8 * 6 * 10_000 * (4 + 4 + 4 + 4)


@pytest.mark.parametrize("model", ["random-llama", "random-qwen3", "random-gemma3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("read", [64, 2])
def test_the_kept_bytes_of_a_layer_are_those_that_autograd_keeps(read: int, precision: str, model: str) -> None:
    """Of a small model, the tensors that are saved for the backward pass, each storage once."""
    from adapted import attached, base_of, method_config, some_ids

    from actshift.estimates.memory import _site_values, _tokenwise, kept_inside
    from actshift.models.packing.last_layer import packed_hidden
    from actshift.models.packing.layout import pack

    base, rows, tokens = base_of(model, precision), 2, 64
    weights = {parameter.untyped_storage().data_ptr() for parameter in base.model.parameters()}
    for method in ("post_block", "lora_r8", "sft"):
        saved: dict[int, int] = {}

        def keep(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with attached(base, method_config(method, model=model)) as adaptation:
            base.model.train()
            packing = pack([tokens] * rows, firsts=[tokens - read] * rows, replicas=1, shared=0, device=base.device)
            adaptation.begin_pass(ForwardPass(torch.ones(rows, tokens, dtype=torch.bool), packing))
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                hidden = packed_hidden(base, some_ids(base, rows, tokens), packing, use_cache=False)
            base.model.eval()
        own = compose([f"model={model}", f"method={method}", f"training.precision={precision}"])
        layers = own.model.shape.layers
        deep = layers - 1 if method == "post_block" else layers
        expected = rows * tokens * (deep * kept_inside(own, tokens) + layers * _site_values(own))
        expected -= rows * (tokens - read) * _tokenwise(own)
        assert hidden.requires_grad
        assert expected == pytest.approx(sum(saved.values()), rel=0.15), method


def test_what_changes_no_result_comes_first_and_no_more_than_is_needed() -> None:
    steering = config("method=post_block", "training.precision=float32")
    assert fit(steering, 400 * GB).changes == {}
    assert fit(steering, 80 * GB).changes.keys() <= {"hardware.gradient_checkpointing", "hardware.evaluation_tokens"}
    assert fit(steering, 24 * GB).changes["training.precision"] == "bfloat16"
    sft = config("method=sft", "training.precision=float32")
    assert fit(sft, 80 * GB).changes["training.optimizer"] in ("adamw_8bit", "adamw_bf16_stochastic")
    impossible = fit(sft, 24 * GB)
    assert not impossible.fits and impossible.peak.bytes > 24 * GB


# --- the command --------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_the_command_prints_and_writes_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request = ["memory", "model=llama3.1-8b,llama3.2-1b", "method=sft,post_block", "training.precision=bfloat16"]
    assert main([*request, "--csv", "memory.csv", "--markdown", "memory.md"]) == 0
    shown = capsys.readouterr().out
    assert "Llama-3.1-8B" in shown and "data set boolq" in shown and "Peak ~" in shown
    found = rows_of(tmp_path / "memory.csv")
    assert [(row["model"], row["method"]) for row in found] == [
        (model, method) for model in ("llama3.1-8b", "llama3.2-1b") for method in ("sft", "post_block")
    ]
    assert {row["hardware"] for row in found} == {"a100-80gb", "a100-40gb"}
    assert found[0]["fits_24gb"] == "False" and found[0]["fits_80gb"] == "True" and found[0]["measured_runs"] == "0"
    # The overrides of a card can be given back, and the run then fits that card.
    again = COMPOSE([*EIGHT_BILLION, "method=post_block", *found[1]["overrides_24gb"].split()])
    assert estimate_peak(again).bytes <= 24 * GB
    assert "| Llama-3.1-8B | SFT |" in (tmp_path / "memory.md").read_text()


def test_records_of_cuda_devices_stand_beside_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = config("method=post_block")
    provenance = {"device": "cuda", "micro_batch": 8, "replicas": {"train": 1}}
    metrics = {"accuracy": 0.0, "rows": 1, "correct": 0, "diverged": False}
    cell = Cell("llama3.1-8b", "post_block", "boolq", "paper")
    from actshift.config.identity import hashed_part, identity_of, ignored_keys

    changes = [{"peak_memory_bytes": size * 10**9} for size in (30, 50, 34)]
    changes += [{"peak_memory_bytes": 1, "device": "cpu"}, {"peak_memory_bytes": 2, "replicas": {"train": 5}}]
    changes += [{"peak_memory_bytes": 3, "gradient_checkpointing": True}]
    for seed, change in enumerate(changes):
        part = hashed_part(replace(own, seed=seed), ignore=ignored_keys())
        record = Record(
            identity_of(part, ignore=()), "test", cell, own.lr, seed, part, metrics, {**provenance, **change}
        )
        Store(tmp_path / "results").publish(record)
    row = report._row(own, read_records(tmp_path / "results" / "records"))
    assert sorted(row.measured) == [30 * 10**9, 34 * 10**9, 50 * 10**9]
    assert report.texts(row)[7] == "34.0 (3)"
    other = report._row(
        config("method=post_block", "hardware.micro_batch=4"), read_records(tmp_path / "results/records")
    )
    assert other.measured == () and report.texts(other)[7] == "–"


def test_a_wrong_request_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "model=llama3.1-8bb"]) == 2
    assert "Did you mean 'llama3.1-8b'" in capsys.readouterr().err
    assert main(["memory", "dataset=boolq,gsm8k"]) == 2
    assert "only model= and method= may name several" in capsys.readouterr().err


def test_the_command_imports_no_torch() -> None:
    probe = "import sys; from actshift.cli import main; main(['memory', 'model=llama3.2-1b', 'method=sft']); "
    probe += "assert not {'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True)


def test_a_plan_says_what_makes_a_cell_fit_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    request = ["sweep.models=[llama3.1-8b]", "sweep.methods=[post_block,sft]", "sweep.datasets=[boolq]"]
    assert main(["plan", "figure4", *request, "data.source=hub"]) == 0
    shown = "".join(capsys.readouterr().out.split())  # a note is folded where the terminal is narrow
    assert "over80GB:fitswithhardware.gradient_checkpointing=true" in shown


# --- the bench ----------------------------------------------------------------------------------------------------


def test_the_bench_asks_for_cases_that_compose_and_says_what_it_found() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
    from bench import table
    from bench.memory import cases

    for cuda, models in ((False, ["llama-100m"]), (True, ["llama3.1-8b"])):
        configs = [COMPOSE(case) for case in cases(models, cuda=cuda)]
        trained = {(own.method.kind, own.hardware.gradient_checkpointing) for own in configs}
        assert len(trained) == 6 and {own.training.optimizer for own in configs} == set(OPTIMIZERS)
        assert {own.hardware.device for own in configs} == {"cuda" if cuda else "cpu"}
    ratio = {"median": 1.0, "q1": 0.9, "q3": 1.1, "n": 2}
    figures = {"cases": [{}, {}, {}], "measured": 2, "ratio": ratio, "lowest": 0.9, "highest": 1.1}
    assert "from 0.9 to 1.1" in table.line("memory", figures) and "2 of 3" in table.line("memory", figures)
    assert "nothing could be measured" in table.line("memory", {**figures, "lowest": None})


def test_cards_are_in_ascending_order() -> None:
    assert list(CARDS) == sorted(CARDS)
