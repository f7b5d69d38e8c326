"""What an analysis will cost: seconds and bytes from sizes alone, as a run's are.

Counted are the passes that it makes over its rows at once, what it keeps of them, and what it computes on the host in
float64 (singular values, regressions). Held against measurement in docs/analyses.md.

Sizes: D width, L layers, M of the MLP, V vocabulary, n tokens of the rows with their padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from actshift.estimates.costs import START_SECONDS, estimate, passes_seconds, row_lengths, rows_of
from actshift.estimates.memory import all_weights, kept_inside
from actshift.schema import analysis as schema
from actshift.schema.config import BYTES, Config

HOST_RATE = 1e10
"""Operations a second of float64 decompositions on a host."""
DECOMPOSITION = 20
"""Operations of a decomposition of a D x D matrix, in D^3."""
SEARCH_SECONDS = 60.0
"""What the searches of the theory ledger take, whatever the model."""
TEXT_TOKENS = 500
"""Of the package's plain text."""
SITES = 4
"""Sites that oracle steering looks at."""


@dataclass(frozen=True)
class AnalysisCost:
    """Seconds, bytes of tensors on the device, and bytes of float64 arrays on the host."""

    seconds: float
    peak_bytes: float
    host_bytes: float


@dataclass(frozen=True)
class Work:
    """Passes over all rows, backward passes, hidden states (n x D) and logits (n x V in float64) held at once, bytes
    that a backward pass keeps, operations and bytes on the host, and seconds of what is none of these."""

    passes: float
    backward: float = 0.0
    states: float = 0.0
    logits: float = 0.5
    kept_bytes: float = 0.0
    host_operations: float = 0.0
    host_bytes: float = 0.0
    seconds: float = 0.0


def estimate_analysis(config: Config, *, adapters: int) -> AnalysisCost:
    """The cost of a configuration's analysis of so many trained adapters."""
    analysis, shape, size = config.analysis, config.model.shape, BYTES[config.training.precision]
    works = [work for kind, work in WORKS.items() if type(analysis) is kind]
    if not works:
        raise TypeError(f"no estimate of {type(analysis).__name__}")
    tokens = tokens_of(config)
    work = works[0](config, analysis, tokens, adapters)
    a_pass = passes_seconds(config, tokens=tokens)
    seconds = (work.passes + 2 * work.backward) * a_pass + work.host_operations / HOST_RATE + work.seconds
    weights = all_weights(shape) * size
    states = work.states * tokens * shape.width * size
    logits = work.logits * tokens * shape.vocabulary * 8
    inside = tokens * 3 * shape.mlp_width * size if work.passes else 0.0
    device = "cpu" if config.hardware.device == "cpu" else "cuda"
    return AnalysisCost(
        START_SECONDS[device] + seconds, weights + states + logits + max(inside, work.kept_bytes), work.host_bytes
    )


def tokens_of(config: Config) -> float:
    """Tokens of all rows that are looked at in one batch, as long as the longest."""
    split = "validation" if isinstance(config.analysis, VALIDATION) else "train"
    asked = _rows(config)
    there = rows_of(config, split)
    return float(min(asked, there or asked) * row_lengths(config).longest)


def fitting(config: Config, room: float, *, adapters: int) -> int | None:
    """The rows, halved until an analysis stays below some bytes; None where it never does."""
    rows = _rows(config)
    while rows > 2:
        rows //= 2
        smaller = replace(config, analysis=replace(config.analysis, rows=rows))  # type: ignore[type-var]
        if estimate_analysis(smaller, adapters=adapters).peak_bytes <= room:
            return rows
    return None


def has_rows(config: Config) -> bool:
    """Whether the analysis has a number of rows that a request can make smaller."""
    return any(each.name == "rows" for each in fields(config.analysis or schema.AnalysisConfig()))


VALIDATION = (schema.SharesConfig, schema.CosinesConfig, schema.ContinuationsConfig)


def _rows(config: Config) -> int:
    return int(getattr(config.analysis, "rows", 0))


def _theory(config: Config, analysis: schema.TheoryConfig, tokens: float, adapters: int) -> Work:
    if not analysis.activations:
        return Work(0, logits=0, seconds=SEARCH_SECONDS)
    shape = config.model.shape
    # Two statements of streams, each draw of three times as many tokens as the width, and the model's GLUs.
    streams = 2 * analysis.draws * 3 * DECOMPOSITION * shape.width**3
    glus = 4 * analysis.draws * 100 * shape.width * shape.mlp_width
    host = 3 * shape.layers * tokens * shape.width * 8 + 3 * shape.layers * shape.width * shape.mlp_width * 8
    states = 3.0 * shape.layers
    return Work(1, states=states, host_operations=float(streams + glus), host_bytes=float(host), seconds=SEARCH_SECONDS)


def _maps(config: Config, analysis: Any, tokens: float) -> tuple[int, float]:
    """Kinds of maps, and operations of fitting each once to every layer."""
    shape = config.model.shape
    ranks = [rank for rank in analysis.ranks if rank < shape.width]
    linear = (len(ranks) + 1) * (2 * DECOMPOSITION * shape.width**3 + 6 * tokens * shape.width**2)
    hidden = analysis.steps * sum(12 * tokens * shape.width * rank for rank in ranks)
    kinds = 2 + len(ranks) * (2 if analysis.steps else 1)
    return kinds, float(shape.layers * (linear + hidden))


def _oracle(config: Config, analysis: schema.OracleConfig, tokens: float, adapters: int) -> Work:
    shape = config.model.shape
    kinds, fits = _maps(config, analysis, tokens)
    passes = 3 + (SITES + kinds) * (shape.layers + 1)
    spectra = shape.layers * (6 * tokens * shape.width**2 + DECOMPOSITION * shape.width**3)
    states = (2 * SITES + 1) * shape.layers
    return Work(
        passes, states=states, logits=6.5, host_operations=2 * fits + spectra, host_bytes=tokens * shape.width * 32
    )


def _overlap(config: Config, analysis: schema.OverlapConfig, tokens: float, adapters: int) -> Work:
    shape = config.model.shape
    tuned = adapters - len(analysis.early) if analysis.methods else 0
    compared = 2 * (1 + max(tuned, 0))  # once for the frame, once for the maps
    decomposed = (4 * shape.mlp_width + 2 * DECOMPOSITION * shape.width) * shape.width**2
    products = 2 * tokens * shape.width * (shape.width + shape.mlp_width)
    row = row_lengths(config).longest
    return Work(
        1.0 + 2 * max(tuned, 0),
        backward=1.0,
        logits=1.5,
        kept_bytes=tokens * shape.layers * kept_inside(config, row),
        host_operations=float(compared * shape.layers * (decomposed + products)),
        host_bytes=float(8 * tokens * shape.layers * (3 * shape.width + shape.mlp_width)),
    )


def _shares(config: Config, analysis: schema.SharesConfig, tokens: float, adapters: int) -> Work:
    return Work(1.0 + adapters, states=4.0 * config.model.shape.layers)


def _cosines(config: Config, analysis: schema.CosinesConfig, tokens: float, adapters: int) -> Work:
    return Work(3.0 * adapters, states=8.0 * config.model.shape.layers)


def _norms(config: Config, analysis: schema.NormsConfig, tokens: float, adapters: int) -> Work:
    shape = config.model.shape
    operations = adapters * shape.layers * DECOMPOSITION * shape.width**3
    return Work(0, logits=0, host_operations=float(operations), host_bytes=24.0 * shape.width**2)


def _continuations(config: Config, analysis: schema.ContinuationsConfig, tokens: float, adapters: int) -> Work:
    layers = config.model.shape.layers
    kinds, fits = _maps(config, analysis, tokens)
    generated = analysis.new_tokens * passes_seconds(config, tokens=analysis.rows)
    return Work(
        3.0 + kinds * (layers + 1) + adapters,
        states=2.0 * layers,
        logits=5.0,
        host_operations=fits,
        host_bytes=tokens * config.model.shape.width * 32,
        seconds=generated,
    )


def _retention(config: Config, analysis: schema.RetentionConfig, tokens: float, adapters: int) -> Work:
    """Other data sets are taken to be as long as the configuration's own."""
    windows = TEXT_TOKENS / analysis.window
    text = (1 + adapters) * windows * passes_seconds(config, tokens=analysis.window)
    a_row = estimate(config, split="test", trained=True).seconds / max(1, rows_of(config, "test"))
    answers = adapters * len(analysis.datasets) * analysis.rows * a_row
    return Work(0, logits=0, seconds=text + answers)


def _latency(config: Config, analysis: schema.LatencyConfig, tokens: float, adapters: int) -> Work:
    a_turn = sum(
        passes_seconds(config, tokens=batch * analysis.prompt)
        + analysis.new_tokens * passes_seconds(config, tokens=batch)
        for batch in analysis.batches
    )
    contestants = 1.5 * len(analysis.methods) + 1  # half of the methods can be folded
    return Work(0, logits=0, seconds=contestants * analysis.turns * (analysis.rounds + 1) * a_turn)


WORKS: dict[type[schema.AnalysisConfig], Callable[..., Work]] = {
    schema.TheoryConfig: _theory,
    schema.OracleConfig: _oracle,
    schema.OverlapConfig: _overlap,
    schema.SharesConfig: _shares,
    schema.CosinesConfig: _cosines,
    schema.NormsConfig: _norms,
    schema.ContinuationsConfig: _continuations,
    schema.RetentionConfig: _retention,
    schema.LatencyConfig: _latency,
}
