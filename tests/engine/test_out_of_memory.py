"""A step that the kernel really kills for lack of memory, in a cgroup of its own; skipped where none may be made."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tests.engine import steps

_LIMIT = 128 * 2**20
_VERSION_1, _VERSION_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def small_room() -> Iterator[Path]:
    """A memory cgroup of 128 MiB without swap."""
    if (_VERSION_1 / "memory.limit_in_bytes").exists():
        root, limits = _VERSION_1, {"memory.limit_in_bytes": _LIMIT, "memory.memsw.limit_in_bytes": _LIMIT}
    else:
        root, limits = _VERSION_2, {"memory.max": _LIMIT, "memory.swap.max": 0}
    folder = root / f"kanary-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        first, *others = limits
        (folder / first).write_text(str(limits[first]))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no memory cgroup can be made here: {error}")
    for name in others:
        with contextlib.suppress(OSError):  # not every kernel counts swap
            (folder / name).write_text(str(limits[name]))
    yield folder
    deadline = time.monotonic() + 60
    while folder.exists():
        with contextlib.suppress(OSError):  # the last process is not quite gone
            folder.rmdir()
        assert time.monotonic() < deadline


@steps.component
def grows(group: str) -> int:
    import os

    with open(f"{group}/cgroup.procs", "w") as members:
        members.write(str(os.getpid()))
    print("about to grow", flush=True)
    kept = []
    while True:
        kept.append(b"x" * 2**20)


def test_a_step_that_the_kernel_kills_for_lack_of_memory_says_so(
    engine: Any, compiled: Callable[[Any], dict[str, Any]], small_room: Path
) -> None:
    @dsl.pipeline(name="grows")
    def pipeline(group: str) -> None:
        grows(group=group)
        steps.text(value="beside it").set_caching_options(False)

    outcome = engine.run(compiled(pipeline), group=str(small_room))
    assert outcome.run.state == "FAILED"
    assert outcome.states() == {"grows": "FAILED", "text": "SUCCEEDED"}
    assert "killed by the kernel for lack of memory (OOMKilled" in outcome.tasks["grows"].error
    assert "OOMKilled" in outcome.run.error
    assert outcome.log("grows").endswith("about to grow\n")
