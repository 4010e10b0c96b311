"""Requests and responses in grpc-gateway's manner: proto-JSON fields in, JSON and Google-shaped errors out."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sandbox.documents import parse_json
from sandbox.errors import Conflict, InvalidSpec, NotFound, SandboxError
from sandbox.kfp.encoding import encode
from sandbox.runstore.catalog import AlreadyExists

Result = TypeVar("Result")

_BIG = 256 * 1024

# google.rpc.Code, and the HTTP status that grpc-gateway gives it.
_STATUS_OF_CODE = {3: 400, 5: 404, 6: 409, 7: 403, 8: 413, 9: 400, 12: 501, 13: 500, 14: 503}
_CODE_OF_STATUS = {400: 3, 403: 7, 404: 5, 405: 12, 413: 8, 501: 12}
_CODE_OF_ERROR: tuple[tuple[type[SandboxError], int], ...] = (
    (NotFound, 5),
    (AlreadyExists, 6),
    (Conflict, 9),
    (InvalidSpec, 3),
)


class NotOffered(SandboxError):
    """KFP has it, this server does not."""


def reply(content: Any, status: int = 200) -> Response:
    """`content` as JSON."""
    return Response(encode(content), status, media_type="application/json")


def error_reply(message: str, code: int, status: int | None = None) -> Response:
    """An error as KFP's API server words it; `details` repeats it as the google.rpc.Status that clients look for."""
    detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": message}
    body = {"error": message, "code": code, "message": message, "details": [detail]}
    return reply(body, status or _STATUS_OF_CODE[code])


def on_sandbox_error(request: Request, error: Exception) -> Response:
    """The reply to an expected failure; its hint follows the message."""
    assert isinstance(error, SandboxError)
    code = next((code for kind, code in _CODE_OF_ERROR if isinstance(error, kind)), 13)
    text = f"{error.message} ({error.hint})" if error.hint else error.message
    return error_reply(text, 12 if isinstance(error, NotOffered) else code)


def on_http_error(request: Request, error: Exception) -> Response:
    """The reply to what the router refuses: no such path, no such method, a body too large."""
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path} is not part of this API"
    else:
        message = error.detail
    return error_reply(message, _CODE_OF_STATUS.get(error.status_code, 13), error.status_code)


def on_storage_error(request: Request, error: Exception) -> Response:
    """The reply when the store cannot write: a full disk, mostly. Nothing was changed."""
    assert isinstance(error, sqlite3.Error)
    return error_reply(f"The store refused: {error}", 14)


def unexpected(error: Exception) -> Response:
    """The reply to a fault of ours, which the caller logs whole."""
    return error_reply(f"Internal error: {type(error).__name__}: {error}", 13)


async def read_message(request: Request, kind: str, known: Collection[str]) -> dict[str, Any]:
    """The body's fields by proto name. Raises InvalidSpec for what is no object, and for fields the API lacks."""
    body = await request.body()
    # A big one takes long enough to read for others to notice.
    value = await asyncio.to_thread(parse_json, body, "body") if len(body) > _BIG else parse_json(body, "body")
    return message(value, kind, known)


async def apart(request: Request, work: Callable[..., Result], *arguments: Any) -> Result:
    """What `work` gives; for the sake of others in a thread, where the request was a big one."""
    big = len(await request.body()) > _BIG
    return await asyncio.to_thread(work, *arguments) if big else work(*arguments)


def message(value: Any, kind: str, known: Collection[str]) -> dict[str, Any]:
    """The fields of a proto-JSON message, in either spelling; null is the same as not given."""
    if not isinstance(value, dict):
        raise InvalidSpec("not a JSON object", kind)
    fields = {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", name): item for name, item in value.items()}
    for name in fields.keys() - set(known):
        raise InvalidSpec(f"unknown field {name!r}", kind)
    return {name: item for name, item in fields.items() if item is not None}


def text(fields: dict[str, Any], name: str, where: str, longest: int = 0) -> str:
    """A string field, "" when it is not given. Raises InvalidSpec; `longest` 0 is no limit."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise InvalidSpec(f"{value!r} is not a string", f"{where}.{name}")
    return bounded(value, longest, f"{where}.{name}")


def bounded(value: str, longest: int, where: str) -> str:
    """`value`, unless it is longer than `longest` characters: then InvalidSpec, as the real server's columns do."""
    if longest and len(value) > longest:
        raise InvalidSpec(f"longer than {longest} characters", where)
    return value
