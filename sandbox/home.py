"""A sandbox's home folder: where it is, what lies where in it, and files in it that are never seen half written."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.errors import SandboxError

FOLDER = ".kanary"
VARIABLE = "KANARY_HOME"


@dataclass(frozen=True)
class Home:
    """Paths inside one home folder. Whoever holds `lock` runs the sandbox; the files beside it are that process's."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def endpoints(self) -> Path:
        """For clients: each part's URLs, the supervisor's pid, since when."""
        return self.path / "endpoints.json"

    @property
    def state(self) -> Path:
        """For the supervisor and the commands: each part's process, ports, restarts."""
        return self.path / "state.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"


def find_home(given: str | None, environment: Mapping[str, str], folder: Path) -> Home:
    """The home folder: as given, else KANARY_HOME, else the nearest .kanary of `folder` and above, else one there."""
    named = given or environment.get(VARIABLE)
    if named:
        return Home((folder / Path(named).expanduser()).resolve())
    folder = folder.resolve()
    for place in (folder, *folder.parents):
        if (place / FOLDER).is_dir():
            return Home(place / FOLDER)
    return Home(folder / FOLDER)


def put_aside(home: Home) -> list[Path]:
    """Damaged stores of pipelines, which lie beside the new one until somebody deletes them."""
    return sorted((home.path / "kfp").glob("*.unreadable-*"))


def make_home(home: Home) -> None:
    """Creates the folders. Raises SandboxError where they cannot be."""
    try:
        for path in (home.path, home.logs, home.artifacts):
            path.mkdir(parents=True, exist_ok=True)
        ignore = home.path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as error:
        hint = f"Name another folder with --home or {VARIABLE}."
        raise SandboxError(f"The home folder {home.path} cannot be used: {error.strerror}.", hint) from None


def write_json(path: Path, value: Any) -> None:
    """Replaces the file as a whole: a reader sees the old content or the new. Raises OSError, and leaves the old."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; {} where there is none or it is damaged: it can only be written anew."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def take_lock(home: Home) -> int | None:
    """The locked descriptor, or None while another process holds it. The lock lives as long as any copy of it."""
    while True:
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_current(home, descriptor):
            return descriptor
        os.close(descriptor)  # its last holder deleted the file between our opening and our locking


def _is_current(home: Home, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(home.lock), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_files(home: Home) -> None:
    """Deletes what tells of a running sandbox, the lock's own file last; only for who holds the lock."""
    for path in (home.endpoints, home.state, home.lock):
        path.unlink(missing_ok=True)
