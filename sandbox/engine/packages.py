"""Environments for `packages_to_install`: one for each set of packages, made once and kept in the home folder.

An environment holds what it was asked for; beneath it lie the sandbox's own packages, hidden from the step but for
what its image would hold. A step runs in a worker forked from that environment's own warm parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.engine.lightweight import Lightweight
from sandbox.engine.placeholders import TaskFailed
from sandbox.forkserver import ForkServer

PRELOAD = ("kfp.dsl.executor_main",)
_STAMP = "installed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?")
_WARM = 3  # parents kept when nobody uses them
_MADE_AT_ONCE = 2
MOST_DAYS = 30.0  # since its last use, an environment is kept
MOST_BYTES = 10 * 2**30  # all together; beyond that those go that were not used for longest


@dataclass
class _Environment:
    """One environment: whether it is being made, its parent once it has one, how many workers it has now."""

    folder: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    parent: ForkServer | None = None
    users: int = 0


class Environments:
    """All of a home folder."""

    def __init__(self, folder: Path, log: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self._log = log
        self._env = dict(env)
        self._known: dict[str, _Environment] = {}
        self._making = asyncio.Semaphore(_MADE_AT_ONCE)

    def ready(self, step: Lightweight) -> bool:
        """Whether the step's environment is made."""
        return (self.folder / key_of(step.packages, step.pip_options) / _STAMP).exists()

    async def make(self, step: Lightweight, log: Path) -> None:
        """Make the step's environment, where there is none, with pip's output in `log`; prune those nobody asks for.

        Raises TaskFailed where something does not install.
        """
        async with self._use(step) as known, known.lock, self._making:
            if await _make(known.folder, step, log):
                used = {one.folder.name for one in self._known.values() if one.users}
                for key in await asyncio.to_thread(outdated, self.folder, used, time.time()):
                    await self._remove(key)

    @contextlib.asynccontextmanager
    async def parent(self, step: Lightweight, log: Path) -> AsyncIterator[ForkServer]:
        """The warm parent of the step's environment, which is made where there is none, as by `make`."""
        async with self._use(step) as known:
            async with known.lock:
                await _make(known.folder, step, log)
                (known.folder / _STAMP).touch()  # the time of its last use
                if known.parent is None:
                    python = known.folder / "bin" / "python"
                    known.parent = ForkServer(PRELOAD, self._log, self._env, python=python)
            yield known.parent

    @contextlib.asynccontextmanager
    async def _use(self, step: Lightweight) -> AsyncIterator[_Environment]:
        key = key_of(step.packages, step.pip_options)
        known = self._known.setdefault(key, _Environment(self.folder / key))
        self._known[key] = self._known.pop(key)  # the one that was used last is the last
        known.users += 1
        try:
            yield known
        finally:
            known.users -= 1
            await self._cool_down()

    async def _remove(self, key: str) -> None:
        known = self._known.setdefault(key, _Environment(self.folder / key))
        if known.users:
            return
        async with known.lock:  # who asks for it meanwhile waits, and then makes it anew
            parent, known.parent = known.parent, None
            if parent is not None:
                await parent.stop()
            await asyncio.to_thread(shutil.rmtree, known.folder, True)
        if not known.users:
            self._known.pop(key, None)

    async def _cool_down(self) -> None:
        """End the parents that were not used for longest."""
        idle = [known for known in self._known.values() if known.parent is not None and not known.users]
        for known in idle[:-_WARM]:
            parent, known.parent = known.parent, None
            if parent is not None:
                await parent.stop()

    async def stop(self) -> None:
        """End all parents and their workers."""
        await asyncio.gather(*(known.parent.stop() for known in self._known.values() if known.parent is not None))


def key_of(packages: Sequence[str], options: Sequence[str]) -> str:
    """The folder's name for a set of packages: their order does not matter, the interpreter does."""
    material = "\n".join([sys.version, sys.prefix, *sorted(packages), "", *options])
    return hashlib.sha256(material.encode()).hexdigest()[:20]


def allowed(step: Lightweight, folder: Path) -> tuple[str, ...] | None:
    """What `sandbox.importguard` lets a step import: its image, the packages, and all that lies in the environment."""
    if step.extras is None:
        return None
    names = (match.group(0) for name in step.packages if _is_named(name) and (match := _NAME.match(name)))
    return (*step.extras, *(f"={name}" for name in names), f"@{_site(folder)}")


def outdated(folder: Path, used: Collection[str], now: float) -> list[str]:
    """The environments in `folder` to remove: half-made, unused for long, and the oldest beyond the room for all."""
    found: list[tuple[float, str]] = []
    gone: list[str] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name in used:
            continue
        try:
            found.append(((path / _STAMP).stat().st_mtime, path.name))
        except OSError:
            gone.append(path.name)
    room = MOST_BYTES - sum(_bytes(folder / name) for name in used)
    for last_used, name in sorted(found, reverse=True):
        room -= _bytes(folder / name)
        if room < 0 or now - last_used > MOST_DAYS * 86_400:
            gone.append(name)
    return gone


def _bytes(folder: Path) -> int:
    total = 0
    for place, folders, files in os.walk(folder):  # which passes by what goes meanwhile; rglob does not
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                total += Path(place, name).lstat().st_blocks * 512
    return total


async def _make(folder: Path, step: Lightweight, log: Path) -> bool:
    """Make the environment, unless it is there and whole (False); one that was left half-made is made again."""
    if (folder / _STAMP).exists():
        return False
    await asyncio.to_thread(shutil.rmtree, folder, True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"[sandbox] installing {' '.join(step.packages)}, once for all steps that ask for them\n".encode())
    if await _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], log):
        raise TaskFailed(f"no environment could be made in {folder}; see the step's log")
    beneath = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (_site(folder) / "beneath.pth").write_text(beneath, encoding="utf-8")
    install = _installer(folder)
    if await _run([*install, *step.pip_options, *step.packages], log):
        await asyncio.to_thread(shutil.rmtree, folder, True)
        raise TaskFailed(
            f"packages_to_install ({', '.join(step.packages)}) cannot be installed: {_last_error(log)}",
            "see the step's log; where this machine has no network, put them into the step's image",
        )
    (folder / _STAMP).write_text("\n".join(step.packages), encoding="utf-8")
    return True


def _installer(folder: Path) -> list[str]:
    """pip where there is one, else uv; pip takes what lies beneath the environment for installed, as it is."""
    python = str(folder / "bin" / "python")
    if importlib.util.find_spec("pip") is None and (uv := shutil.which("uv")) is not None:
        return [uv, "pip", "install", "--python", python]
    quiet = ("--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off")
    return [sys.executable, "-m", "pip", "--python", python, "install", *quiet]


async def _run(command: Sequence[str], log: Path) -> int:
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


def _site(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _is_named(requirement: str) -> bool:
    """Whether a requirement starts with the name of a distribution, instead of being a path or a URL."""
    return "://" not in requirement.partition("@")[0] and not requirement.startswith((".", "/", "git+"))


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("ERROR", "error", "  ×"))]
    return (errors or lines or ["no reason given"])[-1].strip()
