"""Stands before the API: bounds request bodies, and turns away web pages that reach for a server on this machine.

The API runs code for whoever may call it and asks for no password; a page in a browser must never be able to.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.documents import MAX_BYTES
from sandbox.kfp.messages import error_reply

_OVERHEAD = 64 * 1024  # multipart boundaries and headers around a file of the largest size


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = _refusal(headers)
        if refusal:
            await error_reply(refusal, 7)(scope, receive, send)
            return
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > MAX_BYTES + _OVERHEAD:
            response = error_reply(_too_large(), 8)
            response.headers["connection"] = "close"
            await response(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)


def _too_large() -> str:
    return f"the request is larger than {MAX_BYTES:,} bytes"


def _bounded(receive: Receive) -> Receive:
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BYTES + _OVERHEAD:
            raise HTTPException(413, _too_large())
        return message

    return bounded


def _refusal(headers: Headers) -> str:
    """Why a browser's request is refused; "" for everyone else's.

    Origin tells a page of another site; a Host with a domain name tells one whose name was pointed at this machine.
    """
    host = headers.get("host", "")
    origin = headers.get("origin", "")
    try:
        page = urlsplit(origin).netloc
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return "the request's Host or Origin is malformed"
    if origin and page != host:
        return f"requests from pages of {origin} are refused"
    if "." in name and not name.endswith(".localhost") and not _is_address(name):
        return f"this server is reached as 127.0.0.1 or localhost, not as {name}"
    return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
