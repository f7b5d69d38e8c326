"""`actshift export`: a sweep's finished cells as Every Eval Ever JSON and as the hub's `.eval_results`."""

from __future__ import annotations

from argparse import Namespace

from actshift.commands.requests import planned_grid, selection_of, stages_of
from actshift.config.cached import CachedComposer
from actshift.errors import ActshiftError
from actshift.files import write_file


def export_command(request: Namespace) -> int:
    """Write FOLDER/export/SWEEP/every_eval_ever/... and FOLDER/export/SWEEP/hub/... Errors: no finished cell."""
    from actshift.report import interchange
    from actshift.report.frame import cells

    store, grid = planned_grid(request)
    final, records = stages_of(store, grid)[-1], store.records("test")
    frame = cells(final, records, selection_of(store, grid.sweep))
    if not frame["status"].eq("done").any():
        raise ActshiftError(f"no cell of '{grid.sweep}' is finished: there is nothing to export")
    composer = CachedComposer()
    models = {name: composer([f"model={name}"]).model for name in final.models}
    datasets = {name: composer([f"dataset={name}"]).dataset.hub for name in final.datasets}
    places = interchange.Places(
        models={name: model.path if model.source == "hub" else None for name, model in models.items()},
        datasets={name: hub.path for name, hub in datasets.items()},
        created={record.identity: record.provenance["created"] for record in records},
    )
    folder = store.root / "export" / grid.sweep
    files = {f"every_eval_ever/{path}": text for path, text in interchange.every_eval_ever(frame, places).items()}
    files |= {f"hub/{path}": text for path, text in interchange.eval_results(frame, places).items()}
    for path, text in files.items():
        write_file(folder / path, text)
        print(folder / path)
    return 0
