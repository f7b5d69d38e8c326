"""The cost of a whole sweep, cell by cell: runs, device hours, peak memory, and what does not fit its device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from actshift.estimates.costs import Calibration, Cost, calibrate, estimate
from actshift.estimates.memory import Fit, changed_config, estimate_peak, fit
from actshift.planning.halving import budget
from actshift.planning.manifests import Manifest, PlannedCell
from actshift.schema.config import BYTES, Config
from actshift.store.records import Cell
from actshift.store.store import Store

HARDWARE = {"8b": "a100-80gb", "tiny": "cpu", "135m": "cpu"}
"""The hardware profile that a model's scale is planned on where none is named; every other goes to the default."""
DEFAULT_HARDWARE = "a100-40gb"


def planned_hardware(scale: str) -> str:
    """The hardware profile that a model of a scale is planned on where none is named."""
    return HARDWARE.get(scale, DEFAULT_HARDWARE)


Compose = Callable[[Sequence[str]], Config]


@dataclass(frozen=True)
class PlanRow:
    """What one method costs on one model: runs of both stages, device hours by the precision of the base model, the
    precision that is planned, the largest peak in bytes, and a remedy where that peak does not fit the hardware."""

    model: str
    method: str
    hardware: str
    grid_runs: int
    final_runs: int
    hours: Mapping[str, float]
    precision: str
    peak_bytes: float
    note: str


class Estimates:
    """Estimated costs of a sweep's runs, corrected by the records of it that there are.

    `hardware` names a profile by model; a model that it leaves out is planned on what suits its scale.
    """

    def __init__(self, store: Store, grid: Manifest, *, compose: Compose, hardware: Mapping[str, str]) -> None:
        self._grid = grid
        self._configs: dict[Cell, Config] = {}
        for planned in grid.cells:
            config = compose([*planned.variants[0].overrides, "stage=grid"])  # as the plan composed it
            scale = config.model.scale
            name = hardware.get(planned.cell.model) or planned_hardware(scale)
            self._configs[planned.cell] = replace(config, hardware=compose([f"hardware={name}"]).hardware)
        by_identity: dict[str, Config] = {run.identity: self._configs[run.cell] for run in grid.runs}
        planned_here = [record for record in store.records() if record.identity in by_identity]
        self.calibration: Calibration = calibrate(planned_here, by_identity)

    def cost(self, planned: PlannedCell, *, split: str, trained: bool = False, precision: str | None = None) -> Cost:
        """The estimate of one run of a cell, in the precision that is planned or in another one.

        Finished runs correct all precisions alike: what they show of a device's efficiency is taken to hold for each.
        """
        config = self._configs[planned.cell]
        if precision is not None:
            config = changed_config(config, {"training.precision": precision})
        cost = estimate(config, split=split, trained=trained)
        return self.calibration.apply(cost, model=planned.cell.model, hardware=config.hardware.name)

    def seconds(self) -> dict[tuple[Cell, str], float]:
        """Estimated seconds of a run, by cell and stage; a final run is taken to train."""
        return {
            (planned.cell, stage): self.cost(planned, split=split).seconds
            for planned in self._grid.cells
            for stage, split in (("grid", "validation"), ("final", "test"))
        }

    def rows(self) -> Iterator[PlanRow]:
        """A row for each model and method, in the order of the plan."""
        for model in self._grid.models:
            for method in self._grid.methods:
                cells = [each for each in self._grid.cells if (each.cell.model, each.cell.method) == (model, method)]
                if cells:
                    yield self._row(cells)

    def _row(self, cells: Sequence[PlannedCell]) -> PlanRow:
        config = max((self._configs[each.cell] for each in cells), key=lambda own: estimate_peak(own).bytes)
        peak, room = estimate_peak(config).bytes, config.hardware.speed.memory_bytes
        return PlanRow(
            model=cells[0].cell.model,
            method=cells[0].cell.method,
            hardware=config.hardware.name,
            grid_runs=sum(len(each.candidates) for each in cells if len(each.candidates) > 1),
            final_runs=sum(len(each.seeds) for each in cells),
            hours={precision: sum(self._hours(each, precision) for each in cells) for precision in BYTES},
            precision=config.training.precision,
            peak_bytes=peak,
            note="" if peak <= room else f"over {room / 1e9:.0f} GB: {_remedy(fit(config, room))}",
        )

    def _hours(self, planned: PlannedCell, precision: str) -> float:
        tuned = len(planned.candidates) > 1
        cost = partial(self.cost, planned, precision=precision)
        count = len(planned.candidates)
        trained, scored = budget(count) if self._grid.halves else (count, count)
        once = cost(split="validation")
        seconds = trained * once.train_seconds + scored * once.evaluation_seconds if tuned else 0.0
        fresh = len(planned.seeds) - tuned  # the first seed's adapter is there from the grid
        seconds += fresh * cost(split="test").seconds
        seconds += tuned * cost(split="test", trained=True).seconds
        return seconds / 3600

    def basis(self) -> str:
        """What the estimates rest on."""
        runs = self.calibration.runs
        return f"corrected by {runs} finished runs" if runs else "from data sheets; finished runs correct it"


def _remedy(found: Fit) -> str:
    """What makes a run fit its device, where anything that we know does."""
    return f"fits with {' '.join(found.overrides)}" if found.fits else "choose another device"
