"""What test sets give away without adaptation: made after a sweep, or by a command of its own."""

from __future__ import annotations

from argparse import Namespace

from actshift.commands.requests import SweepRequest, stages_of, sweep_request
from actshift.config.cached import CachedComposer
from actshift.config.overrides import override
from actshift.planning.manifests import Manifest
from actshift.store.baselines import baseline_identity, read_baseline


def baselines_command(request: Namespace) -> int:
    """Score the base models of a planned sweep on its test splits, and print what came out."""
    wanted, compose_cell = sweep_request(request), CachedComposer()
    grid = wanted.grid(compose_cell)
    make_baselines(wanted, stages_of(wanted.store, grid)[-1], compose_cell)
    for identity in dict.fromkeys(baseline_identity(planned.config) for planned in grid.cells):
        found = read_baseline(wanted.store.root, identity)
        if found is not None:
            likelihood = "" if found.likelihood is None else f", likelihood {found.likelihood:.1f}"
            print(
                f"{found.model} / {found.dataset} ({found.protocol}), {found.rows} test rows: majority "
                f"{found.majority:.1f} ({found.majority_label}), base model {found.generation:.1f}{likelihood}"
            )
    return 0


def make_baselines(wanted: SweepRequest, manifest: Manifest, compose_cell: CachedComposer) -> None:
    """Make the baselines that a sweep's table shows and that are not there yet."""
    cells = {baseline_identity(planned.config): planned for planned in manifest.cells}
    missing = [planned for identity, planned in cells.items() if read_baseline(wanted.store.root, identity) is None]
    if not missing:
        return  # nothing is computed, so nothing that computes needs to be imported
    from actshift.runtime.baselines import baseline
    from actshift.runtime.session import Session

    session = Session()
    for planned in missing:
        words = [*wanted.launch, override("results", wanted.store.root), "stage=final"]
        config = compose_cell([*planned.variants[0].overrides, *words])
        baseline(config, session=session)
