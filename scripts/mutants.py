"""Mutants: small faults put into the code one at a time, each of which the tests named with it must notice.

    make test-mutants                       all of them (half an hour on two idle cores)
    make test-mutants ARGS='--area store'   those of one room

A fault is a text of a file of `src/actshift`, or of `conf/`, that stands there once, and the text in its place. Each is made in a copy
of the checkout, in which its tests run until the first failure. A mutant that no test notices has survived; so has one
whose text is no longer there, which is a fault of this list. Exit code 1 where less than nine in ten are killed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
ENOUGH = 0.9
PARTS = (
    "src",
    "conf",
    "tests",
    "slurm",
    "results",
    "scripts",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
    "pyproject.toml",
)
SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `old` becomes `new`; `tests` are pytest's arguments, a file and perhaps -k."""

    file: str
    old: str
    new: str
    tests: str

    @property
    def area(self) -> str:
        return self.file.partition("/")[0]

    def path(self, checkout: Path) -> Path:
        """The file in a checkout: below conf/ where it is named so, else below src/actshift/."""
        return checkout / self.file if self.area == "conf" else checkout / "src" / "actshift" / self.file


MUTANTS = (
    # What trains and how.
    Mutant("methods/parameterizations.py", "bound = 1e-3 / math.sqrt(width)", "bound = 1e-2 / math.sqrt(width)", "tests/unit/test_parameterizations.py"),
    Mutant("methods/parameterizations.py", "(torch.zeros(width) for _ in generators)\n\n    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:\n        return stack(self.vector)", "(torch.ones(width) for _ in generators)\n\n    def forward(self, h_ABTD: torch.Tensor) -> torch.Tensor:\n        return stack(self.vector)", "tests/contract -k 'vector and tiny'"),
    Mutant("methods/joint.py", "W2_DR - V_DS @ (V_DS.mT", "W2_DR + V_DS @ (V_DS.mT", "tests/unit/test_joint.py"),
    Mutant("methods/joint.py", "sizes_LS > smallest_L1", "sizes_LS >= 0 * smallest_L1", "tests/unit/test_joint.py"),
    Mutant("methods/peft_methods.py", "torch.manual_seed(seed)", "torch.manual_seed(0)", "tests/unit/test_parameterizations.py -k another_seed"),
    Mutant("methods/steering.py", "for end in parts:\n                if", "for end in list(parts)[:1]:\n                if", "tests/contract -k 'published and tiny'"),
    Mutant("methods/steering.py", "return changed_BTD.to(h_BTD.dtype)", "return changed_BTD", "tests/contract -k 'bfloat16 and post_block and tiny'"),
    Mutant("methods/registry.py", "lambda D, H, R: 2 * D * R + R", "lambda D, H, R: 2 * D * R", "tests/contract -k 'formula and reft and tiny'"),
    Mutant("methods/base.py", "expected.keys() - state.keys()", "expected.keys() - expected.keys()", "tests/contract -k 'refused_by_name and post_block and tiny'"),
    Mutant("methods/scopes.py", "(number_BT == length_B1) & (length_B1 > 0)", "(number_BT == length_B1) & prompt_BT", "tests/unit/test_scopes.py"),
    Mutant("models/packing/copies.py", "before_BTT & ~is_copy_BT[:, None, :]", "before_BTT", "tests/unit/test_copies.py"),
    Mutant("evaluation/generation.py", "            adaptation.begin_pass(ForwardPass(None, unchanged=True))\n", "", "tests/unit/test_scopes.py"),
    # The loop.
    Mutant("training/loop.py", "elif clip > 0:", "elif clip < 0:", "tests/unit/test_training.py"),
    Mutant("training/loop.py", "torch.nn.utils.clip_grad_norm_(parameters, clip)", "torch.nn.utils.clip_grad_norm_(parameters, 2 * clip)", "tests/unit/test_parameterizations.py"),
    Mutant("training/loop.py", "            scheduler.step()\n", "", "tests/unit/test_training.py"),
    Mutant("training/loop.py", "if not math.isfinite(loss):", "if math.isnan(loss):", "tests/unit/test_training.py tests/unit/test_replicas.py"),
    Mutant("training/loop.py", 'torch.manual_seed(seeds[0])\n', 'torch.manual_seed(0)\n', "tests/unit/test_training.py tests/unit/test_checkpoints.py"),
    Mutant("training/batches.py", "generator = torch.Generator().manual_seed(seed)", "generator = torch.Generator().manual_seed(0)", "tests/unit/test_training.py tests/unit/test_steps.py"),
    Mutant("training/batches.py", "math.ceil(share * steps)", "math.floor(share * steps)", "tests/unit/test_training.py tests/unit/test_steps.py"),
    Mutant("training/batches.py", "max(example.prompt_length, 1)", "example.prompt_length", "tests/unit/test_training.py tests/unit/test_steps.py tests/unit/test_packing.py"),
    Mutant("training/checkpoints.py", "        self._remove(keep=folder)\n", "", "tests/unit/test_checkpoints.py"),
    Mutant("training/checkpoints.py", 'torch.set_rng_state(random["cpu"])', 'None', "tests/unit/test_checkpoints.py"),
    Mutant("training/checkpoints.py", "kept is not None and kept != self._data", "False", "tests/end_to_end/test_changed_data.py -k checkpoint"),
    Mutant("training/checkpoints.py", "for folder in reversed(self._complete()):", "for folder in self._complete():", "tests/unit/test_checkpoints.py"),
    # One run.
    Mutant("runtime/run.py", "if store.record(identity, split) is not None:\n                continue", "if False:\n                continue", "tests/end_to_end/test_run.py"),
    Mutant("runtime/run.py", "            refuse_changed_record(named[name], record, data=session)", "            pass", "tests/end_to_end/test_changed_data.py -k record"),
    Mutant("runtime/metrics.py", '"accuracy": 100 * correct / rows', '"accuracy": correct / rows', "tests/end_to_end/test_run.py"),
    Mutant("runtime/run.py", "adaptation.load_state_dict(adapter.state, replica)", "adaptation.load_state_dict(adapters[0].state, replica)", "tests/end_to_end/test_together.py"),
    Mutant("runtime/train.py", "if len(curve.loss) == step:", "if True:", "tests/unit/test_trackers.py"),
    Mutant("runtime/train.py", "replica=replica,\n            base=base", "replica=0,\n            base=base", "tests/end_to_end/test_together.py"),
    Mutant("runtime/loaded.py", 'key = json.dumps(plain([config.dataset, config.data]), sort_keys=True)', 'key = json.dumps([config.dataset.name], sort_keys=True)', "tests/end_to_end/test_run.py"),
    Mutant("runtime/session.py", 'key = json.dumps([plain(config.model), precision, str(device)], sort_keys=True)', 'key = json.dumps([config.model.name, str(device)], sort_keys=True)', "tests/end_to_end/test_run.py"),
    Mutant("runtime/baselines.py", "key=lambda each: (-counts[each], each)", "key=lambda each: (counts[each], each)", "tests/end_to_end/test_baselines.py -k common_label"),
    Mutant("runtime/reuse.py", "kept == now:", "True:", "tests/end_to_end/test_changed_data.py"),
    # What is kept.
    Mutant("store/store.py", "if actual != record.identity:", "if False:", "tests/unit/test_store.py"),
    Mutant("store/store.py", "lock.lost or lock.identity != record.identity", "lock.identity != record.identity", "tests/unit/test_store.py"),
    Mutant("store/store.py", '"attempts") + 1', '"attempts")', "tests/unit/test_store.py"),
    Mutant("store/records.py", "abs(accuracy - 100 * correct / rows) <= 0.0051", "True", "tests/unit/test_records.py"),
    Mutant("store/records.py", "if record.file_name != path.name:", "if False:", "tests/unit/test_records.py"),
    Mutant("store/locks.py", "if started != self.started or state in", "if state in", "tests/unit/test_locks.py"),
    Mutant("store/locks.py", "                os.utime(self._path)\n            except", "                pass\n            except", "tests/unit/test_locks.py"),
    Mutant("store/adapters.py", "if _sha256(path) != description.sha256:", "if False:", "tests/unit/test_adapters.py"),
    Mutant("store/baselines.py", "identity_of(found.config, ignore=()) != identity", "False", "tests/end_to_end/test_baselines.py -k torn"),
    # Answers.
    Mutant("tasks/rules.py", "return len(rest) > 1", "return len(rest) > 0", "tests/unit/test_rows.py -k decided"),
    Mutant("tasks/arc_challenge.py", "A(?!\\s+[a-z])|[B-E]", "[A-E]", "tests/parity/test_released_scoring.py tests/unit/test_scoring.py tests/unit/test_rows.py"),
    Mutant("tasks/boolq.py", "(true|false)(?!\\w)", "(true|false)", "tests/unit/test_rows.py -k articles"),
    Mutant("tasks/base.py", "not self.scores_itself(answer, label)", "False", "tests/unit/test_rows.py"),
    # Choices and evidence.
    Mutant("planning/selection.py", "or finished\n", "and finished\n", "tests/unit/test_selection.py"),
    Mutant("planning/selection.py", "best = max(", "best = min(", "tests/unit/test_selection.py"),
    Mutant("planning/selection.py", '"lowest" if chosen is ranked[0]', '"lowest" if chosen is ranked[-1]', "tests/unit/test_selection.py"),
    Mutant("planning/extend.py", "end * end / inner", "end * inner / end", "tests/unit/test_extend.py"),
    Mutant("planning/expand.py", "return tuple(sorted(rates))", "return tuple(rates)", "tests/unit/test_planning.py"),
    Mutant("report/statistics.py", "(family - rank) * p", "(family - rank - 1) * p", "tests/unit/test_statistics.py"),
    Mutant("report/statistics.py", "return min(1.0, 2 * float(tail))", "return min(1.0, float(tail))", "tests/unit/test_statistics.py"),
    Mutant("report/statistics.py", "+ sum(weight**2 for weight, _ in stacked) / 2) / rows**2", "+ 0 * len(stacked)) / rows**2", "tests/unit/test_statistics.py"),
    Mutant("report/study/effects.py", "+ sign / len(pairs)", "+ sign", "tests/unit/test_study.py"),
    Mutant("report/study/effects.py", "holm(p_values, family=len(study.fraction.contrasts) * len(study.datasets))", "holm(p_values)", "tests/unit/test_study.py"),
    Mutant("planning/fraction.py", "sum(signs) % 2", "sum(signs) % 2 == 0", "tests/unit/test_fraction.py"),
    Mutant("report/origins.py", "if first != fingerprint:", "if False:", "tests/unit/test_origins.py"),
    Mutant("report/comparison.py", "int((ours & ~reference).sum())", "int((~ours & reference).sum())", "tests/unit/test_comparison.py"),
    # Many runs.
    Mutant("sweeps/slurm.py", "FILL = 0.7", "FILL = 1.7", "tests/unit/test_slurm.py"),
    Mutant("sweeps/slurm.py", '"afterok" if self.strictly else "afterany"', '"afterany"', "tests/unit/test_slurm.py"),
    Mutant("sweeps/slurm.py", '.replace("%", "%%")', "", "tests/unit/test_slurm.py"),
    Mutant("sweeps/worker.py", '== 1\n    if again', '>= 1\n    if again', "tests/unit/test_worker.py"),
    Mutant("sweeps/task.py", 'os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"]', 'os.environ["SLURM_ARRAY_JOB_ID"]', "tests/unit/test_task.py"),
    Mutant("sweeps/task.py", "self.requeue |= number == signal.SIGUSR1", "self.requeue = True", "tests/unit/test_task.py"),
    Mutant("sweeps/task.py", 'int(first) + int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))', 'int(first)', "tests/unit/test_task.py"),
    # What is generated and how it is scored.
    Mutant("evaluation/generation.py", "            if token in ends:\n                going.discard(row)\n", "", "tests/unit/test_generation.py"),
    Mutant("evaluation/generation.py", "self.position_B1 = self.position_B1 + 1", "self.position_B1 = self.position_B1", "tests/unit/test_generation.py"),
    Mutant("evaluation/generation.py", ">= longest - lengths_B[:, None]).long()", ">= 0 * lengths_B[:, None]).long()", "tests/unit/test_generation.py"),
    Mutant("evaluation/generation.py", "key=lambda row: (-lengths[row], row)", "key=lambda row: (lengths[row], row)", "tests/unit/test_generation.py"),
    Mutant("evaluation/generation.py", "rows[index] not in going)[:most]", "rows[index] in going)[:most]", "tests/unit/test_generation.py"),
    Mutant("evaluation/answers.py", "[-next(losses) for _", "[next(losses) for _", "tests/unit/test_likelihood.py"),
    Mutant("evaluation/generation.py", "torch.where(step < length_B, found_B, 0.0)", "found_B", "tests/unit/test_likelihood.py"),
    Mutant("evaluation/answers.py", "best = max(ordered,", "best = min(ordered,", "tests/unit/test_likelihood.py"),
    Mutant("evaluation/answers.py", "correct=best == label", "correct=best != label", "tests/unit/test_likelihood.py"),
    Mutant("evaluation/sampling.py", "before_BV < top_p", "before_BV <= 1", "tests/unit/test_sampling.py"),
    Mutant("evaluation/sampling.py", "logits_BV.float() / self._temperature", "logits_BV.float()", "tests/unit/test_sampling.py"),
    Mutant("runtime/metrics.py", "loss.nats / loss.tokens", "loss.nats / rows", "tests/unit/test_alpaca.py"),
    Mutant("runtime/outputs.py", "streams=[(self.seed, row) for row in rows]", "streams=[(self.seed, 0) for row in rows]", "tests/unit/test_sampling.py"),
    Mutant("judging/asking.py", "self._ledger.spent + most > self._budget", "self._ledger.spent > self._budget", "tests/unit/test_judges.py"),
    Mutant("judging/client.py", "text.replace(key, BLANK) if key else text\n        return json", "text\n        return json", "tests/end_to_end/test_judge_over_http.py"),
    Mutant("judging/client.py", "            attempts.unpaid()\n", "", "tests/end_to_end/test_judge_over_http.py"),
    Mutant("evaluation/answers.py", "predictions[replica * rows + row] for row", "predictions[row] for row", "tests/unit/test_generation.py tests/unit/test_predictions.py tests/end_to_end/test_together.py"),
    Mutant("evaluation/answers.py", "_text(base, ids).rstrip(\"\\ufffd\")", "_text(base, ids)", "tests/unit/test_predictions.py"),
    Mutant("evaluation/answers.py", "correct=task.score(output, label)", "correct=output == label", "tests/unit/test_predictions.py tests/end_to_end/test_run.py"),
    Mutant("evaluation/cache.py", "room = 0 if layer.is_sliding else min(SPARE_TOKENS, new_tokens)", "room = min(SPARE_TOKENS, new_tokens)", "tests/unit/test_generation.py tests/contract -k 'generat or greedy'"),
    Mutant("evaluation/cache.py", "            first += block.rows\n", "", "tests/unit/test_generation.py"),
    Mutant("evaluation/cache.py", "before += replicas * tokens", "before += 0", "tests/unit/test_generation.py"),
    Mutant("evaluation/one_token.py", "hidden_BT[start:end, None, -seen:]", "hidden_BT[start:end, None, :seen]", "tests/unit/test_generation.py"),
    Mutant("evaluation/cache.py", "keys[:, :, self.held : held], values", "keys[:, :, self.held - 1 : held - 1], values", "tests/unit/test_generation.py"),
    Mutant("evaluation/predictions.py", "logprobs[label][0] / logprobs[label][1]", "logprobs[label][0]", "tests/unit/test_likelihood.py tests/unit/test_predictions.py"),
    Mutant("evaluation/rescoring.py", 'rule or (config.evaluation.rule if config else "paper")', 'rule or "paper"', "tests/unit/test_score_command.py"),
    Mutant("runtime/evaluate.py", 'rule=evaluation.rule', 'rule="paper"', "tests/unit/test_scored_so.py"),
    Mutant("runtime/evaluate.py", 'evaluation.max_new_tokens', 'evaluation.max_new_tokens + 1', "tests/unit/test_scored_so.py"),
    Mutant("runtime/evaluate.py", "end_token=False, max_tokens=None", 'end_token=False, max_tokens=config.training.max_tokens', "tests/unit/test_scored_so.py"),
    Mutant("runtime/evaluate.py", 'ends=None if chat is None else chat.ends', 'ends=None', "tests/unit/test_scored_so.py tests/unit/test_chat.py"),
    Mutant("runtime/evaluate.py", 'if evaluation.scoring == "likelihood":', 'if False:', "tests/unit/test_likelihood.py"),
    # Optimizers.
    Mutant("training/optimizers.py", "torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)", "torch.optim.AdamW(groups, weight_decay=0.0, fused=True)", "tests/unit/test_parameterizations.py tests/unit/test_training.py tests/unit/test_optimizers.py"),
    Mutant("training/optimizers.py", 'f"{self.seed} {done + 1}"', 'f"{self.seed} 1"', "tests/unit/test_optimizers.py"),
    Mutant("training/optimizers.py", 'f"{self.seed} {done + 1}"', 'f"0 {done + 1}"', "tests/unit/test_optimizers.py"),
    Mutant("training/objective.py", "(loss_A / tokens_A)[list(alive)].sum().backward()", "(loss_A / len(blocks[0]))[list(alive)].sum().backward()", "tests/unit/test_training.py tests/unit/test_steps.py"),
    Mutant("training/loop.py", "            adaptation.after_step(step, losses)\n", "", "tests/unit/test_jola.py tests/unit/test_lofit.py tests/parity"),
    # Hours and bytes.
    Mutant("estimates/costs.py", "passes = 3 if kind.trains_base else 2", "passes = 3", "tests/unit/test_costs.py"),
    Mutant("estimates/costs.py", '* speed.efficiency', "", "tests/unit/test_costs.py"),
    Mutant("estimates/costs.py", "return float(2 * shape", "return float(4 * shape", "tests/unit/test_costs.py"),
    Mutant("estimates/costs.py", "ATTENTION_PASSES = 3", "ATTENTION_PASSES = 2", "tests/unit/test_costs.py"),
    Mutant("estimates/costs.py", "(work.prompt + work.answer / 2) * shape.layers", "work.prompt * shape.layers", "tests/unit/test_costs.py"),
    Mutant("estimates/costs.py", " / config.hardware.speed.attention_efficiency", "", "tests/unit/test_costs.py"),
    Mutant("estimates/costs.py", 'moved = everything * size', 'moved = everything * 2', "tests/unit/test_costs.py"),
    Mutant("estimates/memory.py", "(2 * size + 2 * 4)", "(size + 4)", "tests/unit/test_memory.py"),
    Mutant("evaluation/limits.py", "return 2 * keys * size", "return keys * size", "tests/unit/test_memory.py"),
    Mutant("evaluation/limits.py", "return int(min(", "return int(max(", "tests/unit/test_memory.py"),
    Mutant("runtime/evaluate.py", "            batch_tokens=tokens,\n", "            batch_tokens=1,\n", "tests/unit/test_scored_so.py"),
    Mutant("estimates/memory.py", '"adamw": lambda size: 2 * size', '"adamw": lambda size: size', "tests/unit/test_memory.py"),
    # Literals of conf/.
    Mutant("conf/grid/paper.yaml", "sft: [5e-6, 1e-5, 2e-5, 5e-5, 1e-4]", "sft: [5e-6, 1e-5, 2e-5, 5e-5, 2e-4]", "tests/unit/test_grids.py"),
    Mutant("conf/protocol/paper.yaml", "clip: 1.0", "clip: 2.0", "tests/unit/test_composition.py tests/unit/test_product.py tests/golden/test_identities.py"),
    # The claims ledger, analyses and other formats.
    Mutant("report/claims/estimates.py", "if holds >= needed:", "if holds > needed:", "tests/unit/test_claims.py"),
    Mutant("report/claims/estimates.py", "left = distance**2 - (self.half**2 - self.seeds**2)", "left = distance**2 - self.half**2", "tests/unit/test_claims.py"),
    Mutant("report/claims/estimates.py", '"most": total // 2 + 1', '"most": (total + 1) // 2', "tests/unit/test_claims.py"),
    Mutant("report/claims/accuracies.py", "math.sqrt(max(half**2 - rows**2, 0.0))", "half", "tests/unit/test_claims.py"),
    Mutant("report/claims/rules.py", "abs(gaps[top]) > abs(sum(gaps.values())) / 2", "abs(gaps[top]) < abs(sum(gaps.values())) / 2", "tests/unit/test_claims.py"),
    Mutant("report/claims/elsewhere.py", 'errors * float(other["standard_error"])', '2 * errors * float(other["standard_error"])', "tests/unit/test_claims.py"),
    Mutant("analysis/shares.py", "float(part_N.mean() / whole_N.mean())", "float((part_N / whole_N).mean())", "tests/unit/test_adapter_analyses.py"),
    Mutant("analysis/shifts.py", 'if "lora_B" not in name or DOWN in name else', 'if "lora_B" not in name else', "tests/unit/test_adapter_analyses.py"),
    Mutant("analysis/maps.py", "lacking_BTD = wanted[BLOCK, layer] - h_BTD", "lacking_BTD = wanted[BLOCK, layer]", "tests/unit/test_oracle_maps.py"),
    Mutant("analysis/oracle.py", "squares.sum() ** 2 / np.square(squares).sum()", "squares.sum() / np.square(squares).sum()", "tests/unit/test_oracle_maps.py"),
    Mutant("analysis/continuations.py", "range(example.prompt_length - 1, len(example.ids) - 1)", "range(example.prompt_length, len(example.ids))", "tests/unit/test_oracle_maps.py"),
    Mutant("analysis/retention.py", "count += len(window) - 1", "count += len(window)", "tests/unit/test_adapter_analyses.py"),
    Mutant("report/interchange.py", 'if repository is None or cell["source"] == "procedural":', "if repository is None:", "tests/unit/test_interchange.py"),
    # The audit and the page.
    Mutant("report/audit/differences.py", 'row["delta_vs_sft"] - row["computed"], 1)', 'row["computed"] - row["delta_vs_sft"], 1)', "tests/unit/test_audit.py"),
    Mutant("report/audit/differences.py", "size = round(printed - computed, 2)", "size = round(computed - printed, 2)", "tests/unit/test_audit.py"),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """A copy of the checkout, in which mutants are made."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "runs", "cache")
            shutil.copytree(source, folder / part, ignore=ignored)
        elif source.is_file():
            shutil.copy2(source, folder / part)
    return folder


@contextmanager
def applied(mutant: Mutant, checkout: Path) -> Iterator[bool]:
    """The fault in a copy of the checkout, taken back afterwards; whether its text stood there exactly once."""
    file = mutant.path(checkout)
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        yield before.count(mutant.old) == 1
    finally:
        file.write_text(before, encoding="utf-8")


def outcome(mutant: Mutant, checkout: Path) -> str:
    """killed, survived, or absent where the text is not there once."""
    with applied(mutant, checkout) as once:
        if not once:
            return "absent"
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(mutant.tests)]
        command += ["-m", "not slow and not gpu and not network and not slurm"]
        try:
            done = subprocess.run(
                command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"no verdict in {SECONDS} s"
        # 1: tests failed. Anything else (no test was found, a wrong file) is no evidence.
        return {0: "survived", 1: "killed"}.get(done.returncode, f"absent (pytest ended with {done.returncode})")


def main() -> int:
    """Try the mutants and print each that survived, and the share that was killed by area."""
    parser = argparse.ArgumentParser(description="put faults into the code that the tests must notice")
    parser.add_argument("--area", help="a room of src/actshift")
    parser.add_argument("--jobs", type=int, default=2)
    request = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if request.area in (None, mutant.area)]
    results: dict[str, list[str]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(request.jobs):
            free.put(copied(Path(folder) / str(number)))

        def tried(mutant: Mutant) -> tuple[Mutant, str]:
            checkout = free.get()
            try:
                return mutant, outcome(mutant, checkout)
            finally:
                free.put(checkout)

        with ThreadPoolExecutor(request.jobs) as pool:
            for mutant, result in pool.map(tried, chosen):
                results[mutant.area].append(result)
                print(f"{result:9} {mutant.file}: {mutant.old.strip().splitlines()[0]}", flush=True)
    killed = 0
    for area, outcomes in sorted(results.items()):
        killed += outcomes.count("killed")
        print(f"{area}: {outcomes.count('killed')} of {len(outcomes)} killed")
    print(f"all: {killed} of {len(chosen)} killed")
    return 0 if killed >= ENOUGH * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
