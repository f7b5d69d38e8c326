"""How near the limit: operations that training and evaluation need, against the rate of the machine's matrix product.

Needed are the products of real tokens: 2 a weight and token forward, as many back to the activations, none for the
weights of a frozen base, none back through the layers below the lowest adapter, the head where a token is predicted,
causal attention over half the square. An adapter's own products are left out: they are under 2% of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actshift.estimates.memory import layer_weights
from actshift.models.loading import PRECISIONS
from actshift.schema.config import ShapeConfig
from bench.case import Case
from bench.contestants import Actshift
from bench.measure import matmul_rate, spread, timed
from bench.parts import Options

DATA_SHEETS = {
    "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
    "H100": {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12},
    "H200": {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12},
}
"""Operations a second of NVIDIA's cards (SXM, dense), by a part of the device's name."""


def training_operations(case: Case) -> float:
    """Of one epoch over the case's rows, steering behind every block."""
    shape = case.config.model.shape
    rows = [(len(row.ids), row.prompt_length) for row in case.rows if len(row.ids) > row.prompt_length]
    layers = sum(_layers(shape, length) for length, _ in rows)
    head = sum((length - prompt) * _head(shape) for length, prompt in rows)
    return layers * (2 - 1 / shape.layers) + 2 * head


def evaluation_operations(case: Case, new_tokens: Sequence[int]) -> float:
    """Of reading the prompts and predicting so many new tokens a row."""
    shape = case.config.model.shape
    total = 0.0
    for row, new in zip(case.scored, new_tokens, strict=True):
        total += _layers(shape, row.prompt_length) + new * _head(shape)
        total += max(0, new - 1) * (2 * layer_weights(shape) + 2 * _attention(shape, row.prompt_length))
    return total


def _layers(shape: ShapeConfig, length: int) -> float:
    return length * (2 * layer_weights(shape) + _attention(shape, length))


def _attention(shape: ShapeConfig, length: int) -> float:
    return float(2 * shape.layers * shape.heads * shape.head_size * length)


def _head(shape: ShapeConfig) -> float:
    return float(2 * shape.width * shape.vocabulary)


def _model_flops_utilization(case: Case, rates: Sequence[float]) -> dict[str, Any]:
    """MFU in training: the needed operations a second over the data sheet's; nothing for a device without one."""
    sheets = [sheet for card, sheet in DATA_SHEETS.items() if card in case.base.device_name]
    if not sheets:
        return {}
    best = sheets[0][case.config.training.precision]
    return {"mfu": spread([rate / best for rate in rates])}


def rate(options: Options, model: str, dataset: str) -> dict[str, Any]:
    """Shares of the matrix product's rate that training and evaluation reach, each beside a measurement of it."""
    case = options.case(model, dataset, "steering")
    dtype = PRECISIONS[case.config.training.precision]
    products, training, evaluation = [], [], []
    for _ in range(options.repeats):
        product = matmul_rate(device=case.device, dtype=dtype)
        ours = Actshift(case)
        seconds, _ = timed(ours.train, device=case.device)
        training.append(training_operations(case) / seconds / product)
        seconds, outputs = timed(lambda ours=ours: ours.evaluate(stop=False), device=case.device)  # type: ignore[misc]
        evaluation.append(evaluation_operations(case, case.new_tokens(outputs)) / seconds / product)
        ours.close()
        products.append(product)
    return {
        **case.facts(),
        "matmul_operations_per_second": spread(products),
        **_model_flops_utilization(case, [share * rate for share, rate in zip(training, products, strict=True)]),
        "training_share": spread(training),
        "evaluation_share": spread(evaluation),
    }
