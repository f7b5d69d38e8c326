"""Results in other people's formats: Every Eval Ever (schema 0.3) and the hub's `.eval_results`.

Both are made from the frame of a sweep (`report.frame.cells`): a document a model and method, a result a data set.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd

from actshift.report import names

SCHEMA = "0.3.0"
ORGANIZATION = "actshift"
LEVEL = 0.95
HUB_VALUE = "accuracy"


@dataclass(frozen=True)
class Places:
    """Where models and data sets stand on the hub, by our names; None for what is not there."""

    models: Mapping[str, str | None]
    datasets: Mapping[str, str | None]
    created: Mapping[str, str]
    """When each run (by identity) was scored, ISO 8601."""


def every_eval_ever(cells: pd.DataFrame, places: Places) -> dict[str, str]:
    """Files of Every Eval Ever by path (`DEVELOPER/MODEL/UUID.json`), of the cells whose runs are all finished.

    A score is the mean accuracy (percent) over seeds with its t interval; single runs have none. Values that the schema
    has no place for (method, rate, seeds, identities, protocol) stand among the details. The same cells are the same
    files: the UUID follows from the identities of the runs.
    """
    files = {}
    for (model, method), group in cells[cells["status"].eq("done")].groupby(["model", "method"], sort=False):
        document = _document(str(model), str(method), group, places)
        developer, _, name = document["model_info"]["id"].partition("/")
        unique = _uuid4(" ".join(group["identities"]))
        files[f"{developer}/{name}/{unique}.json"] = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return files


def _document(model: str, method: str, group: pd.DataFrame, places: Places) -> dict[str, Any]:
    base = places.models.get(model) or f"{ORGANIZATION}/{model}"
    identities = " ".join(group["identities"]).split()
    last = max(places.created[name] for name in identities)
    row = group.iloc[0]
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{ORGANIZATION}/{base.replace('/', '_')}--{method}/{_epoch(last)}",
        "evaluation_timestamp": last,
        "retrieved_timestamp": _epoch(last),
        "source_metadata": {
            "source_name": f"{ORGANIZATION} results",
            "source_type": "evaluation_run",
            "source_organization_name": ORGANIZATION,
            "evaluator_relationship": "third_party",
        },
        "eval_library": {"name": ORGANIZATION, "version": version("actshift")},
        "model_info": {
            "name": f"{names.model(model)}, {names.method(method)}",
            "id": f"{base}--{method}",
            "developer": base.partition("/")[0],
            "inference_engine": {"name": "transformers", "version": version("transformers")},
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "open_weights",
                "base_model": base,
                "method": method,
                "trained_parameters": str(row["trainable_parameters"]),
                "trained_share_percent": f"{row['params_pct']:.6g}",
                "scale": str(row["scale"]),
            },
        },
        "evaluation_results": [_result(each, places) for each in group.to_dict("records")],
    }


def _result(cell: Mapping[Any, Any], places: Places) -> dict[str, Any]:
    dataset = str(cell["dataset"])
    repository = places.datasets.get(dataset)
    data: dict[str, Any] = {"dataset_name": names.dataset(dataset), "source_type": "other"}
    if repository and cell["source"] != "procedural":
        data |= {"source_type": "hf_dataset", "hf_repo": repository, "hf_split": "test"}
    data["additional_details"] = {"rows_from": str(cell["source"]), "protocol": str(cell["protocol"])}
    runs = cell["identities"].split()
    details: dict[str, Any] = {"score": cell["mean"], "details": _details(cell)}
    if not pd.isna(cell["ci_low"]):
        interval = {"lower": cell["ci_low"], "upper": cell["ci_high"], "confidence_level": LEVEL}
        details["uncertainty"] = {
            "confidence_interval": interval | {"method": "t interval of the mean over seeds"},
            "num_samples": len(runs),
        }
    return {
        "evaluation_result_id": f"{dataset}/{cell['protocol']}/{_uuid4(cell['identities'])}",
        "evaluation_name": dataset,
        "source_data": data,
        "evaluation_timestamp": max(places.created[name] for name in runs),
        "metric_config": {
            "evaluation_description": f"accuracy on the test split of protocol {cell['protocol']}, mean over seeds",
            "metric_id": "accuracy",
            "metric_name": "Accuracy",
            "metric_kind": "accuracy",
            "metric_unit": "percent",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 100.0,
        },
        "score_details": details,
    }


def _details(cell: Mapping[Any, Any]) -> dict[str, str]:
    details = {
        "seeds": " ".join(map(str, cell["seeds"])),
        "accuracies": " ".join(f"{value:.6g}" for value in cell["values"]),
        "learning_rate": f"{cell['lr']:g}",
        "variant": str(cell["variant"]),
        "standard_deviation_over_seeds": "" if pd.isna(cell["std"]) else f"{cell['std']:.6g}",
        "runs": str(cell["identities"]),
    }
    return {name: text for name, text in details.items() if text}


def eval_results(cells: pd.DataFrame, places: Places) -> dict[str, str]:
    """Files of the hub's format by path (`MODEL--METHOD/.eval_results/DATASET.yaml`), of finished cells on real rows.

    What a model repository of an adapted model would hold: the value is the mean accuracy (percent) over seeds, the
    notes say how it was made. Data sets that the hub does not have, and procedural rows, are left out.
    """
    return {path: _yaml(entry) for path, entry in _entries(cells, places)}


def _entries(cells: pd.DataFrame, places: Places) -> Iterator[tuple[str, dict[str, Any]]]:
    for cell in cells[cells["status"].eq("done")].to_dict("records"):
        repository = places.datasets.get(str(cell["dataset"]))
        if repository is None or cell["source"] == "procedural":
            continue
        runs = cell["identities"].split()
        notes = f"{names.method(cell['method'])}, protocol {cell['protocol']}, test split, mean over {len(runs)} seeds"
        entry = {
            "dataset_id": repository,
            "task_id": HUB_VALUE,
            "value": round(cell["mean"], 4),
            "date": max(places.created[name] for name in runs)[:10],
            "notes": notes,
        }
        yield f"{cell['model']}--{cell['method']}/.eval_results/{cell['dataset']}.yaml", entry


def _yaml(entry: Mapping[str, Any]) -> str:
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    return yaml.safe_dump(eval_result_entries_to_yaml([EvalResultEntry(**entry)]), sort_keys=False)


def _uuid4(text: str) -> str:
    """A UUID of version 4 that follows from a text."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, text)
    return str(uuid.UUID(bytes=name.bytes, version=4))


def _epoch(moment: str) -> str:
    from datetime import datetime

    return str(int(datetime.fromisoformat(moment).timestamp()))
