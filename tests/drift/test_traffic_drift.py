"""Traffic that drifts, that is nonsense in part, and whose truth is told later."""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kanary.cli import main
from kanary.errors import InputError
from kanary.traffic_rows import Column, read_rows

COLUMNS = (Column("size", "number"), Column("count", "integer"), Column("colour", "string"))
CSV = "size,count,colour,label\n" + "".join(f"{n / 2},{n},red,{'yes' if n % 2 else 'no'}\n" for n in range(20))
SCHEMA = {
    "name": "things",
    "target": "label",
    "fields": [
        {"name": "size", "type": "number"},
        {"name": "count", "type": "integer"},
        {"name": "colour", "type": "string", "constraints": {"enum": ["red", "blue"]}},
        {"name": "label", "type": "string", "constraints": {"enum": ["no", "yes"]}},
    ],
}


class Model(ThreadingHTTPServer):
    """A model server, which refuses nonsense, and a place that takes ground truth."""

    daemon_threads = True
    request_queue_size = 512  # on a busy machine connections wait to be accepted

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: dict[str, dict[str, Any]] = {}
        self.refused = 0
        self.told: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 200
        with self.server.lock:
            if self.path == "/v1/feedback":
                self.server.told += body
            elif body["instances"][0].keys() == {"size", "count", "colour"}:
                self.server.asked[self.headers["Ce-Id"]] = body["instances"][0]
            else:
                self.server.refused += 1
                status = 400
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "data.csv").write_text(CSV)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return str(tmp_path / "data.csv"), str(tmp_path / "schema.json")


def test_a_shift_moves_numbers_by_their_standard_deviation_and_labels_stay_out_of_requests(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(CSV)
    plain = read_rows(path, COLUMNS, target="label")
    moved = read_rows(path, COLUMNS, target="label", shifts={"size": 2.0, "count": -1.0})
    assert plain.labels[:2] == ("no", "yes")
    rows = [[json.loads(body)["instances"][0] for body in given.bodies] for given in (plain, moved)]
    sizes, counts = ([row[name] for row in rows[0]] for name in ("size", "count"))
    assert rows[0][0].keys() == {"size", "count", "colour"}
    assert rows[1][3]["size"] == pytest.approx(sizes[3] + 2 * statistics.pstdev(sizes))
    assert rows[1][3]["count"] == round(counts[3] - statistics.pstdev(counts))
    with pytest.raises(InputError, match="'colour' is no number"):
        read_rows(path, COLUMNS, shifts={"colour": 1.0})


def test_labels_are_told_for_the_events_that_were_asked_and_nonsense_is_no_failure(
    model: Model, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["traffic", "m", "--data", files[0], "--schema", files[1], "--url", model.url, "--rate", "100"]
    words += ["--seconds", "1.5", "--errors", "0.3", "--labels-after", "0.2", "--feedback", f"{model.url}/v1/feedback"]
    assert main([*words, "--drift", "size=3", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["nonsense"] == model.refused > 0
    assert summary["failed"] == 0
    assert summary["labelled"] == len(model.told) == len(model.asked) > 0
    for told in model.told:
        asked = model.asked[told["id"]]
        assert told["label"] == ("yes" if asked["count"] % 2 else "no")
    assert min(row["size"] for row in model.asked.values()) > 8  # three deviations of 2.9


@pytest.mark.parametrize(
    "words",
    [["--drift", "size"], ["--drift", "size=nan"], ["--drift", "=1"], ["--errors", "1.5"], ["--labels-after", "-1"]],
)
def test_flags_that_make_no_sense_are_refused(words: list[str], files: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["traffic", "m", "--data", files[0], "--url", "http://127.0.0.1:9", *words])
    assert caught.value.code == 2


def test_labels_need_a_schema_and_somebody_to_be_told(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["traffic", "m", "--data", files[0], "--url", "http://127.0.0.1:9", "--labels-after", "1"]
    words += ["--home", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("kanary.commands.traffic.model_columns", lambda *_: COLUMNS)
        assert main(words) == 2
    assert "--schema" in capsys.readouterr().err
    assert main([*words, "--schema", files[1]]) == 2
    assert "kanary up --drift" in capsys.readouterr().err
