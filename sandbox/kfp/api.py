"""KFP's REST API v2beta1 as one Starlette application: its routes, its errors, and the engine's life around it."""

from __future__ import annotations

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
from sandbox.kfp import experiments, logs, messages, pipelines, runs
from sandbox.kfp.guard import Guard
from sandbox.kfp.service import Service

_log = logging.getLogger(__name__)

Handler = Callable[[Service, Request], Awaitable[Response]]

_V2 = "/apis/v2beta1"
_EXPERIMENT = f"{_V2}/experiments/{{experiment_id}}"
_PIPELINE = f"{_V2}/pipelines/{{pipeline_id}}"
_VERSION = f"{_PIPELINE}/versions/{{pipeline_version_id}}"
_RUN = f"{_V2}/runs/{{run_id}}"


async def healthz(service: Service, request: Request) -> Response:
    return messages.reply({"multi_user": False, "pipeline_store": "database"})


async def recurring_runs(service: Service, request: Request) -> Response:
    raise messages.NotOffered(
        "Recurring runs are not part of this version of the sandbox; a later version brings them",
        "Create runs one by one, or schedule `kfp run create` with cron.",
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
    ("GET", "/apis/v1beta1/healthz", healthz),
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
    ("DELETE", _PIPELINE, pipelines.delete),
    ("POST", f"{_PIPELINE}/versions", pipelines.create_version),
    ("GET", f"{_PIPELINE}/versions", pipelines.list_versions),
    ("GET", _VERSION, pipelines.get_version),
    ("DELETE", _VERSION, pipelines.delete_version),
    ("POST", f"{_V2}/runs", runs.create),
    ("GET", f"{_V2}/runs", runs.listed),
    ("POST", f"{_RUN}:terminate", runs.terminate),
    ("POST", f"{_RUN}:retry", runs.retry),
    ("POST", f"{_RUN}:archive", runs.archive),
    ("POST", f"{_RUN}:unarchive", runs.unarchive),
    ("GET", _RUN, runs.get),
    ("DELETE", _RUN, runs.delete),
    ("GET", f"{_RUN}/tasks", runs.list_tasks),
    ("GET", "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log", logs.read),
)
_RECURRING = (f"{_V2}/recurringruns", f"{_V2}/recurringruns/{{rest:path}}")


def make_app(service: Service) -> Starlette:
    """The application; it starts the engine with itself and stops it, then the store, at its end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.engine.start()
        try:
            yield
        finally:
            await service.engine.stop()
            service.store.close()

    routes = [Route(path, partial(_answer, handler, service), methods=[method]) for method, path, handler in _ROUTES]
    every_method = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    routes += [Route(path, partial(_answer, recurring_runs, service), methods=every_method) for path in _RECURRING]
    handlers = {
        SandboxError: messages.on_sandbox_error,
        HTTPException: messages.on_http_error,
        sqlite3.Error: messages.on_storage_error,
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=[Middleware(Guard)])
