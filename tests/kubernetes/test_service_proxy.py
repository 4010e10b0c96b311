"""The service proxy: to the parts that endpoints.json names, without the caller's credentials."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.kubernetes.server import Server

PROXY = "/api/v1/namespaces/kubeflow/services/{}/proxy/{}"


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        asked = {"path": self.path, "method": self.command, "body": self.rfile.read(length).decode()}
        content = json.dumps(asked | {"headers": {key.lower(): value for key, value in self.headers.items()}}).encode()
        self.send_response(418)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def backend(kube: Server) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    endpoints = {"kfp": {"url": url}, "prometheus": {"url": "http://127.0.0.1:9"}, "pid": 1}
    (kube.home / "endpoints.json").write_text(json.dumps(endpoints), encoding="utf-8")
    yield url
    server.shutdown()
    thread.join()
    server.server_close()
    (kube.home / "endpoints.json").unlink()


@pytest.mark.parametrize("service", ["ml-pipeline:8888", "ml-pipeline", "http:ml-pipeline:8888", "kfp"])
def test_a_service_is_reached_under_its_name(service: str, backend: str, kube: Server) -> None:
    with kube.client() as client:
        answer = client.post(PROXY.format(service, "apis/v2beta1/runs?page_size=3"), content=b"hello")
    assert answer.status_code == 418
    asked = answer.json()
    assert (asked["path"], asked["method"], asked["body"]) == ("/apis/v2beta1/runs?page_size=3", "POST", "hello")
    assert "authorization" not in asked["headers"]


def test_nothing_is_asked_for_that_the_caller_did_not_ask_for(backend: str, kube: Server) -> None:
    with kube.client() as client:
        for name in ("accept-encoding", "accept"):
            del client.headers[name]
        asked = client.get(PROXY.format("kfp", "x")).json()
        assert not {"accept-encoding", "accept", "user-agent"} & set(asked["headers"])
        asked = client.get(PROXY.format("kfp", "x"), headers={"Accept-Encoding": "gzip"}).json()
        assert asked["headers"]["accept-encoding"] == "gzip"


def test_what_is_not_there_is_said(backend: str, kube: Server) -> None:
    with kube.client() as client:
        assert client.get(PROXY.format("nosuch", "x")).status_code == 404
        assert client.get(PROXY.format("prometheus:9090", "-/ready")).status_code == 503
        del client.headers["authorization"]
        assert client.get(PROXY.format("ml-pipeline:8888", "x")).status_code == 403


def test_without_endpoints_a_known_service_has_none(kube: Server) -> None:
    with kube.client() as client:
        answer = client.get(PROXY.format("ml-pipeline:8888", "x"))
    assert (answer.status_code, answer.json()["reason"]) == (503, "ServiceUnavailable")
