"""Wrong inputs to every command: a sentence that says what and where, no traceback, no file left half-made."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

from actshift.cli import COMMANDS, main

SWEEP_COMMANDS = [name for name, command in COMMANDS.items() if command.sweep]
OVERRIDES = [
    *("lr=abc", "lr=", "lr=-1", "lr=0", "lr=nan", "lr=inf", "lr=null", "lr=[1,2]", "lr={a: 1}", "lr"),
    *("seed=1.5", "seed=-1", "seed=x", "seed=true", "stage=grids", "stage=null", "execution=both"),
    *("model=tny", "model=", "model=null", "model.source=disk", "model.path=", "model.attention=flash"),
    *("model=local", "model=local model.path=/nowhere", "model=local model.path=README.md", "model.shape.width=0"),
    *("model.shape.heads=3", "model.architecture=gpt2", "model.chat=maybe"),
    *("method=srt", "method=sft,srt", "method.rank=0", "method.rank=-1", "method.rank=1e9", "method.rank=two"),
    *("method.layers=[99]", "method.layers=[]", "method.layers=some", "method.layers=[0,0]", "method.site=nowhere"),
    *("method.scope.kind=some", "method.scope.first=-1", "method.scope.kind=first_last", "method.scope.separate=true"),
    *("method.parameterization=cubic", "method.parameterization=nonlinear", "method.activation=selu"),
    *("method=lora_r8 method.targets=[]", "method=lora_r8 method.targets=[x_proj]", "method=lora_r8 method.dropout=1"),
    *("method=lora_r8 method.alpha=0", "method=jola method.gates.schedule=none", "method=jola method.gates.cycle=0"),
    *("method=joint method.lora_lr=0", "method=joint_orth method.orthogonality.project=left"),
    *("method=joint_orth method.orthogonality.every=0", "method=joint_orth method.steering.site=heads"),
    *("method=vera_r64 method.config_class=NoConfig", "method=vera_r64 method.options={rr: 3}"),
    *("method.kind=custom", "method.kind=none", "method.family=other", "+method.extra=1", "~method.rank"),
    *("dataset=Boolq", "dataset=", "dataset.task=other"),
    *("dataset.task=custom", "dataset.version=0", "dataset.name=null"),
    *("dataset.kind=instruction", "dataset=sst2"),
    *("dataset.procedural.rows.train=0", "dataset.procedural.rows.train=x"),
    *("dataset.procedural.difficulty.max_dept=3", "dataset.procedural.seed=x", "dataset.tokens.prompt=0"),
    *("dataset.procedural.difficulty.max_depth=0", "dataset=boolq dataset.procedural.difficulty.facts=0"),
    *("dataset=sst2 data.source=local", "data.source=local", "data.source=local data.dir=/nowhere", "data.source=disk"),
    *("data.source=local data.dir=README.md", "data.source=local data.dir=."),
    *("data.limit.train=0", "data.limit.train=x"),
    *("data.limit.test=-3", "data.overlap=keep", "data.origin={}", "data.splits.train.keep=most"),
    *("data.splits.train.hold_out=2", "data.splits.train.source=nowhere", "data.splits={}", "data.dir=[a]"),
    *("data.splits.test=null stage=final", "data.splits.test.source=train"),
    *("training.batch_size=0", "training.batch_size=x", "training.epochs=0", "training.max_steps=0"),
    *("training.schedule.kind=cubic", "training.schedule.warmup=1", "training.precision=float8", "training.clip=-1"),
    *("training.optimizer=sgd", "training.optimizer=adamw_8bit training.precision=int", "training.overlong=keep"),
    *("training.optimizer=adamw_bf16_stochastic", "training.max_tokens=0", "training.weight_decay=-1"),
    *("training.validations=-1", "training={batch_sise: 3}", "training.max_tokens=1 training.overlong=drop"),
    *("evaluation.rule=mine", "evaluation.scoring=votes", "evaluation.scoring=likelihood dataset=gsm8k"),
    *("evaluation.max_new_tokens=0", "hardware=tpu"),
    *("hardware.device=tpu", "hardware.device=cuda", "hardware.workers=0"),
    *("hardware.micro_batch=0", "hardware.threads=0", "hardware.threads=x", "hardware.checkpoint_every=-1"),
    *("hardware.evaluation_tokens=0", "logger=wandbb", "logger.mode=sometimes", "protocol=papr", "protocol.chat=yes"),
    *("protocol.rule=other", "adapter=/nowhere", "stage=evaluate", "stage=evaluate adapter=/nowhere", "adapter=."),
    *("stage=evaluate adapter=README.md", "results=", "results=README.md", "results=/proc/none", "profile=maybe"),
    *("hydra.run.dir=/tmp", "hydra.searchpath=[x]", "hydrax=1", "a.b.c=1", "=1", "=", "x=[1", "x={", "lr='1", "@=1"),
    *("debug=none_such", "sweep=none_such", "sweep=smoke sweep.models=[]"),
    *("ünï=1", "lr=1e-3;ls", "lr=$(id)", "lr=${nowhere}"),
    *("--nothing", "--cfg nothing", "-x", "--config-dir /nowhere", "--config-dir", "--multirun=no", "-m lr=abc,1"),
    *("-m method=glob(zzz*)", "-m method=sft,srt", "-m seed=range(1", "--cfg job lr=abc"),
]  # fmt: skip
OF_SWEEPS = [
    *("smok", "smoke lr=abc", "smoke nothing=1", "smoke sweep.methods=[]", "smoke sweep.methods=[srt]"),
    *("smoke sweep.models=[tiny,tiny]", "smoke sweep.datasets=[nope]", "smoke sweep.seeds=[]", "smoke sweep.seeds=[a]"),
    *("smoke sweep.rates.tiny.sft=[]", "smoke sweep.rates.tiny.sft=[-1]", "smoke sweep.name=a/b"),
    *("smoke sweep.name=", "smoke sweep.reference=lora_r8", "smoke results=README.md", "smoke results="),
    *("smoke --nothing", "../smoke", "a/b", "", "smoke sweep.exclude=[{model: tiny}]"),
    *("smoke sweep.models=[local]", "smoke sweep.datasets=[sst2]", "smoke hardware=tpu"),
]  # fmt: skip
OTHERS = [
    *("", "nothing", "--nothing", "run2", "score", "score nowhere.jsonl", "score README.md", "score torn.jsonl"),
    *("score torn.jsonl --task nothing", "list nothing", "explain"),
    *("explain nothing", "explain lr.x", "explain data.sorce"),
    *("show dataset=Boolq", "show row=99999999", "show row=-1", "show row=x", "show split=none", "show lr=abc"),
    *("lengths dataset=nope", "lengths --tokenizer /nowhere"),
    *("lengths protocol=nope", "overlaps", "overlaps dataset=nope"),
    *("overlaps data.source=local data.dir=/nowhere", "adapters results=README.md"),
    *("adapters lr=1", "adapters nothing"),
    *("params model=nope", "params method=nope", "params lr=1", "memory model=nope", "memory hardware=tpu"),
    *("memory training.precision=int", "report", "report results=/nowhere", "report results=README.md", "report lr=1"),
    *("report results=torn", "compare"),
    *("compare a", "compare 0123456789abcdef fedcba9876543210", "compare a b results=torn"),
    *("runs results=torn", "runs nothing=1", "runs lr=1", "sync results=README.md", "sync nothing=1", "audit nothing"),
    *("tables smoke --variant nothing", "tables smoke --without nothing"),
    *("plan smoke --extend", "submit smoke profile=nope"),
    *("submit smoke --slurm /nowhere --dry-run", "submit smoke", "baselines nothing", "prefetch nothing"),
    *("analyze", "analyze nothing", "analyze theory analysis.draws=0", "analyze theory analysis.draws=x"),
    *("claims lr=1", "claims nothing", "claims results=README.md", "claims --claim nothing", "claims results=torn"),
    *("ifeval", "ifeval nowhere.json", "ifeval README.md", "ifeval torn.jsonl --data /nowhere"),
    *("winrate", "winrate nowhere", "winrate README.md --data /nowhere", "winrate torn.jsonl"),
    *("judges", "judges nowhere", "judges a b", "outputs", "outputs nothing"),
    *("outputs README.md", "outputs smoke lr=1"),
    *("study", "study nothing", "study nothing --out x.md", "beside", "beside nothing", "beside nothing other"),
    *("export", "export nothing", "export smoke"),
    *("judge", "judge nowhere.json", "judge torn.jsonl", "judge README.md --references x --recorded y --out z"),
    *("judge torn.jsonl --references x --out z --import nowhere", "judge smoke --data /nowhere --import README.md"),
    *("judge smoke judge=nobody", "judge smoke --import x --limit 3", "judge smoke --import"),
    *("tables smoke judge=nobody", "judge smoke results=README.md --import x"),
]  # fmt: skip
LINES = [
    *(f"run debug=few_steps {words}" for words in OVERRIDES),
    *(f"{command} {words}" for command in ("plan", "submit") for words in OF_SWEEPS),
    *(f"{command} {words}" for command in SWEEP_COMMANDS for words in OF_SWEEPS[:5]),
    *OTHERS,
]
STEMS = ("Traceback (most recent call last)", "object at 0x", "KeyError", "AttributeError", "NoneType")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file where folders are asked for, and a results folder with a torn record."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("no model, no data, no results\n")
    (tmp_path / "torn.jsonl").write_text('{"output": "x"\n')
    (tmp_path / "torn" / "records").mkdir(parents=True)
    (tmp_path / "torn" / "records" / "0123456789abcdef.test.json").write_text('{"identity": "0123')
    return tmp_path


def said(line: str) -> tuple[int | str | None, str]:
    """The exit code of a command line and all that it printed; an exception is a failed test."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code: int | str | None = main(line.split())
        except SystemExit as ended:
            code = ended.code
    return code, printed.getvalue()


def test_there_are_enough_of_them() -> None:
    assert len(set(LINES)) >= 330
    assert {line.split()[0] for line in LINES if line} >= set(COMMANDS)


@pytest.mark.parametrize("start", range(0, len(LINES), 40))
def test_no_wrong_input_ends_in_a_traceback(start: int, folder: Path) -> None:
    wrong = {}
    for line in LINES[start : start + 40]:
        try:
            code, text = said(line)
        except BaseException as error:
            wrong[line] = f"{type(error).__name__}: {error}"
            continue
        if any(stem in text for stem in STEMS):
            wrong[line] = text[-300:]
        elif code in (0, None) and "usage" not in text:
            wrong[line] = f"taken as right: {text[-200:]}"
        elif code not in (0, None) and not re.search(r"\w{3,} \w+", text):
            wrong[line] = f"no sentence: {text!r}"
        unfinished = [path for path in folder.rglob("*.tmp")]
        assert not unfinished, (line, unfinished)
    assert not wrong, "\n".join(f"{line}\n    {text}" for line, text in wrong.items())


def test_a_folder_that_may_only_be_read_serves_every_reader(folder: Path) -> None:
    """Tables, lists and comparisons are printed from a results folder that nobody may write to."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    assert said("run debug=few_steps method=sft lr=1e-3")[0] == 0
    for path in [*(folder / "results").rglob("*"), folder / "results"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert said("runs")[0] == 0
    assert said("adapters")[0] == 0
