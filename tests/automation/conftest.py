"""One sandbox for all live rollouts, and a service of its own, with v1 as its stable release, for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from kanary import manifests
from tests.automation.rig import Live, Releases, add_faulty_runtime, gone, make_releases
from tests.rollout.measured import measured_sandbox
from tests.rollout.rig import Sandbox, Service

_numbers = itertools.count(1)
NewService = Callable[..., Live]


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    return make_releases(tmp_path_factory.mktemp("automation-releases"))


@pytest.fixture(scope="session")
def live_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with measured_sandbox(tmp_path_factory.mktemp("automation") / "home") as running:
        add_faulty_runtime(running)
        yield running


@pytest.fixture
def new_service(live_sandbox: Sandbox, releases: Releases, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewService]:
    """Makes services in which v1 serves."""
    monkeypatch.setenv("KANARY_HOME", str(live_sandbox.home))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    made: list[Live] = []

    def new(mode: str = manifests.KNATIVE) -> Live:
        live = Live(Service(live_sandbox, f"judged-{next(_numbers)}"), releases, mode)
        made.append(live)
        live.deploy(releases.v1)
        return live

    yield new
    for live in made:
        gone(live.service)


@pytest.fixture
def live(new_service: NewService) -> Live:
    return new_service()
