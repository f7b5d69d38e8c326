"""Results in other formats, held against their validators where these are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from synthetic_sweep import COUNTS, finished, planned

from actshift.cli import main
from actshift.errors import ActshiftError
from actshift.report import frame, interchange

RESULTS = Path(__file__).parents[2] / "results"
WHEN = "2026-11-26T08:06:09+00:00"


def exported(**changes: Any) -> tuple[pd.DataFrame, interchange.Places]:
    manifest, selection = planned(models=["llama3.2-1b"], **changes)
    records = finished(manifest, COUNTS)
    places = interchange.Places(
        models={"llama3.2-1b": "meta-llama/Llama-3.2-1B"},
        datasets={"boolq": "google/boolq", "listops": None},
        created={record.identity: WHEN for record in records},
    )
    return frame.cells(manifest, records, selection), places


def documents() -> dict[str, dict[str, Any]]:
    return {path: json.loads(text) for path, text in interchange.every_eval_ever(*exported()).items()}


def test_a_document_a_method_and_a_result_a_finished_cell() -> None:
    cells, _ = exported()
    found = {path.split("/")[1]: document for path, document in documents().items()}
    assert set(found) == {f"Llama-3.2-1B--{method}" for method in ("sft", "lora_r8", "post_block")}
    lora = found["Llama-3.2-1B--lora_r8"]["evaluation_results"]
    assert [each["evaluation_name"] for each in lora] == ["boolq"], "listops is not finished"
    (ours,) = [
        each for each in found["Llama-3.2-1B--post_block"]["evaluation_results"] if each["evaluation_name"] == "boolq"
    ]
    row = cells[cells["method"].eq("post_block") & cells["dataset"].eq("boolq")].iloc[0]
    assert ours["score_details"]["score"] == pytest.approx(86.3) == row["mean"]
    interval = ours["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == (row["ci_low"], row["ci_high"])
    assert ours["score_details"]["details"]["runs"] == row["identities"]
    assert ours["source_data"]["hf_repo"] == "google/boolq"
    (sft,) = [each for each in found["Llama-3.2-1B--sft"]["evaluation_results"] if each["evaluation_name"] == "boolq"]
    assert "uncertainty" not in sft["score_details"], "one run has no interval"


def test_files_are_named_for_the_runs_and_the_same_twice() -> None:
    first, again = (interchange.every_eval_ever(*exported()) for _ in range(2))
    assert first == again and len(first) == 3
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert all(re.fullmatch(rf"meta-llama/[^/]+/{uuid4}\.json", path) for path in first)


def test_the_schema_takes_every_document() -> None:
    """With jsonschema, and the schema's file in ACTSHIFT_EEE_SCHEMA (every_eval_ever/schemas/eval.schema.json)."""
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    path = os.environ.get("ACTSHIFT_EEE_SCHEMA")
    if not path:
        pytest.skip("needs the schema of Every Eval Ever 0.3 in ACTSHIFT_EEE_SCHEMA")
    schema = json.loads(Path(path).read_text(encoding="utf-8"))
    assert schema["version"] == interchange.SCHEMA
    check = jsonschema.Draft7Validator(schema)
    for document in documents().values():
        assert list(check.iter_errors(document)) == []
        del document["eval_library"]
        assert list(check.iter_errors(document)) != []


def test_the_hub_reads_its_entries() -> None:
    files = interchange.eval_results(*exported())
    assert set(files) == {f"llama3.2-1b--{name}/.eval_results/boolq.yaml" for name in ("sft", "lora_r8", "post_block")}
    (entry,) = parse_eval_result_entries(yaml.safe_load(files["llama3.2-1b--post_block/.eval_results/boolq.yaml"]))
    assert (entry.dataset_id, entry.value, entry.date) == ("google/boolq", 86.3, "2026-11-26")
    assert entry.notes == "Ours r=8, protocol paper, test split, mean over 5 seeds"
    procedural = interchange.eval_results(*exported(overrides=["data.source=procedural"]))
    assert procedural == {}, "procedural rows are no data set of the hub"


def test_the_command_writes_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("manifests", "records", "selected"):
        shutil.copytree(RESULTS / folder, tmp_path / folder)
    assert main(["export", "small1", f"results={tmp_path}"]) == 0
    written = sorted((tmp_path / "export/small1").rglob("*.json"))
    assert len(written) == 4 and not list((tmp_path / "export/small1").rglob("*.yaml"))
    scores = {
        each["evaluation_name"]: each["score_details"]["score"]
        for path in written
        if "--sft" in str(path)
        for each in json.loads(path.read_text(encoding="utf-8"))["evaluation_results"]
    }
    assert scores == {"boolq": 90.0, "gsm8k": 99.5, "listops": 99.5}
    shutil.rmtree(tmp_path / "records")
    assert main(["export", "small1", f"results={tmp_path}"]) == 2
    assert "no cell of 'small1' is finished" in capsys.readouterr().err


def test_a_table_is_a_frame_in_one_line() -> None:
    table = frame.table("small1", results=RESULTS)
    sft = table[table["method"].eq("sft") & table["dataset"].eq("boolq")]
    assert sft["mean"].tolist() == [90.0] and {"p_holm", "ci_low"} <= set(table.columns)
    with pytest.raises(ActshiftError, match="plan the sweep first"):
        frame.table("small9", results=RESULTS)
