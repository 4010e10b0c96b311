"""One KServe sandbox for the tests of a worker, a namespace for each of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kserve.rig import Namespace, Sandbox

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running sandbox, of the module's own."""
    running = Sandbox(tmp_path_factory.mktemp("kserve"))
    yield running
    running.stop()


@pytest.fixture
def ns(kserve: Sandbox) -> Iterator[Namespace]:
    """A fresh namespace; its services are deleted afterwards, to free the machine."""
    fresh = kserve.namespace(f"t{next(_NUMBERS)}")
    yield fresh
    for service in kserve.api.get(fresh.path).json()["items"]:
        answer = kserve.api.delete(f"{fresh.path}/{service['metadata']['name']}")
        assert not answer.is_error or answer.status_code == 404, answer.text  # one that was going may have gone


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with nothing in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder
