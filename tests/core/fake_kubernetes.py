"""A Kubernetes API on a real port that answers as a test says: lists, watches that are cut, reviews, nonsense."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]


@dataclass
class FakeKubernetes:
    """One collection for all paths. `script`: what each watch sends, in turn, before it is cut; then it stays open."""

    items: list[Json] = field(default_factory=list)
    version: int = 1
    script: list[list[Json]] = field(default_factory=list)
    denied: frozenset[str] = frozenset()  # verb resource
    override: Response | None = None
    pods: list[Json] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)  # of pods, by name
    asked: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    over: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: Request) -> Response:
        path, params = request.url.path, dict(request.query_params)
        self.asked.append({"path": path} | params)
        if self.override is not None:
            return self.override
        if path.endswith("selfsubjectreviews"):
            return JSONResponse({"status": {"userInfo": {"username": "bob"}}}, 201)
        if path.endswith("selfsubjectaccessreviews"):
            asked = (await request.json())["spec"]["resourceAttributes"]
            return JSONResponse({"status": {"allowed": f"{asked['verb']} {asked['resource']}" not in self.denied}}, 201)
        if path.endswith("/log"):
            return PlainTextResponse(self.logs[path.split("/")[-2]])
        if path.endswith("/pods"):
            if path == "/api/v1/pods" and "list pods" in self.denied:
                return JSONResponse({"message": "pods is forbidden"}, 403)
            return JSONResponse({"items": self.pods})
        if params.get("watch"):
            return StreamingResponse(self._watch(), media_type="application/json")
        return JSONResponse({"metadata": {"resourceVersion": str(self.version)}, "items": self.items})

    async def _watch(self) -> AsyncIterator[str]:
        if self.script:
            for event in self.script.pop(0):
                yield json.dumps(event) + "\n"
            return
        while not self.over:
            await asyncio.sleep(0.02)


@contextmanager
def serving(fake: FakeKubernetes) -> Iterator[FakeKubernetes]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    fake.port = listener.getsockname()[1]
    app = Starlette(routes=[Route("/{path:path}", fake.answer, methods=["GET", "POST", "PATCH", "PUT", "DELETE"])])
    made = uvicorn.Config(
        app, log_config=None, access_log=False, log_level="critical", lifespan="off", timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(made)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the fake API does not start"
        time.sleep(0.005)
    try:
        yield fake
    finally:
        fake.over = server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def thing(name: str, version: int, **more: Any) -> Json:
    return {"metadata": {"name": name, "namespace": "ns", "resourceVersion": str(version)}} | more


def event(kind: str, changed: Json) -> Json:
    return {"type": kind, "object": changed}
