"""One sandbox for all rollout tests, three released models, and a service of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from components.deploy.deployment import Deployed, Target, deploy
from tests.rollout.rig import NAMESPACE, Model, Sandbox, Service, make_release, sandbox

Deploy = Callable[..., Deployed]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Models:
    """Releases of one model: other seeds, other digests."""

    v1: Model
    v2: Model
    v3: Model


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("releases")
    made = Models(*(make_release(folder, f"v{seed}", seed) for seed in (1, 2, 3)))
    assert len({made.v1.digest, made.v2.digest, made.v3.digest}) == 3
    return made


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The sandbox."""
    with sandbox(tmp_path_factory.mktemp("rollout") / "home") as running:
        yield running


@pytest.fixture
def empty(live: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A name with no service behind it yet; what this process deploys goes to the sandbox."""
    monkeypatch.setenv("KANARY_HOME", str(live.home))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    service = Service(live, f"flowers-{next(_numbers)}")
    yield service
    if service.exists():
        service.delete()


@pytest.fixture
def deployed(empty: Service) -> Deploy:
    """The deploy step's logic: deployed(model, percent) gives the revision."""

    def run(model: Model, percent: int = 0, *, timeout_s: float = 180.0, run_id: str = "") -> Deployed:
        return deploy(model.path, model.uri, model.digest, Target(empty.name, NAMESPACE, percent, timeout_s, run_id))

    return run


@pytest.fixture
def service(empty: Service, deployed: Deploy, models: Models) -> Service:
    """A service with v1 as its stable release."""
    assert deployed(models.v1).percent == 100
    return empty
