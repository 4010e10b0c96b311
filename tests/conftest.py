"""What holds for every test run: nothing that it started is left, and nothing that it wrote lies in the repository."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import scheduling
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[1]
MARK = "KANARY_TEST_RUN"
# Where what is started without a folder of its own would write.
WRITTEN_TO = (".", ".kanary", "build", "dist")
TOOLS = {".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", "__pycache__"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    scheduling.in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> scheduling.Together | None:
    return scheduling.scheduler(config, log)


def pytest_configure() -> None:
    """A shell's background job ignores interrupts, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the run if a process that it started lives on, or a file of its making lies in the repository.

    Every process inherits the mark in its environment, whoever adopts it. A port is held by a process.
    """
    mark = uuid.uuid4().hex
    before = files()
    os.environ[MARK] = mark
    # A port that was ours a moment ago may already be that of another test run beside this one.
    os.environ["KANARY_FREE_PORTS"] = "1"
    # Most sandboxes here run no step and no model server: what these are forked from would be loaded for nothing.
    os.environ["KANARY_WARM"] = "0"
    yield
    del os.environ[MARK]
    try:
        wait_for(lambda: not started_by(mark), "the processes that the tests started end", deadline=60)
    except AssertionError:
        left = started_by(mark)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"processes left by the tests: {left}") from None
    assert files() - before == set(), "the tests left files in the repository"


def started_by(mark: str) -> dict[int, str]:
    """Command lines by process id: our descendants, and whoever has the mark in its environment; no zombies."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                found[child.pid] = " ".join(child.cmdline())
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    found.pop(os.getpid(), None)
    return found


def files() -> set[str]:
    """What lies where a stray process would write, the tools' caches left out."""
    return {
        str(path.relative_to(ROOT))
        for folder in WRITTEN_TO
        for path in (ROOT / folder).glob("*")
        if path.name not in TOOLS
    }
