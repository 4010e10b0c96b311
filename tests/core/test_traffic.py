from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kanary.cli import main
from kanary.errors import InputError, MissingExtra, Unreachable
from kanary.traffic import Plan, Traffic, address
from kanary.traffic_rows import Column, from_metadata, read_rows
from tests.waiting import wait_for

COLUMNS = (Column("size", "number"), Column("count", "integer"), Column("colour", "string"), Column("old", "boolean"))
CSV = "id,size,count,colour,old,label\n1,1.5,3,red,true,yes\n2,,4,red,false,no\n3,2,5.0,blue,0,no\n4,x,1,red,true,no\n"
SCHEMA = {
    "name": "things",
    "target": "label",
    "fields": [
        {"name": "id", "type": "integer", "role": "id"},
        {"name": "size", "type": "number"},
        {"name": "count", "type": "integer"},
        {"name": "colour", "type": "string", "constraints": {"enum": ["red", "blue"]}},
        {"name": "old", "type": "boolean"},
        {"name": "label", "type": "string", "constraints": {"enum": ["no", "yes"]}},
    ],
}
METADATA = {
    "inputs": [
        {"name": "size", "datatype": "FP64"},
        {"name": "count", "datatype": "INT64"},
        {"name": "colour", "datatype": "BYTES"},
        {"name": "old", "datatype": "BOOL"},
    ]
}


class Model(ThreadingHTTPServer):
    """A model server behind a gateway: every fifth answer is the canary's, which fails where it is told to."""

    daemon_threads = True
    request_queue_size = 512  # on a busy machine connections wait to be accepted

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[object] = []
        self.hosts: set[str] = set()
        self.fails = False
        self.hold = threading.Event()
        self.hold.set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v2/models/m" else 404, METADATA)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.hold.wait(20)
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.hosts.add(self.headers["Host"])
            canary = len(self.server.bodies) % 5 == 0
        assert self.path == "/v1/models/m:predict"
        failed = canary and self.server.fails
        answer = {"error": "out of order"} if failed else {"predictions": [1]}
        self._answer(500 if failed else 200, answer, "m-2" if canary else "m-1")

    def _answer(self, status: int, document: object, revision: str = "") -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        if revision:
            self.send_header("Kanary-Revision", revision)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    with serving() as server:
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def plan(model: Model, **more: float) -> Plan:
    return Plan(f"{model.url}/v1/models/m:predict", [b'{"instances":[{"a":1}]}'], **({"rate": 400.0} | more))  # type: ignore[arg-type]


# ---- rows


def test_rows_hold_the_features_only_each_of_its_type(data: Path) -> None:
    rows = read_rows(data, COLUMNS)
    found = [json.loads(body)["instances"] for body in rows.bodies]
    assert found == [
        [{"size": 1.5, "count": 3, "colour": "red", "old": True}],
        [{"size": 2.0, "count": 5, "colour": "blue", "old": False}],
    ]
    assert rows.left_out == 2, "the missing size and the one that is no number"


def test_what_counts_as_missing_is_the_schemas_to_say(data: Path) -> None:
    assert read_rows(data, COLUMNS, ["", "red"]).left_out == 3


def test_parquet_rows_are_the_same(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"size": [1.5, None, float("nan")], "count": [3, 4, 5], "colour": ["red"] * 3, "old": [True] * 3})
    parquet.write_table(table, tmp_path / "d.parquet")
    rows = read_rows(tmp_path / "d.parquet", COLUMNS)
    assert [json.loads(body)["instances"][0]["size"] for body in rows.bodies] == [1.5]
    assert rows.left_out == 2


def test_parquet_without_pyarrow_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra) as error:
        read_rows(tmp_path / "d.parquet", COLUMNS)
    assert "pip install" in error.value.hint


def test_a_column_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="lacks the model's columns weight"):
        read_rows(data, [Column("weight", "number")])


def test_a_file_without_a_usable_row_is_told(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("size\nNA\n", encoding="utf-8")
    with pytest.raises(InputError, match="no row with all features"):
        read_rows(path, [Column("size", "number")])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_rows(tmp_path / "none.csv", COLUMNS)


def test_a_model_says_which_columns_it_takes() -> None:
    assert from_metadata(METADATA) == COLUMNS
    with pytest.raises(InputError, match="does not say"):
        from_metadata({})


# ---- requests


def test_requests_are_counted_by_status_and_revision(model: Model) -> None:
    summary = Traffic(plan(model, seconds=0.5)).start().wait()
    assert summary.requests == len(model.bodies) > 20
    assert summary.by_status == {"200": summary.requests}
    assert summary.by_revision["m-2"] == summary.requests // 5
    assert summary.share("m-2") == summary.by_revision["m-2"] / summary.requests
    assert summary.failed == 0
    assert summary.p50_ms is not None
    assert summary.p99_ms is not None
    assert 0 < summary.p50_ms <= summary.p99_ms


def test_failures_are_told_with_their_revision_and_reason(model: Model) -> None:
    model.fails = True
    summary = Traffic(plan(model, seconds=0.3)).start().wait()
    assert summary.failed == summary.by_status["500"] == summary.failed_by_revision["m-2"] > 0
    assert summary.reasons == {"500: out of order": summary.failed}


def test_no_answer_is_a_failure_too() -> None:
    with serving() as gone:
        made = plan(gone, seconds=0.1)
    summary = Traffic(made).start().wait()
    assert summary.failed == summary.requests == summary.by_status["none"] > 0


def test_stopping_waits_for_the_answers_under_way(model: Model) -> None:
    model.hold.clear()
    with Traffic(plan(model)) as running:
        wait_for(lambda: running.summary().seconds > 0.1, "some requests are under way")
        threading.Timer(0.1, model.hold.set).start()
        summary = running.stop()
    assert not running.running
    assert summary.requests == len(model.bodies)
    assert summary.failed == 0


def test_no_more_than_so_many_are_under_way(model: Model) -> None:
    model.hold.clear()
    running = Traffic(plan(model, concurrency=3)).start()
    threading.Timer(0.3, model.hold.set).start()
    summary = running.stop() if wait_for(lambda: running.summary().late, "requests are held back") else None
    assert summary is not None
    assert summary.late > 0


def test_the_same_seed_gives_the_same_gaps(model: Model) -> None:
    counts = {Traffic(plan(model, seconds=0.2, poisson=False, rate=50.0)).start().wait().requests for _ in range(2)}
    assert all(8 <= count <= 11 for count in counts), counts


def test_a_name_below_localhost_needs_no_name_server(model: Model) -> None:
    port = model.server_address[1]
    made = Plan(f"http://m.default.localhost:{port}/v1/models/m:predict", [b"{}"], rate=100.0, seconds=0.1)
    assert Traffic(made).start().wait().failed == 0
    assert model.hosts == {f"m.default.localhost:{port}"}
    assert address("https://m.example.com/x") == ("https://m.example.com/x", {})


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_kept_is_refused(model: Model, rate: float) -> None:
    with pytest.raises(InputError, match="cannot be kept"):
        Traffic(plan(model, rate=rate))


# ---- the verb


@pytest.mark.parametrize("with_schema", [True, False])
def test_the_verb_sends_rows_of_the_file(
    model: Model, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, with_schema: bool
) -> None:
    monkeypatch.chdir(data.parent)
    schema = data.parent / "schema.json"
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    options = ["--schema", str(schema)] if with_schema else []
    arguments = ["traffic", "m", "--data", str(data), "--url", model.url, "--rate", "100", "--seconds", "0.2", "--json"]
    assert main([*arguments, *options]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["requests"] == len(model.bodies) > 0
    assert model.bodies[0] == {"instances": [{"size": 1.5, "count": 3, "colour": "red", "old": True}]}
    assert "2 rows have a missing feature" in said.err


def test_the_verb_fails_where_a_request_failed(model: Model, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.fails = True
    arguments = ["traffic", "m", "--data", str(data), "--url", model.url, "--rate", "200", "--seconds", "0.2"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "reason     " in out
    assert "500: out of order" in out


def test_a_model_that_does_not_answer_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as gone:
        url = gone.url
    assert main(["traffic", "m", "--data", str(data), "--url", url, "--seconds", "0.1"]) == Unreachable.exit_code
    assert f"{url}/v2/models/m cannot be reached" in capsys.readouterr().err
