"""A detector process with a home and releases of its own, and a client that sends it events by the thousand."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
NEEDS_ALIBI = pytest.mark.skipif(
    importlib.util.find_spec("alibi_detect") is None,
    reason="alibi-detect is not installed: pip install 'kanary[drift]'",
)
# A busy machine takes its time to import it.
READY_S = 300.0


@dataclass(frozen=True)
class Detector:
    """A detector that listens on `port`."""

    process: subprocess.Popen[bytes]
    port: int
    home: Path
    log: Path

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
        """Status and body of one request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def post(self, path: str, document: Any) -> Any:
        """The answer's JSON; None for no content."""
        status, body = self.call("POST", path, json.dumps(document).encode())
        assert status in (200, 204), (status, body)
        return json.loads(body) if body else None

    def send(self, events: Iterable[bytes]) -> list[int]:
        """The statuses of events, sent one after the other on one connection, some at a time."""
        statuses: list[int] = []
        with socket.create_connection(("127.0.0.1", self.port), 60) as connection:
            batch: list[bytes] = []
            for event in events:
                batch.append(event)
                if len(batch) == 64:
                    statuses += exchanged(connection, batch)
                    batch = []
            return statuses + (exchanged(connection, batch) if batch else [])

    def streams(self) -> list[dict[str, Any]]:
        """What /v1/drift says."""
        found: list[dict[str, Any]] = json.loads(self.call("GET", "/v1/drift")[1])["streams"]
        return found

    def result(self, window: int, revision: str = "market-predictor-00001") -> dict[str, Any]:
        """The result of a stream once so many windows are checked."""

        def found() -> dict[str, Any] | None:
            for stream in self.streams():
                result = stream["result"]
                if stream["revision"] == revision and result and result["window"] >= window:
                    return dict(result)
            return None

        result = wait_for(found, f"window {window} is checked: {self.log.read_text()[-2000:]}", 300, every=0.1)
        assert result is not None
        return result

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every sample of /metrics by name and sorted labels."""
        text = self.call("GET", "/metrics")[1].decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The only sample that has these labels among its own."""
        found = [
            value
            for (sample, own), value in self.metrics().items()
            if sample == name and labels.items() <= dict(own).items()
        ]
        assert len(found) == 1, (name, labels, found)
        return found[0]


@contextlib.contextmanager
def detecting(home: Path, releases: Path, *options: str, ready: bool = True) -> Iterator[Detector]:
    """A detector that is ready, until the block ends; killed there if it has not ended."""
    command = [sys.executable, "-P", "-m", "serving.drift", "--port", "0", "--home", str(home)]
    command += ["--releases", str(releases), "--coverage", "0", *options]
    home.parent.mkdir(parents=True, exist_ok=True)
    log = home.parent / f"{home.name}.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("ab") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
    assert process.stdout is not None
    with process.stdout:
        first = process.stdout.readline().decode()
        assert first.startswith("listening on "), log.read_text()
        made = Detector(process, int(first.rpartition(":")[2]), home, log)
        try:
            if ready:
                wait_for(lambda: made.call("GET", "/readyz")[0] == 200, "the detector is ready", READY_S, every=0.1)
            yield made
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def exchanged(connection: socket.socket, batch: list[bytes]) -> list[int]:
    """Send requests at once, and read as many answers."""
    connection.sendall(b"".join(batch))
    statuses: list[int] = []
    rest = b""
    while len(statuses) < len(batch):
        data = connection.recv(1 << 16)
        if not data:
            break
        rest += data
        while (end := rest.find(b"\r\n\r\n")) >= 0:
            head = rest[:end].lower()
            at = head.find(b"content-length: ")
            length = int(head[at + 16 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(rest) < end + 4 + length:
                break
            statuses.append(int(head.split()[1]))
            rest = rest[end + 4 + length :]
    return statuses
