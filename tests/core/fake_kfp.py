"""A Kubeflow Pipelines API on a real port, answering from memory in the shapes that real servers were seen to give."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"


def task_json(name: str, state: str = "SUCCEEDED", **more: Any) -> Json:
    """A task as servers up to 2.x describe it."""
    ended = state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
    return {
        "run_id": "",
        "task_id": f"task-{name}",
        "display_name": name,
        "create_time": "2026-11-21T07:00:00Z",
        "start_time": NEVER if state == "PENDING" else "2026-11-21T07:00:01Z",
        "end_time": "2026-11-21T07:00:04.5Z" if ended else NEVER,
        "state": state,
        "pod_name": "" if state == "PENDING" else f"pod-{name}",
    } | more


def run_json(run_id: str, name: str = "training", state: str = "SUCCEEDED", **more: Any) -> Json:
    """A run as servers up to 2.x describe it; `tasks` becomes its task details."""
    tasks = more.pop("tasks", [])
    return {
        "run_id": run_id,
        "display_name": name,
        "experiment_id": "experiment-1",
        "storage_state": "AVAILABLE",
        "state": state,
        "created_at": "2026-11-21T07:00:00Z",
        "finished_at": "2026-11-21T07:01:05Z" if state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED") else NEVER,
        "pipeline_spec": {"pipelineInfo": {"name": "training-pipeline"}},
        "runtime_config": {"parameters": {"epochs": 3}},
        "run_details": {"task_details": tasks},
    } | more


@dataclass
class Asked:
    """One request as the server saw it."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeKfp:
    """What the server holds. Tests change it while it runs; `override` answers in its place where it is set."""

    runs: list[Json] = field(default_factory=list)  # newest first
    tasks: dict[str, list[Json]] = field(default_factory=dict)  # /runs/{id}/tasks, for the newer shape
    logs: dict[str, str] = field(default_factory=dict)  # by pod
    experiments: list[Json] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    override: Callable[[Request], Response | None] | None = None
    follows: bool = True  # real servers up to 2.x do not: they end the answer at the log's present end
    port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, run_id: str) -> Json:
        return next(run for run in self.runs if run["run_id"] == run_id)

    def paths(self, method: str) -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method]

    def start(self) -> None:
        """Begins to answer, on the same port as before where it was stopped."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=0,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < deadline, "the fake server does not start"
            time.sleep(0.005)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(60)
            assert not self._thread.is_alive()
            self._server = self._thread = None

    def _app(self) -> Starlette:
        api = "/apis/v2beta1"
        return Starlette(
            routes=[
                self._route(f"{api}/healthz", self._healthz),
                self._route(f"{api}/runs", self._runs, "GET", "POST"),
                self._route(f"{api}/runs/{{run_id}}/tasks", self._tasks),
                self._route(f"{api}/runs/{{run_id}}", self._run, "GET", "DELETE", "POST"),
                self._route(f"{api}/experiments", self._experiments, "GET", "POST"),
                self._route("/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", self._log),
            ]
        )

    def _route(self, path: str, handler: Callable[[Request, Any], Awaitable[Response]], *methods: str) -> Route:
        async def answer(request: Request) -> Response:
            text = await request.body()
            body = json.loads(text) if text else None
            self.asked.append(
                Asked(request.method, request.url.path, dict(request.query_params), dict(request.headers), body)
            )
            forced = self.override(request) if self.override else None
            return forced or await handler(request, body)

        return Route(path, answer, methods=list(methods) or ["GET"])

    async def _healthz(self, request: Request, body: Any) -> Response:
        return JSONResponse({"multi_user": False})

    async def _runs(self, request: Request, body: Any) -> Response:
        if request.method == "POST":
            run = run_json(f"{len(self.runs) + 1:08d}-0000-4000-8000-000000000000", body["display_name"], "PENDING")
            self.runs.insert(0, run)
            return JSONResponse(run)
        kept = [
            run
            for run in self.runs
            if run.get("storage_state") != "ARCHIVED" or "ARCHIVED" not in request.query_params.get("filter", "")
        ]
        start = int(request.query_params.get("page_token") or 0)
        end = start + int(request.query_params["page_size"])
        more = {"next_page_token": str(end)} if end < len(kept) else {}
        return JSONResponse({"runs": kept[start:end], "total_size": len(kept)} | more)

    async def _run(self, request: Request, body: Any) -> Response:
        run_id, _, verb = request.path_params["run_id"].partition(":")
        run = next((run for run in self.runs if run["run_id"] == run_id), None)
        if run is None:
            return JSONResponse({"code": 5, "message": f"Run {run_id} not found"}, 404)
        if request.method == "DELETE":
            self.runs.remove(run)
        elif verb == "terminate":
            run["state"] = "CANCELING"
        elif verb == "retry":
            run["state"] = "RUNNING"
        elif verb in ("archive", "unarchive"):
            run["storage_state"] = "ARCHIVED" if verb == "archive" else "AVAILABLE"
        else:
            return JSONResponse(run)
        return JSONResponse({})

    async def _tasks(self, request: Request, body: Any) -> Response:
        items = self.tasks[request.path_params["run_id"]]
        start = int(request.query_params.get("page_token") or 0)
        more = {"next_page_token": str(start + 2)} if start + 2 < len(items) else {}
        return JSONResponse({"tasks": items[start : start + 2], "total_size": len(items)} | more)

    async def _experiments(self, request: Request, body: Any) -> Response:
        if request.method == "POST":
            experiment = {"experiment_id": f"experiment-{len(self.experiments) + 1}", **body}
            self.experiments.append(experiment)
            return JSONResponse(experiment)
        # As a server that passes over the filter: the client has to look itself.
        return JSONResponse({"experiments": self.experiments})

    async def _log(self, request: Request, body: Any) -> Response:
        pod = request.path_params["pod"]
        if pod not in self.logs:
            # Real servers have sent 200 before they notice.
            return Response(json.dumps({"error_message": f"pods {pod!r} not found"}).replace(": ", ":", 1))
        follow = self.follows and request.query_params.get("follow") == "true"
        return StreamingResponse(self._log_text(pod, request.path_params["run_id"], follow), media_type="text/plain")

    async def _log_text(self, pod: str, run_id: str, follow: bool) -> AsyncIterator[str]:
        sent = 0
        while True:
            over = not follow or self._server is None or self._server.should_exit or self._ended(run_id, pod)
            text = self.logs[pod]
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)
            if over:
                return
            await asyncio.sleep(0.01)

    def _ended(self, run_id: str, pod: str) -> bool:
        tasks = self.run(run_id)["run_details"]["task_details"]
        return any(task["pod_name"] == pod and task["end_time"] != NEVER for task in tasks)


@contextmanager
def serving(fake: FakeKfp | None = None) -> Iterator[FakeKfp]:
    """The server, answering, until the block ends."""
    fake = fake or FakeKfp()
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
