"""One Kubernetes API for all tests of the monitor, a namespace for each; a Prometheus that says what it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.kubernetes.server import Server, start, stop
from tests.tui.cluster import FakePrometheus, Namespace, new_namespace, prometheus


@pytest.fixture(scope="session")
def kubernetes_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("kubernetes"))
    yield server
    stop(server.process)


@pytest.fixture
def space(kubernetes_api: Server) -> Namespace:
    return new_namespace(kubernetes_api)


@pytest.fixture
def metrics(space: Namespace) -> Iterator[FakePrometheus]:
    with prometheus(FakePrometheus(space.name)) as fake:
        yield fake


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are UTC's, wherever the test runs."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
