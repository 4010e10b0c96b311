"""Handler of /apis/v1alpha1/runs/{run}/nodes/{pod}/log: a step's output, whole or live until the step ends.

What a client has not read yet is held in its socket, never here; one that reads nothing for a minute is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from sandbox.errors import NotFound
from sandbox.kfp.service import Service
from sandbox.runstore.store import FINAL_STATES

_CHUNK = 64 * 1024
_POLL_S = 0.1
STALLED_S = 60.0  # how long a client may leave unread what is there for it


async def read(service: Service, request: Request) -> Response:
    """`node_id` is the task's pod name, or its id. A step that has not begun has an empty log."""
    run = service.store.get_run(request.path_params["run_id"])
    node_id = request.path_params["node_id"]
    task = next((task for task in service.store.tasks(run.run_id) if node_id in (task.pod_name, task.task_id)), None)
    if task is None or not node_id:
        raise NotFound(f"Run {run.run_id} has no node {node_id}")
    path = service.engine.log_path(run.run_id, task.task_id)
    follow = request.query_params.get("follow") == "true"
    content = _follow(service, path, run.run_id, task.task_id) if follow else _whole(path)
    headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
    return _LogResponse(request, content, headers)


class _LogResponse(StreamingResponse):
    """A stream whose client is cut off when it stops reading."""

    def __init__(self, request: Request, content: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(content, media_type="text/plain", headers=headers)
        self._request = request

    async def stream_response(self, send: Send) -> None:
        async def patiently(message: Message) -> None:
            async with asyncio.timeout(STALLED_S):
                await send(message)

        try:
            await super().stream_response(patiently)
        except TimeoutError:
            self._request.app.state.cut(self._request.scope)


async def _whole(path: Path) -> AsyncIterator[bytes]:
    """What the log holds now. Its size is taken once: a step that never stops writing does not keep the reader."""
    left = path.stat().st_size if path.exists() else 0
    position = 0
    while left > 0 and (chunk := _read(path, position, min(_CHUNK, left))):
        yield chunk
        position += len(chunk)
        left -= len(chunk)


async def _follow(service: Service, path: Path, run_id: str, task_id: str) -> AsyncIterator[bytes]:
    position = 0
    while True:
        # Asked before reading: what was written before the task ended is then read for certain.
        ended = _has_ended(service, run_id, task_id)
        while chunk := _read(path, position, _CHUNK):
            yield chunk
            position += len(chunk)
        if ended or service.closing.is_set():
            return
        await asyncio.sleep(_POLL_S)


def _has_ended(service: Service, run_id: str, task_id: str) -> bool:
    try:
        if service.store.get_run(run_id).state in FINAL_STATES:
            return True
    except NotFound:
        return True
    return any(task.task_id == task_id and task.state in FINAL_STATES for task in service.store.tasks(run_id))


def _read(path: Path, position: int, size: int) -> bytes:
    try:
        with path.open("rb") as log:
            log.seek(position)
            return log.read(size)
    except FileNotFoundError:
        return b""
