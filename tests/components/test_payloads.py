"""Logged requests become rows, however the log wrote them down; what is none of them is counted, never guessed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.drift.tables import pair
from components.payloads.log import read_log
from kanary.errors import DataError, InputError

TYPE = "org.kubeflow.serving.inference."
ROW = {"price": 1.5, "demand": 2, "storm": False, "weather": "clear"}


def event(body: Any, kind: str = "request", service: str = "market", **more: Any) -> dict[str, Any]:
    """A CloudEvent in the structured mode."""
    given = {"specversion": "1.0", "id": "1", "source": "pod", "type": TYPE + kind, "inferenceservicename": service}
    return given | {"namespace": "default"} | (more or {"data": body})


def stored(body: Any, kind: str = "request") -> dict[str, Any]:
    """What KServe's agent writes of it."""
    return {
        "Url": {"Scheme": "s3", "Host": "logs"},
        "Bytes": base64.b64encode(json.dumps(body).encode()).decode(),
        "ContentType": "application/json",
        "ReqType": TYPE + kind,
        "Id": "0123",
        "InferenceService": "market",
        "Namespace": "default",
        "Component": "predictor",
        "Metadata": {},
    }


def v2(*rows: dict[str, Any]) -> dict[str, Any]:
    kinds = {"price": "FP64", "demand": "INT64", "storm": "BOOL", "weather": "BYTES"}
    return {
        "inputs": [
            {"name": name, "datatype": kind, "shape": [len(rows)], "data": [row[name] for row in rows]}
            for name, kind in kinds.items()
        ]
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_a_folder_of_what_the_agent_stores_is_read_and_its_responses_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "default" / "market" / "predictor"
    folder.mkdir(parents=True)
    (folder / "a-request.json").write_text(json.dumps([stored({"instances": [ROW, ROW]})]))
    (folder / "a-response.json").write_text(json.dumps([stored({"predictions": []}, "response")]))
    (folder / "b-request.json").write_text(json.dumps([stored(v2(ROW)), stored({"instances": [ROW | {"price": 2.5}]})]))
    (folder / "notes.txt").write_text("none of it")
    found = read_log(str(tmp_path / "logs"), tmp_path / "rows.parquet")
    assert (found.rows, found.requests, found.refused) == (4, 3, 0)
    assert [row["price"] for row in rows_of(tmp_path / "rows.parquet")] == [1.5, 1.5, 1.5, 2.5]
    assert rows_of(tmp_path / "rows.parquet")[2] == ROW


def test_cloudevents_a_line_each_are_those_of_the_service_asked_for(tmp_path: Path) -> None:
    body = {"instances": [ROW]}
    coded = base64.b64encode(json.dumps(body).encode()).decode()
    lines = [
        event(body),
        event(body, data_base64=coded),
        event(None, data=json.dumps(body)),
        event(body, service="other"),
        event({"predictions": []}, "response"),
    ]
    log = tmp_path / "events.ndjson"
    log.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    assert read_log(str(log), tmp_path / "rows.parquet", "market", "default").rows == 3
    assert read_log(f"file://{log}", tmp_path / "rows.parquet").rows == 4
    with pytest.raises(DataError, match="holds no request that can be read"):
        read_log(str(log), tmp_path / "rows.parquet", "market", "elsewhere")


def test_what_cannot_be_read_is_counted_with_its_commonest_reason(tmp_path: Path) -> None:
    lines = [
        json.dumps({"instances": [ROW]}),
        "{no json",
        json.dumps({"instances": [{"price": 1.0}]}),
        json.dumps({"instances": [{"price": 2.0}]}),
        json.dumps({"instances": [list(ROW.values())]}),
        json.dumps({"inputs": [{"name": "price", "datatype": "FP64", "shape": [2, 3], "data": [0] * 6}]}),
        json.dumps({"inputs": [{"name": "price", "datatype": "FP64", "shape": [1]}]}),
        json.dumps({"instances": []}),
        json.dumps({"rows": 3}),
        json.dumps(stored({}) | {"Bytes": "?"}),
        json.dumps([1]),
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines))
    found = read_log(str(log), tmp_path / "rows.parquet")
    assert (found.rows, found.refused, found.why) == (1, 10, "(it has the columns price)")


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"instances": [ROW, {"price": 1.0}]}),
        json.dumps({"inputs": [{"name": ["price"], "datatype": "FP64", "shape": [1], "data": [0]}]}),
        "[" * 100_000,
    ],
    ids=["rows of different columns", "a name that is a list", "deep"],
)
def test_a_strange_request_costs_no_other_one(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(f"{line}\n{json.dumps({'instances': [ROW]})}\n")
    found = read_log(str(log), tmp_path / "rows.parquet")
    assert (found.rows, found.refused) == (1, 1)


def test_a_number_that_no_column_can_hold_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    log.write_text(json.dumps({"instances": [{"price": 10**30}]}))
    with pytest.raises(DataError, match="'price' holds values"):
        read_log(str(log), tmp_path / "rows.parquet")


def test_lists_without_names_are_read_by_the_columns_given(tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    log.write_text(json.dumps({"instances": [list(ROW.values()), [1, 2]]}))
    with pytest.raises(DataError, match="holds no request") as refused:
        read_log(str(log), tmp_path / "rows.parquet", columns=list(ROW))
    assert "not 4 values" in refused.value.hint
    log.write_text(json.dumps({"instances": [list(ROW.values())]}))
    read_log(str(log), tmp_path / "rows.parquet", columns=list(ROW))
    assert rows_of(tmp_path / "rows.parquet") == [ROW]


def test_columns_of_several_kinds_folders_of_nothing_and_places_that_are_none_are_refused(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log.json"
    log.parent.mkdir()
    with pytest.raises(InputError, match="no file that ends with"):
        read_log(str(log.parent), tmp_path / "rows.parquet")
    log.write_text(json.dumps([{"instances": [{"price": 1.0}, {"price": "dear"}]}]))
    with pytest.raises(DataError, match="'price' holds values of several kinds"):
        read_log(str(log), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="there is no file"):
        read_log(str(tmp_path / "nowhere"), tmp_path / "rows.parquet")


def test_drift_compares_a_log_with_what_a_model_was_trained_on(tmp_path: Path) -> None:
    import pyarrow as pa

    before = [ROW | {"price": number / 3, "class": "up"} for number in range(60)]
    pq.write_table(pa.Table.from_pylist(before), tmp_path / "reference.parquet")
    # Whole numbers look like integers in JSON; a sensitive column comes as null.
    asked = [ROW | {"price": number, "weather": None} for number in range(40)]
    (tmp_path / "log.json").write_text(json.dumps({"instances": asked}))
    read_log(str(tmp_path / "log.json"), tmp_path / "current.parquet")
    found = pair(tmp_path / "reference.parquet", tmp_path / "current.parquet")
    assert [feature.name for feature in found.features] == ["price", "demand", "storm"]
    assert {name for name, _ in found.left_out} == {"weather", "class"}
