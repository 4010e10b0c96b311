"""`kubectl logs`: the file that a pod's annotation names, below the sandbox's home.

Lines carry no times: `--since` goes by what is noted of the log every few seconds, and may show a little more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import anyio

from sandbox.kubernetes.options import integer, truth
from sandbox.kubernetes.status import ApiError, bad_request
from sandbox.kubernetes.storage import Stored
from sandbox.logtimes import Mark, marks

ANNOTATION = "sandbox.kanary.dev/log"
FOLLOW_SECONDS = 0.2
CHUNK = 1 << 16


@dataclass(frozen=True)
class Part:
    """The bytes of a log that are asked for: from `start` to `end`, or without one to whatever is written."""

    path: Path
    start: int = 0
    end: int | None = None


def log_file(pod: Stored, home: Path) -> Path:
    """The log of a pod. Raises ApiError 400 if it names none, or one outside the sandbox."""
    named = (pod.body["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    path: Path = (home / str(named)).resolve()
    if not named or not path.is_relative_to(home.resolve()):
        raise bad_request(f'pod "{pod.name}" has no log: the annotation {ANNOTATION} names no file of the sandbox')
    return path


def part(pod: Stored, home: Path, query: Mapping[str, str], now: float | None = None) -> Part:
    """What of a pod's log is asked for. Raises ApiError 400 for a container that it has not, or had not before."""
    path = log_file(pod, home)
    if not path.is_file():
        raise ApiError(404, "NotFound", f"log file {path.name} is not there (yet)")
    container = _container(pod, query.get("container", ""))
    noted = marks(path)
    lives = [one.offset for one in noted if one.life] or [0]
    if truth(query.get("previous")):
        if len(lives) < 2 or not _restarts(pod):
            raise bad_request(f'previous terminated container "{container}" in pod "{pod.name}" not found')
        return Part(path, lives[-2], lives[-1])
    return Part(path, max(lives[-1], _since(noted, query, time.time() if now is None else now)))


async def read(asked: Part, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The log, its last `tailLines` if asked, and what is added while `follow` is asked. Raises ApiError 404."""
    path, limit = asked.path, integer(query["limitBytes"]) if "limitBytes" in query else None
    try:
        file = await anyio.open_file(path, "rb")
    except OSError as error:
        raise ApiError(404, "NotFound", f"log file {path.name} cannot be read: {error.strerror}") from error
    async with file:
        await file.seek(asked.start)
        tail = query.get("tailLines")
        if tail is not None:
            lines: deque[bytes] = deque(maxlen=max(integer(tail), 0))
            while (asked.end is None or await file.tell() < asked.end) and (line := await file.readline()):
                lines.append(line)
            whole = b"".join(lines)
            yield whole[:limit]
            limit = None if limit is None else limit - len(whole)
        while limit is None or limit > 0:
            left = CHUNK if asked.end is None else asked.end - await file.tell()
            chunk = await file.read(min(left, CHUNK if limit is None else min(limit, CHUNK))) if left > 0 else b""
            if chunk:
                limit = None if limit is None else limit - len(chunk)
                yield chunk
            elif truth(query.get("follow")) and asked.end is None:
                await anyio.sleep(FOLLOW_SECONDS)
            else:
                return


def _container(pod: Stored, asked: str) -> str:
    names = [str(one.get("name", "")) for one in (pod.body.get("spec") or {}).get("containers") or []]
    if asked and names and asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {pod.name}")
    return asked or (names[0] if names else "")


def _restarts(pod: Stored) -> int:
    found = (pod.body.get("status") or {}).get("containerStatuses") or []
    return max((int(one.get("restartCount") or 0) for one in found), default=0)


def _since(noted: list[Mark], query: Mapping[str, str], now: float) -> int:
    """Where the log stood at the last note before the moment that is asked for."""
    if "sinceSeconds" in query:
        moment = now - integer(query["sinceSeconds"])
    elif "sinceTime" in query:
        try:
            moment = datetime.fromisoformat(query["sinceTime"]).timestamp()
        except ValueError as error:
            raise bad_request(f"sinceTime: {query['sinceTime']!r} is no time") from error
    else:
        return 0
    return max((one.offset for one in noted if one.time <= moment), default=0)
