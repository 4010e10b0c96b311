"""`kubectl logs`: the file that a pod's annotation names, below the sandbox's home."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio

from sandbox.kubernetes.options import integer, truth
from sandbox.kubernetes.status import ApiError, bad_request
from sandbox.kubernetes.storage import Stored

ANNOTATION = "sandbox.kanary.dev/log"
FOLLOW_SECONDS = 0.2
CHUNK = 1 << 16


def log_file(pod: Stored, home: Path) -> Path:
    """The log of a pod. Raises ApiError 400 if it names none, or one outside the sandbox."""
    named = (pod.body["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    path: Path = (home / str(named)).resolve()
    if not named or not path.is_relative_to(home.resolve()):
        raise bad_request(f'pod "{pod.name}" has no log: the annotation {ANNOTATION} names no file of the sandbox')
    return path


async def read(path: Path, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The log, its last `tailLines` if asked, and what is added while `follow` is asked. Raises ApiError 404."""
    try:
        file = await anyio.open_file(path, "rb")
    except OSError as error:
        raise ApiError(404, "NotFound", f"log file {path.name} cannot be read: {error.strerror}") from error
    async with file:
        tail = query.get("tailLines")
        if tail is not None:
            lines = deque([line async for line in file], maxlen=max(integer(tail), 0))
            yield b"".join(lines)
        while True:
            chunk = await file.read(CHUNK)
            if chunk:
                yield chunk
            elif truth(query.get("follow")):
                await anyio.sleep(FOLLOW_SECONDS)
            else:
                return
