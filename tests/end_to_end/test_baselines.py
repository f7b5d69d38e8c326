"""Baselines: what a test set gives away without adaptation, in the table above the methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.methods import attach
from actshift.observe.progress import Progress
from actshift.runtime.baselines import accuracy, baseline, majority
from actshift.runtime.evaluate import answer
from actshift.runtime.session import Session
from actshift.schema.config import Config
from actshift.store.baselines import baseline_identity, read_baseline


def request(tmp_path: Path, *overrides: str) -> Config:
    return compose(["dataset=boolq", "data.limit.test=30", f"results='{tmp_path}'", *overrides])


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def test_the_base_model_scores_what_an_untrained_method_scores(tmp_path: Path, session: Session) -> None:
    config = request(tmp_path, "method=post_block_vector")
    found = baseline(config, session=session)
    base, split = session.base(config), session.split(config, "test")
    for way, score in (("generation", found.generation), ("likelihood", found.likelihood)):
        asked = replace(config, evaluation=replace(config.evaluation, scoring=way))
        adaptation = attach(base, config=config.method, seeds=(0,))
        try:
            (predictions,) = answer(
                asked, base, adaptation, split=split, name="test", session=session, cache=tmp_path, progress=Progress()
            )
        finally:
            adaptation.detach()
        assert accuracy(predictions) == score
    assert found.likelihood is not None
    assert found.likelihood > 20, "the model says one of two answers"


def test_the_most_common_label_is_counted(tmp_path: Path, session: Session) -> None:
    config = request(tmp_path, "data.limit.test=29")  # an odd number: one label is the more common
    rows = session.split(config, "test").rows
    true = sum(row["answer"] for row in rows)
    label, share = majority(config, session.split(config, "test"))
    assert share == pytest.approx(100 * max(true, 29 - true) / 29)
    assert share > 50
    assert label == ("True" if true > 14 else "False")


def test_free_answers_have_no_likelihood(tmp_path: Path, session: Session) -> None:
    assert baseline(request(tmp_path, "dataset=gsm8k"), session=session).likelihood is None


def test_methods_rates_and_scoring_share_a_baseline_and_data_and_models_do_not(tmp_path: Path) -> None:
    same = ["method=sft", "lr=0.5", "seed=7", "evaluation.scoring=likelihood", "data.limit.train=5"]
    own = baseline_identity(request(tmp_path))
    assert {baseline_identity(request(tmp_path, word)) for word in same} == {own}
    other = ["model=random-llama", "data.limit.test=29", "protocol=released", "evaluation.max_new_tokens=3"]
    names = {baseline_identity(request(tmp_path, word)) for word in other}
    assert len(names | {own}) == len(other) + 1


def test_one_that_exists_is_read_and_a_torn_one_is_refused(tmp_path: Path, session: Session) -> None:
    config = request(tmp_path)
    first = baseline(config, session=session)
    path = tmp_path / "baselines" / f"{first.identity}.json"
    before = path.stat().st_mtime_ns
    assert baseline(config, session=session) == first
    assert path.stat().st_mtime_ns == before
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"config": {}}))
    with pytest.raises(ActshiftError, match="is not the baseline"):
        read_baseline(tmp_path, first.identity)


def test_a_sweep_ends_with_them_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "smoke", "sweep.datasets=[boolq]", "sweep.methods=[sft]", "sweep.seeds=[1]"]) == 0
    lines = (tmp_path / "results" / "tables" / "smoke.md").read_text().splitlines()
    (file,) = (tmp_path / "results" / "baselines").iterdir()
    made = json.loads(file.read_text())
    texts = {line.split("|")[2].strip(): line for line in lines if line.startswith("|")}
    assert f"{made['majority']:.1f}" in texts["Most common label"]
    assert f"{made['generation']:.1f}" in texts["Base model"]
    assert f"{made['likelihood']:.1f}" in texts["Base model, by likelihood"]
    assert list(texts).index("Base model") < list(texts).index("SFT")
    capsys.readouterr()
    assert main(["baselines", "smoke", "sweep.datasets=[boolq]", "sweep.methods=[sft]", "sweep.seeds=[1]"]) == 0
    assert f"majority {made['majority']:.1f} ({made['majority_label']})" in capsys.readouterr().out
