"""Choosing by likelihood: against log-softmax row by row, over batches, replicas and ties; and as a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from adapted import attached, base_of, method_config, perturb, some_ids, some_rows
from dataset_configs import dataset_config
from synthetic_sweep import finished, planned

from actshift.config.composition import compose
from actshift.config.identity import identity_of, ignored_keys
from actshift.data.examples import Example, tokenize
from actshift.data.sources import procedural_rows
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.evaluation import answers
from actshift.evaluation.answers import choose
from actshift.evaluation.predictions import Prediction, read_predictions
from actshift.evaluation.rescoring import rescore
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.report import frame
from actshift.runtime.run import run
from actshift.tasks import get_task

MODELS = ["tiny", "random-gemma3"]


def rows_and_options(base: Base) -> tuple[list[Example], list[dict[str, str]]]:
    """Rows with two to four options, of one to five tokens."""
    words = [base.tokenizer.convert_ids_to_tokens(token) for token in some_ids(base, 12).tolist()]
    texts = ["".join(words[start : start + size]) for start, size in ((0, 1), (1, 2), (3, 3), (6, 5))]
    rows = some_rows(base, 7)
    return rows, [dict(zip("ABCD", texts[: 2 + row % 3], strict=False)) for row in range(len(rows))]


def one_by_one(base: Base, adaptation: Adaptation, prompt: list[int], answer: list[int]) -> float:
    """The answer's log-likelihood, nothing padded, batched or left out."""
    ids_BT = torch.tensor([prompt + answer])
    adaptation.begin_pass(ForwardPass(torch.arange(ids_BT.shape[1])[None] < len(prompt)))
    with torch.no_grad():
        logprobs_TV = base.model(input_ids=ids_BT).logits[0].float().log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return sum(float(logprobs_TV[place, token]) for place, token in zip(places, answer, strict=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", [["sft"], ["post_block", "method.scope.kind=last_prompt"]])
@pytest.mark.parametrize("way", ["prompt once", "prompt by prompt"])
def test_the_likelihoods_are_those_of_the_rows_one_by_one(
    model: str, method: list[str], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "TOKEN_BY_TOKEN", 0 if way == "prompt once" else 10**6)
    base = base_of(model)
    rows, options = rows_and_options(base)
    with attached(base, method_config(*method, model=model)) as adaptation:
        perturb(adaptation, scale=0.02)
        for tokens in (1, 40, 10_000):
            (found,) = choose(
                base, adaptation, rows=rows, options=options, batch_tokens=tokens, progress=lambda *_: None
            )
            for row, texts, prediction in zip(rows, options, found, strict=True):
                expected = {}
                for label, text in texts.items():
                    answer = list(base.tokenizer(text, add_special_tokens=False)["input_ids"])
                    expected[label] = one_by_one(base, adaptation, row.ids[: row.prompt_length], answer)
                    assert prediction.logprobs is not None
                    assert prediction.logprobs[label] == (pytest.approx(expected[label], abs=1e-3), len(answer))
                assert prediction.extracted == max(expected, key=lambda label: expected[label])
                assert prediction.output == texts[prediction.extracted]


@pytest.mark.parametrize("token_cost", [0, 10**6])
def test_each_replica_chooses_for_itself(token_cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TOKEN_BY_TOKEN", token_cost)
    base = base_of("random-llama")
    rows, options = rows_and_options(base)
    config = method_config("post_block", model="random-llama")
    settings = {"rows": rows, "options": options, "progress": lambda *_: None}
    with attached(base, config, seeds=(0, 1)) as adaptation:
        perturb(adaptation, scale=0.2)
        states = [adaptation.state_dict(replica) for replica in range(2)]
        together = choose(base, adaptation, batch_tokens=60, **settings)
    for state, found in zip(states, together, strict=True):
        with attached(base, config) as adaptation:
            adaptation.load_state_dict(state)
            (alone,) = choose(base, adaptation, batch_tokens=10_000, **settings)
        assert [each.extracted for each in alone] == [each.extracted for each in found]
    assert together[0] != together[1]


def test_ties_go_to_the_first_option_and_progress_counts_answers() -> None:
    base, told = base_of("tiny"), []
    rows = some_rows(base, 3)
    options = [{"1": "the cat", "2": "the cat"}] * 3
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        (found,) = choose(
            base, adaptation, rows=rows, options=options, batch_tokens=1, progress=lambda *pair: told.append(pair)
        )
    assert [each.extracted for each in found] == ["1"] * 3
    assert told == [(2, 6), (4, 6), (6, 6)], "a prompt's options come together"


@pytest.mark.parametrize("name", ["aqua", "arc_challenge", "boolq", "winogrande"])
def test_the_chosen_answers_of_real_tasks_are_answers_of_theirs(name: str) -> None:
    base, config, task = base_of("tiny"), dataset_config(name), get_task(name)
    split = Split(procedural_rows(config, next(iter(config.procedural.rows)))[:12], "")
    rows = tokenize(split, task=task, tokenizer=base.tokenizer, end_token=False, max_tokens=None, cache=None)
    options = [task.options(row) for row in split.rows]
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        (found,) = choose(base, adaptation, rows=rows, options=options, batch_tokens=2000, progress=lambda *_: None)
    for prediction, texts in zip(found, options, strict=True):
        assert task.extract(prediction.output) == prediction.extracted in texts
        assert prediction.correct is (prediction.extracted == prediction.label)


def test_a_run_by_likelihood_is_a_run_of_its_own(tmp_path: Path) -> None:
    small = ["dataset=boolq", "method=post_block_vector", "debug=few_steps", "training.max_steps=1"]
    small += ["data.limit.validation=6", f"results={tmp_path}"]
    configs = [compose([*small, f"evaluation.scoring={scoring}"]) for scoring in ("generation", "likelihood")]
    assert len({identity_of(config, ignore=ignored_keys()) for config in configs}) == 2
    by_generation, by_likelihood = map(run, configs)
    assert [each.provenance["scoring"] for each in (by_generation, by_likelihood)] == ["generation", "likelihood"]
    assert by_likelihood.metrics["rows"] == 6 and 0 <= by_likelihood.metrics["accuracy_per_token"] <= 100
    assert "accuracy_per_token" not in by_generation.metrics
    file = tmp_path / "runs" / by_likelihood.identity / "predictions-validation.jsonl"
    kept: list[Prediction] = read_predictions(file)
    assert all(each.logprobs is not None and set(each.logprobs) == {"True", "False"} for each in kept)
    assert rescore(file).changed == []


@pytest.mark.parametrize("name", ["gsm8k", "listops"])
def test_free_answers_have_no_likelihood_scoring(name: str) -> None:
    with pytest.raises(ActshiftError, match=f"generation for {name}; likelihood for aqua, arc_challenge"):
        compose([f"dataset={name}", "evaluation.scoring=likelihood"])


def test_no_table_mixes_accuracies_of_two_kinds() -> None:
    manifest, selection = planned()
    records = finished(manifest, {("tiny", "sft", "boolq"): [700], ("tiny", "lora_r8", "boolq"): [700, 710]})
    other = [
        dataclasses.replace(record, provenance={**record.provenance, "scoring": "likelihood"}) for record in records
    ]
    assert frame.cells(manifest, other, selection)["n_finished"].sum() == 3
    with pytest.raises(ActshiftError, match=r"mix accuracies by generation .* and likelihood"):
        frame.cells(manifest, [*records[:2], other[2]], selection)
    unplanned = dataclasses.replace(other[2], identity="f" * 16)
    assert frame.cells(manifest, [*records[:2], unplanned], selection)["n_finished"].sum() == 2
