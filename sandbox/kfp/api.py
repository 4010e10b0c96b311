"""KFP's REST API v2beta1 as one Starlette application: its routes, its errors, and the engine's life around it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.errors import SandboxError
from sandbox.kfp import experiments, logs, messages, pipelines, recurring, runs, tasks
from sandbox.kfp.guard import Guard
from sandbox.kfp.messages import reply
from sandbox.kfp.pruner import prune
from sandbox.kfp.scheduler import Scheduler
from sandbox.kfp.service import Service

_log = logging.getLogger(__name__)

Handler = Callable[[Service, Request], Awaitable[Response]]

_V2 = "/apis/v2beta1"
_EXPERIMENT = f"{_V2}/experiments/{{experiment_id}}"
_PIPELINE = f"{_V2}/pipelines/{{pipeline_id}}"
_VERSION = f"{_PIPELINE}/versions/{{pipeline_version_id}}"
_RUN = f"{_V2}/runs/{{run_id}}"
_RECURRING = f"{_V2}/recurringruns/{{recurring_run_id}}"


async def healthz(service: Service, request: Request) -> Response:
    return reply({"multi_user": False, "pipeline_store": "database"})


async def version(service: Service, request: Request) -> Response:
    """What the older health check tells of the server: a release, and that no commit is behind it."""
    return reply({"multi_user": False, "tag_name": service.release.value, "commit_sha": "sandbox"})


async def not_here(service: Service, request: Request) -> Response:
    raise messages.NotOffered(
        f"{request.method} {request.url.path} is for Kubeflow's own parts in a cluster; the sandbox has none of them",
        "Nothing that the kfp SDK or CLI does needs it.",
    )


async def _answer(handler: Handler, service: Service, request: Request) -> Response:
    """The handler's reply. A fault of ours is logged whole and ends this request, not the connection.

    Left to uvicorn it would: other requests of a client that keeps its connection would then be reset.
    """
    try:
        return await handler(service, request)
    except (SandboxError, HTTPException, sqlite3.Error):
        raise
    except Exception as error:  # noqa: BLE001  # the outermost frame of a request
        _log.exception("%s %s failed", request.method, request.url.path)
        return messages.unexpected(error)


# The first that matches wins: `:verb` before the bare id, fixed names before ids.
_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", f"{_V2}/healthz", healthz),
    ("GET", "/apis/v1beta1/healthz", version),
    ("POST", f"{_V2}/experiments", experiments.create),
    ("GET", f"{_V2}/experiments", experiments.listed),
    ("POST", f"{_EXPERIMENT}:archive", experiments.archive),
    ("POST", f"{_EXPERIMENT}:unarchive", experiments.unarchive),
    ("GET", _EXPERIMENT, experiments.get),
    ("DELETE", _EXPERIMENT, experiments.delete),
    ("POST", f"{_V2}/pipelines/upload", pipelines.upload),
    ("POST", f"{_V2}/pipelines/upload_version", pipelines.upload_version),
    ("POST", f"{_V2}/pipelines/create", pipelines.create_with_version),
    ("GET", f"{_V2}/pipelines/names/{{name}}", pipelines.get_by_name),
    ("POST", f"{_V2}/pipelines", pipelines.create),
    ("GET", f"{_V2}/pipelines", pipelines.listed),
    ("GET", _PIPELINE, pipelines.get),
    ("PATCH", _PIPELINE, pipelines.update),
    ("DELETE", _PIPELINE, pipelines.delete),
    ("POST", f"{_PIPELINE}/versions", pipelines.create_version),
    ("GET", f"{_PIPELINE}/versions", pipelines.list_versions),
    ("GET", _VERSION, pipelines.get_version),
    ("PATCH", _VERSION, pipelines.update_version),
    ("DELETE", _VERSION, pipelines.delete_version),
    ("POST", f"{_V2}/runs", runs.create),
    ("GET", f"{_V2}/runs", runs.listed),
    ("POST", f"{_RUN}:terminate", runs.terminate),
    ("POST", f"{_RUN}:retry", runs.retry),
    ("POST", f"{_RUN}:archive", runs.archive),
    ("POST", f"{_RUN}:unarchive", runs.unarchive),
    ("GET", _RUN, runs.get),
    ("DELETE", _RUN, runs.delete),
    ("GET", f"{_RUN}/tasks", tasks.list_tasks),
    ("GET", f"{_RUN}/tasks/{{task_id}}", tasks.get_task),
    ("GET", f"{_V2}/artifacts", tasks.list_artifacts),
    ("GET", f"{_V2}/artifacts/{{artifact_id}}", tasks.get_artifact),
    ("GET", f"{_V2}/artifact_tasks", tasks.list_artifact_tasks),
    ("POST", f"{_V2}/recurringruns", recurring.create),
    ("GET", f"{_V2}/recurringruns", recurring.listed),
    ("POST", f"{_RECURRING}:enable", recurring.enable),
    ("POST", f"{_RECURRING}:disable", recurring.disable),
    ("GET", _RECURRING, recurring.get),
    ("DELETE", _RECURRING, recurring.delete),
    ("GET", "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", logs.read),
    ("GET", f"{_V2}/auth", not_here),
    ("GET", f"{_V2}/filters", not_here),
    ("POST", f"{_V2}/visualizations/{{namespace}}", not_here),
    ("POST", f"{_V2}/workflows", not_here),
    ("POST", f"{_V2}/scheduledworkflows", not_here),
)


def make_app(service: Service) -> Starlette:
    """The application; it starts the engine with itself and stops it, then the store, at its end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.engine.start()
        beside = [asyncio.create_task(Scheduler(service).run()), asyncio.create_task(prune(service))]
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await service.engine.stop()
            service.store.close()

    routes = [Route(path, partial(_answer, handler, service), methods=[method]) for method, path, handler in _ROUTES]
    handlers = {
        SandboxError: messages.on_sandbox_error,
        HTTPException: messages.on_http_error,
        sqlite3.Error: messages.on_storage_error,
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=[Middleware(Guard)])
