"""The benches: each takes what the command line chose and returns figures, which go into one JSON file."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.models.loading import PRECISIONS
from bench.case import Case, build
from bench.contestants import Actshift, Entry, Lap, lap
from bench.libraries import Peft, Pyreft
from bench.measure import PeakMemory, alternate, digits, least_seconds, ratios, spread, timed
from bench.released import Released, Steerer, checkout_steerer, one_by_one, own_steerer

RIVALS = {"steering": "released", "lora": "peft", "reft": "pyreft"}
"""Whom the project is held against, by the method that both of them train."""
LONG_ANSWERS = "gsm8k"
"""Evaluated beside the other data sets, less often: its answers have up to 100 tokens."""
REPLICAS = 5


@dataclass(frozen=True)
class Options:
    """What the command line chose. On CUDA the project computes in bfloat16, the released code in float32."""

    rows: Mapping[str, int]
    scored: Mapping[str, int]
    repeats: int
    data: Path | None
    steerling: Path | None
    overrides: tuple[str, ...] = ()

    def case(self, model: str, dataset: str, method: str, *, rows: int | None = None, **changes: Any) -> Case:
        rows = self.rows.get(model, 160) if rows is None else rows
        return build(model, dataset, method, rows=rows, data=self.data, overrides=self.overrides, **changes)

    def rival_case(self, case: Case, model: str, method: str) -> Case:
        """The same case in the precision of the released code."""
        if method != "steering" or case.config.training.precision == "float32":
            return case
        overrides = (*self.overrides, "training.precision=float32")
        dataset, rows, scored = case.config.dataset.name, len(case.rows), len(case.scored)
        return build(model, dataset, method, rows=rows, scored=scored, data=self.data, overrides=overrides)

    @property
    def precision(self) -> str:
        """The precision of the project's contestants: the last one that is named counts."""
        named = [each for each in self.overrides if each.startswith("training.precision=")]
        return named[-1].partition("=")[2] if named else "float32"

    @property
    def steerer(self) -> Steerer:
        return own_steerer if self.steerling is None else checkout_steerer(self.steerling)

    def entry(self, name: str) -> Entry:
        steerer = self.steerer if name == "released" else own_steerer
        entries: dict[str, Entry] = {
            "actshift": Actshift,
            "released": lambda case: Released(case, steerer=steerer),
            "peft": Peft,
            "pyreft": Pyreft,
        }
        return entries[name]


def cell(options: Options, model: str, dataset: str, method: str) -> dict[str, Any]:
    """One cell, trained and evaluated, by the project and by its rival in turns, with the peak memory of each."""
    case, rival = options.case(model, dataset, method), RIVALS[method]
    cases = {"actshift": case, rival: options.rival_case(case, model, method)}
    lap(options.case(model, dataset, method, rows=case.config.training.batch_size, scored=2), Actshift)  # warm up
    turns: dict[str, Callable[[], Lap]] = {
        name: lambda name=name: lap(cases[name], options.entry(name))  # type: ignore[misc]
        for name in cases
    }
    laps = alternate(turns, repeats=options.repeats)
    ours, theirs = laps["actshift"], laps[rival]
    return {
        **case.facts(),
        "rival": rival,
        "contestants": {
            name: _lap_figures(cases[name], found) | _peak(options, name, model, dataset, method)
            for name, found in laps.items()
        },
        "ratio": ratios([each.seconds for each in theirs], [each.seconds for each in ours]),
        "ratio_training": ratios([each.train_seconds for each in theirs], [each.train_seconds for each in ours]),
        "ratio_evaluation": ratios(
            [each.evaluation_seconds for each in theirs], [each.evaluation_seconds for each in ours]
        ),
        "ratio_at_most": _ceiling([each.seconds for each in theirs], case, lambda: lap(case, Actshift)),
        "answers_alike": sum(_begin_alike(*pair) for pair in zip(ours[0].outputs, theirs[0].outputs, strict=True)),
    }


def _ceiling(theirs: Sequence[float], case: Case, work: Callable[[], object]) -> float:
    """The ratio, were the project's own matrix products done at the machine's rate and nothing else to do."""
    dtype = PRECISIONS[case.config.training.precision]
    return digits(statistics.median(theirs) / least_seconds(work, device=case.device, dtype=dtype))


def _lap_figures(case: Case, laps: list[Lap]) -> dict[str, Any]:
    return {
        "precision": case.config.training.precision,
        "train_seconds": spread([each.train_seconds for each in laps]),
        "evaluation_seconds": spread([each.evaluation_seconds for each in laps]),
        "tokens_per_second": spread([case.trained_tokens / each.train_seconds for each in laps]),
        "rows_per_second": spread([len(case.rows) / each.train_seconds for each in laps]),
        "scored_rows_per_second": spread([len(case.scored) / each.evaluation_seconds for each in laps]),
        "mean_loss": digits(laps[0].loss),
        "correct": _correct(case, laps[0].outputs),
    }


def _correct(case: Case, outputs: list[str]) -> int:
    return sum(case.task.score(output, row.label) for output, row in zip(outputs, case.scored, strict=True))


def _begin_alike(ours: str, theirs: str) -> bool:
    """The project stops where the score is decided, others go on: their text begins with ours."""
    return theirs.startswith(ours.rstrip("\ufffd"))


def _peak(options: Options, name: str, model: str, dataset: str, method: str) -> dict[str, int]:
    """Peak memory of one cell by a contestant in a process of its own."""
    command = [sys.executable, "-m", "bench", "--peak", name, "--models", model, "--datasets", dataset]
    command += ["--methods", method, "--rows", str(options.rows.get(model, 160)), "--overrides", *options.overrides]
    for flag, path in (("--data", options.data), ("--steerling", options.steerling)):
        command += [] if path is None else [flag, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, int] = json.loads(found.stdout.splitlines()[-1])
    return figures


def peak(options: Options, name: str, model: str, dataset: str, method: str) -> dict[str, int]:
    """The highest memory of a cell by one contestant, as it is, and above what the loaded model needs."""
    rows = min(options.rows.get(model, 160), 32)
    case = options.case(model, dataset, method, rows=rows)
    if name == "released":
        case = options.rival_case(case, model, method)
    memory = PeakMemory(case.device)
    lap(case, options.entry(name))
    return memory.bytes()


def evaluation(options: Options, model: str, dataset: str) -> dict[str, Any]:
    """Evaluation alone against one prompt at a time: the same adapter, and answers that are asserted to be equal."""
    scored, repeats = options.scored.get(model, 64), options.repeats
    if dataset == LONG_ANSWERS:  # a prompt takes seconds, one at a time
        repeats = max(1, repeats // 3)
    case = options.case(model, dataset, "steering", scored=scored)
    ours = Actshift(case)
    ours.train()
    state = ours.adaptation.state_dict()
    whole = ours.evaluate(stop=False)

    def batched() -> tuple[float, list[str]]:
        own = Actshift(case)
        own.adaptation.load_state_dict(state)
        found = timed(own.evaluate, device=case.device)
        own.close()
        return found

    def one_prompt() -> tuple[float, list[str]]:
        released = Released(case, steerer=options.steerer)
        released.load(state)
        found = timed(lambda: one_by_one(case, released.model), device=case.device)
        released.close()
        return found

    ours.close()
    laps = alternate({"actshift": batched, "one_prompt": one_prompt}, repeats=repeats)
    (_, stopped), (_, expected) = laps["actshift"][0], laps["one_prompt"][0]
    different = [row for row, pair in enumerate(zip(whole, expected, strict=True)) if pair[0] != pair[1]]
    if different and case.config.training.precision == "float32":
        raise AssertionError(f"{model}, {dataset}: other answers than one prompt at a time in rows {different}")
    if _correct(case, stopped) != _correct(case, whole):
        raise AssertionError(f"{model}, {dataset}: stopping early changed scores")
    return {
        **case.facts(),
        "max_new_tokens": case.config.evaluation.max_new_tokens,
        "rows_per_second": {
            name: spread([len(case.scored) / seconds for seconds, _ in found]) for name, found in laps.items()
        },
        "answers_equal": len(expected) - len(different),
        "ratio": ratios(*([seconds for seconds, _ in laps[name]] for name in ("one_prompt", "actshift"))),
        "ratio_at_most": _ceiling([seconds for seconds, _ in laps["one_prompt"]], case, batched),
    }


def replicas(options: Options, model: str, dataset: str) -> dict[str, Any]:
    """Five learning rates at once over one base model against one of them alone."""
    case = options.case(model, dataset, "steering")
    rates = [case.config.lr * 0.5**place for place in range(REPLICAS)]

    def trained(lrs: list[float]) -> float:
        contestant = Actshift(case, seeds=[case.config.seed] * len(lrs), lrs=lrs)
        seconds, _ = timed(contestant.train, device=case.device)
        contestant.close()
        return seconds

    trained(rates)
    laps = alternate({"one": lambda: trained(rates[:1]), "five": lambda: trained(rates)}, repeats=options.repeats)
    return {
        **case.facts(),
        "seconds": {name: spread(found) for name, found in laps.items()},
        "tokens_per_second": {
            name: spread([count * case.trained_tokens / seconds for seconds in laps[name]])
            for name, count in (("one", 1), ("five", REPLICAS))
        },
        "ratio": ratios(laps["five"], laps["one"]),
        "ratio_at_least": digits(1 / _ceiling(laps["one"], case, lambda: trained(rates))),
    }
