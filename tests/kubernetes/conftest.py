"""Servers for these tests: one bare, as the recordings are; one as the sandbox runs it; and a starter for more."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kubernetes.server import Server, start, stop

numbers = itertools.count()


@pytest.fixture(scope="session")
def kube_start() -> Iterator[Callable[..., Server]]:
    """Starts servers that are stopped at the end."""
    started: list[Server] = []

    def begin(home: Path, *options: str) -> Server:
        server = start(home, *options)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.process.terminate()
    for server in started:
        stop(server.process)


@pytest.fixture(scope="session")
def kube_bare(tmp_path_factory: pytest.TempPathFactory, kube_start: Callable[..., Server]) -> Server:
    """Without KServe's webhooks and without TLS, as the recordings are; one for the session."""
    return kube_start(tmp_path_factory.mktemp("bare"), "--no-admission", "--plain")


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory, kube_start: Callable[..., Server]) -> Server:
    """As the sandbox runs it: TLS, token, KServe's admission; one for the session."""
    return kube_start(tmp_path_factory.mktemp("kube"), "--default-mode", "Standard")


@pytest.fixture
def namespace(kube: Server) -> Iterator[str]:
    """A fresh namespace of `kube`."""
    name = f"t{os.getpid()}-{next(numbers)}"
    with kube.client() as client:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        client.post("/api/v1/namespaces", json=body).raise_for_status()
        yield name
        client.delete(f"/api/v1/namespaces/{name}")
