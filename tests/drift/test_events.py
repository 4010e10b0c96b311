"""Events as the predictor and KServe's agent send them become rows; nothing else does."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kanary.modelspec import ModelSpec
from serving.drift import events
from serving.drift.events import Corrupt, Reader, Source
from serving.drift.frames import Message, pack, read
from serving.drift.journal import Journal, synced, write_json
from serving.drift.models import Models
from serving.drift.table import EXPECTED, Column, Table, pooled, rare, table_of
from serving.drift.truth import Truth, wilson
from serving.drift.window import Prediction
from serving.predictor.payloads.cloudevents import writer
from serving.predictor.payloads.frames import Exchange
from serving.predictor.payloads.spec import payload_log
from tests.drift.stream import About, headers, request, rows, write_model

ROW = {"price": 1.5, "demand": 2, "transfer": 3, "weather": "clear"}
VALUES = (1.5, 2, 3, "clear")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "market" / "v1"
    write_model(folder, rows(100, seed=0))
    return folder


@pytest.fixture(scope="module")
def spec(model: Path) -> ModelSpec:
    from kanary import modelspec

    return modelspec.verify(model)


@pytest.fixture
def reader(spec: ModelSpec) -> Reader:
    return Reader(spec)


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def test_v1_objects_and_lists_and_v2_tensors_are_the_same_rows(reader: Reader) -> None:
    v1 = reader.rows(request(ROW, dict(reversed(ROW.items()))))
    lists = reader.rows(json.dumps({"instances": [list(VALUES)] * 2}).encode())
    inputs = [
        tensor("weather", "BYTES", ["clear"] * 2),
        tensor("price", "FP64", [1.5, 1.5]),
        tensor("demand", "FP64", [2, 2]),
        tensor("transfer", "INT64", [3, 3]),
    ]
    v2 = reader.rows(json.dumps({"inputs": inputs}).encode())
    assert v1 == lists == v2 == [VALUES] * 2


def test_a_binary_v2_request_is_read_where_the_logger_says_how_long_its_json_is(reader: Reader) -> None:
    raw = {"price": struct.pack("<2d", 1.5, float("nan")), "demand": struct.pack("<2d", 2, 2)}
    raw |= {"transfer": struct.pack("<2q", 3, 3), "weather": b"\5\0\0\0clear" * 2}
    kinds = {"price": "FP64", "demand": "FP64", "transfer": "INT64", "weather": "BYTES"}
    inputs = [
        {"name": name, "datatype": kinds[name], "shape": [2], "parameters": {"binary_data_size": len(data)}}
        for name, data in raw.items()
    ]
    head = json.dumps({"inputs": inputs}).encode()
    told = {b"ce-metadata": json.dumps({"Inference-Header-Content-Length": [str(len(head))]}).encode()}
    found = reader.rows(head + b"".join(raw.values()), events.json_length(told))
    assert found == [VALUES, (None, 2.0, 3, "clear")]


def test_predictions_of_both_protocols_are_read(reader: Reader) -> None:
    v1 = reader.predictions(b'{"predictions": [{"label": "up", "probabilities": {"up": 0.75, "down": 0.25}}]}')
    outputs = [tensor("label", "BYTES", ["up"])]
    outputs += [{"name": "probabilities", "datatype": "FP64", "shape": [1, 2], "data": [0.25, 0.75]}]
    v2 = reader.predictions(json.dumps({"outputs": outputs}).encode())
    assert v1 == v2 == [Prediction("up", (0.25, 0.75))]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body"),
        (b"[1]", "body"),
        (b"\xff\xfe", "body"),
        (b'{"instances": 3}', "protocol"),
        (b'{"instances": []}', "protocol"),
        (b'{"rows": []}', "protocol"),
        (b'{"instances": [[1, 2]]}', "columns"),
        (b'{"instances": [{"price": 1}]}', "columns"),
        (b'{"instances": ["abcd"]}', "columns"),
        (request(ROW | {"price": "1.5"}), "values"),
        (request(ROW | {"price": True}), "values"),
        (request(ROW | {"price": [1]}), "values"),
        (request(ROW | {"weather": 3}), "values"),
        (b'{"inputs": 1}', "protocol"),
        (b'{"inputs": [{"name": "price", "datatype": "FP64", "shape": [-1], "data": []}]}', "protocol"),
        (b'{"inputs": [{"name": "price", "datatype": "FP64", "shape": [1], "data": [1]}]}', "columns"),
    ],
)
def test_what_is_no_request_of_the_model_is_refused_with_its_reason(reader: Reader, body: bytes, reason: str) -> None:
    with pytest.raises(Corrupt) as caught:
        reader.rows(body)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"predictions": [{"label": "left", "probabilities": {"up": 1, "down": 0}}]}', "classes"),
        (b'{"predictions": [{"label": "up", "probabilities": {"up": 1.5, "down": 0}}]}', "values"),
        (b'{"predictions": [{"label": "up", "probabilities": {"up": 1}}]}', "protocol"),
        (b'{"predictions": ["up"]}', "protocol"),
        (b'{"predictions": []}', "protocol"),
    ],
)
def test_what_is_no_response_of_the_model_is_refused(reader: Reader, body: bytes, reason: str) -> None:
    with pytest.raises(Corrupt) as caught:
        reader.predictions(body)
    assert caught.value.reason == reason


def test_what_the_payload_log_writes_is_what_is_read(reader: Reader) -> None:
    told = {
        "url": "http://sink/",
        "inferenceservicename": "market",
        "namespace": "default",
        "revision": "market-predictor-00001",
        "metadataAnnotations": {"model-version": "v1", "model-digest": "sha256:ab"},
    }
    log = payload_log(json.dumps(told), 1.0, 19, {})
    assert log is not None
    made = writer(log, ["price"], [])
    exchange = Exchange("v1", b"the-id", b"application/json", b"{}", request(ROW), b"{}", None, 1.0, 2.0)
    (_, wire), _ = made.events(exchange)
    head, _, body = wire.partition(b"\r\n\r\n")
    found = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
    assert events.source(found) == Source("default", "market", "market-predictor-00001", "v1", "sha256:ab")
    assert events.KINDS[found[b"ce-type"]] == "request"
    assert reader.rows(body, events.json_length(found)) == [VALUES]
    assert events.moment(found[b"ce-time"]) == 1.0


@pytest.mark.parametrize("broken", [{"Ce-Annotations": "[]"}, {"Ce-Annotations": "{"}, {"Ce-Inferenceservicename": ""}])
def test_headers_that_say_nobody_s_name_are_corrupt(broken: dict[str, str]) -> None:
    given = headers(About(), "request", "x") | broken
    with pytest.raises(Corrupt):
        events.source({name.lower().encode(): value.encode() for name, value in given.items()})


def test_a_model_is_found_by_its_digest_else_by_its_version_and_an_altered_one_is_none(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "market" / "v1", rows(50, seed=0))
    write_model(tmp_path / "other" / "v1", rows(50, seed=1), name="other")
    models = Models([tmp_path])

    def of(service: str, version: str, digest: str = "", now: float = 0.0) -> str | None:
        found = models.of(Source("ns", service, "r", version, digest), now)
        return found.spec.name if found else None

    assert of("whatever", "", spec.digest()) == "market"
    assert of("other", "v1") == "other"
    assert of("third", "v1") is None  # two models it could be
    assert of("market", "v2") is None
    write_model(tmp_path / "market" / "v2", rows(50, seed=0), "v2")
    assert of("market", "v2", now=5.0) is None  # it was looked for a moment ago
    assert of("market", "v2", now=11.0) == "market"
    write_model(tmp_path / "market" / ".v3.a1b2", rows(50, seed=0), "v3")
    assert of("market", "v3", now=22.0) is None  # on its way: it is renamed, or deleted, at any moment
    (tmp_path / "other" / "v1" / "reference.parquet").write_bytes(b"other rows")
    assert Models([tmp_path]).of(Source("ns", "other", "r", "v1", ""), 0.0) is None or of("other", "v1") == "other"


def test_missing_values_are_filled_as_in_training_and_unknown_categories_are_one(spec: ModelSpec) -> None:
    columns = {"price": [None, 2.0], "demand": [1.0, 1.0], "transfer": [1, 1], "weather": ["fog", "storm"]}
    table = table_of(spec.features, columns)
    assert table.values[0, 0] == spec.numeric[0].fill
    assert table.values[:, 3].tolist() == [0.0, 3.0]


def test_rare_categories_are_counted_together() -> None:
    columns = (Column("c", 5),)
    reference = Table(columns, np.repeat([0.0, 1, 2, 3, 4], [1, 9, 490, 4000, 5500])[:, None])
    window = Table(columns, np.repeat([0.0, 2, 4], [1, 99, 900])[:, None])
    targets = rare(reference, len(window))
    left, right = pooled(reference, targets), pooled(window, targets)
    kept = np.unique(left.values)
    assert set(np.unique(right.values)) <= set(kept)
    counts = [(left.values == value).mean() * len(window) for value in kept]
    assert min(counts) >= EXPECTED
    assert len(kept) == 3


def test_a_journal_gives_back_every_whole_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "stream")
    for number in (1, 1, 2):
        journal.append(number, b'["request"]')
    journal.close()
    with (tmp_path / "stream" / "window-00000002.jsonl").open("ab") as file:
        file.write(b'["torn')
    again = Journal(tmp_path / "stream")
    assert list(again.windows()) == [(1, [["request"]] * 2), (2, [["request"]])]
    again.append(2, b'["response"]')
    again.drop(1)
    again.close()
    assert list(again.windows()) == [(2, [["request"], ["response"]])]


def test_what_was_written_since_the_last_time_is_synced_the_closed_file_and_the_folder_too(tmp_path: Path) -> None:
    def inodes(found: list[int]) -> set[int]:
        made = {os.fstat(one).st_ino for one in found}
        synced(found)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(found[0])
        return made

    journal = Journal(tmp_path / "stream")
    assert journal.unsynced() == []
    journal.append(1, b"[]")
    journal.append(2, b"[]")
    files = [tmp_path / "stream" / f"window-0000000{number}.jsonl" for number in (1, 2)]
    assert inodes(journal.unsynced()) == {path.stat().st_ino for path in (files[0].parent, *files)}
    assert journal.unsynced() == []
    journal.append(2, b"[]")
    assert inodes(journal.unsynced()) == {files[1].stat().st_ino}
    truth = Truth(tmp_path, ("down", "up"), 2)
    truth.answer("a", [Prediction("up", (0.2, 0.8))])
    assert inodes([one for file in truth.files for one in file.unsynced()]) == {
        (tmp_path / "answers.jsonl").stat().st_ino
    }
    journal.close()
    truth.close()


def test_what_takes_another_file_s_place_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def syncing(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renaming(old: Path, new: Path) -> None:
        done.append("renamed")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", renaming)
    write_json(tmp_path / "state.json", {"a": 1})
    assert done == ["file", "renamed", "folder"]


def test_messages_hold_arrays_and_no_objects() -> None:
    sent = Message({"a": 1}, {"x": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 4))})
    stream = io.BytesIO(b"".join(bytes(part) for part in pack(sent)))
    found = read(stream.read)
    assert found is not None
    assert found.told == {"a": 1}
    assert (found.arrays["x"] == sent.arrays["x"]).all()
    assert found.arrays["none"].shape == (0, 4)
    assert read(stream.read) is None
    with pytest.raises(ValueError, match="object"):
        read(io.BytesIO(b"".join(bytes(part) for part in pack(Message({}, {"o": np.array([None])})))).read)


def test_truth_joins_in_either_order_and_outlasts_a_restart(tmp_path: Path) -> None:
    def truth() -> Truth:
        made = Truth(tmp_path, ("down", "up"), 2)
        made.restore()
        return made

    first, up = truth(), [Prediction("up", (0.2, 0.8))]
    first.answer("a", up)
    assert first.label("a", ["up"])
    assert not first.label("b", ["down"])
    first.answer("b", up)
    first.answer("c", up)
    assert not first.label("d", ["up"])
    with pytest.raises(ValueError, match="2 labels for 1 rows"):
        first.label("c", ["up", "up"])
    first.close()
    second = truth()
    assert [one.right for one in second.baseline] == [True, False]
    assert second.rows == 2
    assert not second.fresh
    assert second.label("c", ["up"])
    second.answer("d", up)
    assert (second.rows, len(second.fresh)) == (4, 2)
    second.close()
    third = truth()
    assert (third.rows, third.answers, third.labels) == (4, {}, {})
    assert third.complete is not None
    assert third.complete.value == 1.0
    third.close()


def test_wilson_s_interval_is_the_published_one() -> None:
    from serving.drift.truth import Outcome

    found = wilson([Outcome(True, 1.0)] * 81 + [Outcome(False, 0.0)] * 182)
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, score method without correction.
    assert found.low == pytest.approx(0.2553, abs=5e-5)
    assert found.high == pytest.approx(0.3662, abs=5e-5)
