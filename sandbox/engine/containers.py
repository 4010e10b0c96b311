"""Container components: run by podman or docker where one answers, refused at submission where none does.

A container sees the run's folders at the same paths as the host, so that URIs mean the same inside and outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sandbox.engine.placeholders import TaskFailed
from sandbox.errors import InvalidSpec, Unsupported

RUNTIMES = ("podman", "docker")
_ANSWER_S = 30.0
_ASK_AGAIN_S = 60.0
_EXIT_CODES = {
    125: "the container could not be made",
    126: "its command cannot be executed",
    127: "its command was not found",
}
_answered: dict[str, str] = {}  # by PATH


@dataclass(frozen=True)
class Order:
    """A container to run: `command` replaces the image's entry point where it is not empty."""

    name: str
    image: str
    command: Sequence[str]
    args: Sequence[str]
    env: Mapping[str, str]
    mounts: Sequence[Path]
    log: Path


def check(container: Mapping[str, Any], where: str) -> None:
    """Raise Unsupported where nothing on this machine can run containers."""
    if not container.get("image"):
        raise InvalidSpec("the container names no image", f"{where}.container.image")
    if runtime() is None:
        raise Unsupported(
            f"a container component (image {container['image']}): neither podman nor docker answers here",
            where,
            "install podman, write the step with @dsl.component, or run this pipeline on Kubeflow",
        )


def runtime() -> str | None:
    """The path of the first of podman and docker that answers; one that did is not asked again.

    May take as long as they do: not for the loop that serves others.
    """
    path = os.environ.get("PATH", "")
    if (known := _answered.get(path)) is not None and os.access(known, os.X_OK):
        return known
    found = _runtime(path, int(time.monotonic() / _ASK_AGAIN_S))
    if found is not None:
        _answered[path] = found
    return found


@lru_cache(maxsize=4)
def _runtime(path: str, minute: int) -> str | None:
    for name in RUNTIMES:
        found = shutil.which(name, path=path)
        if found is None:
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            command = [found, "info"] if name == "podman" else [found, "version", "--format", "{{.Server.Version}}"]
            if subprocess.run(command, capture_output=True, timeout=_ANSWER_S).returncode == 0:
                return found
    return None


def command_line(program: str, order: Order) -> list[str]:
    """What starts the container in the foreground, named so that it can be ended by name."""
    line = [program, "run", "--rm", "--name", order.name, "--network", "host"]
    if Path(program).name == "docker":  # podman without root maps its root to this user already
        line += ["--user", f"{os.getuid()}:{os.getgid()}"]
    for mount in order.mounts:
        line += ["--volume", f"{mount}:{mount}"]
    for name, value in order.env.items():
        line += ["--env", f"{name}={value}"]
    first, *more = order.command or [""]
    if first:
        line += ["--entrypoint", first]
    return [*line, order.image, *more, *order.args]


async def run(order: Order) -> None:
    """Run to the end; TaskFailed with how it ended. Cancelled, it takes the container with it."""
    program = await asyncio.to_thread(runtime)
    if program is None:
        raise TaskFailed("neither podman nor docker answers any more")
    await remove(program, order.name)  # one that an earlier sandbox left
    with order.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command_line(program, order),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        await asyncio.shield(_end(program, order.name, process))
        raise
    if code:
        signal = -code if code < 0 else code - 128
        cause = f"killed by signal {signal}" if 0 < signal < 65 else f"exit status {code}"
        raise TaskFailed(f"{cause}: {_EXIT_CODES[code]}" if code in _EXIT_CODES else cause)


async def _end(program: str, name: str, process: asyncio.subprocess.Process) -> None:
    await remove(program, name)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def remove(program: str, name: str) -> None:
    """End and remove the container of that name, if there is one."""
    process = await asyncio.create_subprocess_exec(
        *(program, "rm", "--force", name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()


def mounts(folders: Sequence[Path], artifacts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Path]:
    """The folders and those of the input artifacts that are on this machine, none inside another."""
    wanted = {folder.resolve() for folder in folders}
    for listed in artifacts.values():
        wanted |= {Path(one["uri"]).parent.resolve() for one in listed if Path(one["uri"]).is_absolute()}
    return sorted(path for path in wanted if path.exists() and not wanted & set(path.parents))
