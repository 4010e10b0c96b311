"""A real Envoy in a home of its own, and what tests put before and behind it; all gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.gateway.gateway import Gateway
from tests.gateway.rig import Client, Envoy, Load, Patient, Upstream


@pytest.fixture
def upstream() -> Iterator[Callable[[str], Upstream]]:
    """Start model servers by name; all are gone afterwards."""
    started: list[Upstream] = []

    def start(name: str) -> Upstream:
        started.append(Upstream(name).start())
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[Envoy]:
    running = Envoy(tmp_path / "home")
    yield running
    running.stop()


@pytest.fixture
def gateway(envoy: Envoy) -> Iterator[Gateway]:
    writer = Patient(envoy.home)
    yield writer
    writer.close()


@pytest.fixture
def client(envoy: Envoy) -> Iterator[Client]:
    connection = Client(envoy.port)
    yield connection
    connection.close()


@pytest.fixture
def load(envoy: Envoy) -> Callable[[str], Load]:
    """Load on the host that is named, as a context."""
    return lambda host: Load(envoy.port, host)
