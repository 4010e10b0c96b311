"""A small model with every kind of feature, a predictor process around it, and a client that keeps its connection."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from prometheus_client.parser import text_string_to_metric_families

from kanary.modelspec import (
    Architecture,
    CategoricalFeature,
    Feature,
    Lineage,
    ModelSpec,
    NumericFeature,
    Training,
)
from serving.model import store
from serving.model.network import build
from tests.serving.forked import PARENT, Forked
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
MIXED: tuple[Feature, ...] = (
    NumericFeature("height", "number", mean=1.0, std=2.0, fill=0.5),
    NumericFeature("leaves", "integer", mean=10.0, std=4.0, fill=9.0),
    CategoricalFeature("colour", "string", ("red", "green")),
    CategoricalFeature("evergreen", "boolean", ("false", "true")),
)
NUMERIC: tuple[Feature, ...] = MIXED[:2]
ROWS: list[dict[str, Any]] = [
    {"height": 1.5, "leaves": 3, "colour": "red", "evergreen": True},
    {"height": -2, "leaves": 12.0, "colour": "green", "evergreen": False},
    {"height": 40.25, "leaves": 9, "colour": "red", "evergreen": True},
]
V1_GOOD: dict[str, Any] = {"instances": ROWS}
V2_GOOD: dict[str, Any] = {
    "inputs": [
        {"name": "height", "datatype": "FP64", "shape": [3], "data": [1.5, -2, 40.25]},
        {"name": "leaves", "datatype": "INT64", "shape": [3, 1], "data": [3, 12, 9]},
        {"name": "colour", "datatype": "BYTES", "shape": [3], "data": ["red", "green", "red"]},
        {"name": "evergreen", "datatype": "BOOL", "shape": [3], "data": [True, False, True]},
    ]
}


def write_model(directory: Path, features: tuple[Feature, ...] = MIXED, seed: int = 0, version: str = "") -> ModelSpec:
    """A model of those features with random weights, and reference rows with missing values."""
    categorical = sum(isinstance(feature, CategoricalFeature) for feature in features)
    draft = ModelSpec(
        format="kanary/2",
        name="plants",
        version=version,
        target="kind",
        target_type="string",
        classes=("moss", "fern", "palm"),
        features=features,
        sensitive=(),
        architecture=Architecture("mlp", (8,), 0.1, (2,) * categorical),
        lineage=Lineage("0" * 64, "1" * 64, 4, 0, "0.1.0", "2"),
        training=Training(1, 1, 4, 0.001, 1, 0.5, False, "cpu"),
        files={},
    )
    torch.manual_seed(seed)
    missing: dict[str, Any] = dict.fromkeys(ROWS[0])
    rows = pa.Table.from_pylist([row | {"kind": "moss"} for row in [{**ROWS[0], "height": 0.5}, missing]])
    return store.save(directory, draft, build(draft).state_dict(), rows)


@dataclass(frozen=True)
class Server:
    """A predictor process that answers on `port`; `log` holds what it has written."""

    process: subprocess.Popen[bytes] | Forked
    port: int
    log: Path

    def connection(self) -> Connection:
        """A connection of its own."""
        return Connection(self.port)

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a GET."""
        with self.connection() as connection:
            status, body, _ = connection.exchange("GET", path)
            return status, body.decode()


class Connection:
    """One keep-alive connection: what would need another one raises."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._http.connect()
        self._http.auto_open = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def exchange(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers (lower case). A body that is no bytes is sent as JSON, an iterator in chunks."""
        sent = {"content-type": "application/json"} | (headers or {})
        if body is not None and not isinstance(body, bytes | Iterator):
            body = json.dumps(body).encode()
        self._http.request(method, path, body, sent, encode_chunked=isinstance(body, Iterator))
        answer = self._http.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}


@contextlib.contextmanager
def serving(model: Path, log: Path, *options: str, forked: bool = False) -> Iterator[Server]:
    """A predictor around the model folder, on a free port, ended with the block; `forked` from a warm parent or not."""
    arguments = ["--model_dir", str(model), "--http_port", "0", *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("HOST", "KANARY_HOST")}
    environment |= {"PYTHONPATH": str(ROOT)}
    process: subprocess.Popen[bytes] | Forked
    if forked:
        process = PARENT.run(arguments, log.parent, log, environment)
    else:
        command = [sys.executable, "-P", "-m", "serving.predictor", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent, env=environment)
    try:
        yield Server(process, listening(log, process), log)
    finally:
        process.kill()
        process.wait()


def listening(log: Path, process: subprocess.Popen[bytes] | Forked | None = None) -> int:
    """The port that the predictor says it listens on, once it does."""

    def port() -> int | None:
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the predictor ended ({process.poll()}): {text}")
        found = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        return int(found[1]) if found else None

    return int(wait_for(port, f"the predictor listens ({log})", deadline=120) or 0)


def grpc_listening(log: Path) -> int:
    """The port that the predictor says it answers gRPC on; it must have said where it listens."""
    return int(re.findall(r"grpc://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))[-1])


def lines(log: Path) -> Sequence[str]:
    """What the predictor has written."""
    return log.read_text(encoding="utf-8").splitlines()


def samples(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Our series on /metrics, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(server.get("/metrics")[1])
        for sample in family.samples
        if sample.name.startswith("kanary_")
    }
