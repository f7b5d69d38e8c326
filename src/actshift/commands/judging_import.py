"""Importing judgments that somebody else recorded: of one file of outputs, or of a sweep's final runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError, unknown

if TYPE_CHECKING:
    from actshift.judging.config import JudgeConfig
    from actshift.judging.importing import Plan
    from actshift.judging.judges import Paired
    from actshift.judging.ledger import Ledger


def import_file(request: Namespace, config: JudgeConfig, given: Paired, ledger: Ledger) -> bool:
    """Take the judgments of one file of outputs into the ledger; whether every question is answered then."""
    return bool(_import(request, config, {given.generator: given}, ledger))


def import_sweep(
    request: Namespace, config: JudgeConfig, ledger: Ledger, outputs: Mapping[str, Path], references: Path
) -> set[str]:
    """Take the judgments of a sweep's final runs into the ledger; the identities whose every question is answered.

    `outputs` are the files of outputs by the run's identity. Errors: those of an import; outputs of two runs that name
    the same generator, so that a row could belong to either.
    """
    from actshift.judging.judges import paired

    given: dict[str, Paired] = {}
    runs: dict[str, str] = {}
    for identity, path in outputs.items():
        found = paired(path, references, inner=True)
        if found.generator in given:
            raise ActshiftError(
                f"{path} and {outputs[runs[found.generator]]} both name the generator {found.generator}: write the "
                f"outputs anew with `actshift outputs {request.outputs}`, which names each run's own."
            )
        given[found.generator], runs[found.generator] = found, identity
    return {runs[generator] for generator in _import(request, config, given, ledger)}


def _import(request: Namespace, config: JudgeConfig, given: Mapping[str, Paired], ledger: Ledger) -> Sequence[str]:
    """Check every row, then write; the imported generators whose every question is answered. None of a dry run."""
    from actshift.judging.asking import open_questions
    from actshift.judging.importing import planned, read_import
    from actshift.judging.summary import files_of

    rows = read_import(files_of(map(Path, request.imported)), config)
    for generator in rows:
        if generator not in given:
            raise unknown("generator_2", generator, given, where="the judgments to import, or write its outputs first")
    held = dict(ledger.answers)
    plans: dict[str, Plan] = {}
    for generator, group in rows.items():
        plans[generator] = planned(group, given[generator], config, held, allow_unjudged=request.allow_unjudged)
        held |= plans[generator].entries
    whole = []
    for generator, plan in plans.items():
        if not request.dry_run:
            plan.keep(ledger)
        left = [each for each in open_questions(given[generator].pairs, config, ledger) if each.key not in plan.entries]
        done = "to import" if request.dry_run else "imported"
        print(
            f"{generator}: {len(plan.entries)} answers {done} as {config.name}'s, {plan.known} in the ledger before, "
            f"{plan.equal} pairs of equal answers, {len(left)} questions left"
        )
        if not left and not request.dry_run:
            whole.append(generator)
    return whole
