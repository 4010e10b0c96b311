"""A sandbox whose Prometheus answers, for tests that need its numbers: no sandbox waits for it by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.prometheus.find import HOW_TO_INSTALL, find
from tests.rollout.rig import Sandbox, sandbox
from tests.waiting import wait_for


@contextmanager
def measured_sandbox(home: Path, *options: str) -> Iterator[Sandbox]:
    """A sandbox in `home` with Prometheus; the test is skipped where none is to be had."""
    _fetch()  # the sandbox finds it then
    with sandbox(home, *options) as running:
        need_prometheus(running)
        yield running


def need_prometheus(running: Sandbox) -> None:
    """Wait for this sandbox's Prometheus; skip the test where none is to be had."""
    _fetch()
    wait_for(lambda: "prometheus" in running.endpoints, "Prometheus answers", 120)


def _fetch() -> None:
    """Skip the test where there is no Prometheus here and none can be fetched."""
    if find() is None:
        pytest.skip(HOW_TO_INSTALL)
