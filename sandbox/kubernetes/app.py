"""The HTTP face: who may ask, which handler answers, how refusals look. Starlette carries it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from sandbox.kubernetes import auth, controllers, handlers, representation
from sandbox.kubernetes.auth import ANONYMOUS, User
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import MAX_BODY, too_large
from sandbox.kubernetes.negotiation import YAML, Wanted, wants_yaml
from sandbox.kubernetes.status import ApiError
from sandbox.kubernetes.storage import StorageFailed
from sandbox.kubernetes.watch import Hub

log = logging.getLogger(__name__)
Cut = Callable[[Scope], None]


@dataclass(frozen=True)
class Api:
    """One API over one cluster. `cut` drops the connection of a client that does not read."""

    cluster: Cluster
    hub: Hub
    tokens: dict[str, User]
    server: str = ""
    cut: Cut = lambda scope: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except ApiError as error:
            response = refusal(error, request.headers.get("accept", ""))
        except StorageFailed as error:
            log.error("%s", error)
            response = refusal(ApiError(500, "InternalError", f"Internal error occurred: {error.message}", {}))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        user = auth.authenticate(self.tokens, request.headers.get("authorization", ""))
        if user is ANONYMOUS:
            handlers.refuse_anonymous(request)
        raw = await read_body(request)
        return await handlers.dispatch(self, request, user, raw)


async def read_body(request: Request) -> bytes:
    """The body. Raises ApiError 413 beyond the API server's limit, before all of it has been read."""
    if request.method in ("GET", "HEAD"):
        return b""
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY:
            raise too_large()
    return b"".join(chunks)


def refusal(error: ApiError, accept: str = "") -> Response:
    """A Status, or the plain text of paths that mean nothing."""
    if error.text:
        return Response(error.text, error.code, media_type="text/plain")
    if wants_yaml(accept):
        content = representation.encode(error.body(), Wanted(media=YAML))
        return handlers.json_response(error.code, content, error.warnings, error.headers, YAML)
    return handlers.json_response(error.code, representation.dump(error.body()) + b"\n", error.warnings, error.headers)


def application(api: Api) -> Starlette:
    """The ASGI application; its lifespan runs the controllers."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(controllers.run(api.cluster))
        task.add_done_callback(_report)
        yield
        task.cancel()
        api.hub.close()

    return Starlette(routes=[Mount("/", app=api)], lifespan=lifespan, exception_handlers={Exception: _crashed})


def _crashed(request: Request, error: Exception) -> Response:
    """The answer to a fault of ours; Starlette raises it again, so that it stands whole in the log."""
    message = f"Internal error occurred: {type(error).__name__}"
    return refusal(ApiError(500, "InternalError", message, {"causes": [{"message": type(error).__name__}]}))


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.critical("the controllers stopped", exc_info=error)
