"""The ASGI application in front of KServe's: predictions are answered here, everything else there.

Whatever a client sends gets an answer of the protocol's shape, `{"error": reason}` with a 4xx where it is the
client's fault, and keeps its connection. No body longer than the limit is ever held.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from serving.predictor.binary import Body
from serving.predictor.bodies import LONG, Bodies
from serving.predictor.drain import Drain
from serving.predictor.payloads.recorder import Recorder
from serving.predictor.refusal import Reason, Refused
from serving.predictor.service import Protocol, Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

VERSION_HEADER = b"kanary-model-version"
JSON_LENGTH_HEADER = b"inference-header-content-length"

_CONTENT_TYPES = ("", "application/json", "application/octet-stream")
_V1 = re.compile(r"/v1/models/(?P<model>[^/]+?)(?P<operation>:[a-z]+)?")
_V2 = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<operation>/infer|/ready)?")
_CLOSE = (b"connection", b"close")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Route:
    """Where a request goes: to the prediction of `protocol`, or, where that is None, to KServe under `path`."""

    protocol: Protocol | None
    path: str


class Disconnected(Exception):
    """The client left before it had sent its whole body."""


class Edge:
    """An ASGI application: `service` answers predictions, `app` (KServe's) the rest. `bodies` says what is too long.

    While `drain` says that the server is leaving, every answer asks its client to close the connection. `payloads` is
    told of every prediction that is answered; None where there is no payload log.
    """

    def __init__(
        self, app: App, service: Service, bodies: Bodies, drain: Drain, payloads: Recorder | None = None
    ) -> None:
        self.app = app
        self.service = service
        self.bodies = bodies
        self.drain = drain
        self.payloads = payloads
        self._version = (VERSION_HEADER, service.version.encode("ascii"))
        # What nearly every request asks for, found without taking its path apart.
        self._usual = {
            path: Route(inference_protocol(path), path)
            for path in (f"/v1/models/{service.name}:predict", f"/v2/models/{service.name}/infer")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Never raises, so that the server never has to cut a connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.drain.leaving:
            self.drain.asked()
        started = time.perf_counter()
        protocol = inference_protocol(scope["path"])
        reason: Reason | None = None
        try:
            route = self._route(scope)
            if route.protocol is None:
                await self._pass({**scope, "path": route.path, "raw_path": route.path.encode()}, receive, send)
                return
            status, body = 200, await self._answer(route.protocol, scope, receive)
        except Disconnected:
            return
        except Refused as refused:
            status, body, reason = refused.status, _error(refused.message), refused.reason
        except Exception:  # the outermost loop of a request
            _logger.exception("a prediction failed")
            status, body, reason = 500, _error("the prediction failed; the server's log says why"), "internal"
        await self._respond(scope, send, status, body)
        if protocol is not None and self.service.metrics is not None:
            self.service.metrics.answered(protocol, status, time.perf_counter() - started, reason)

    def _route(self, scope: Scope) -> Route:
        """Where the request goes. Raises Refused where there is no such place."""
        path: str = scope["path"]
        usual = self._usual.get(path)
        if usual is not None and scope["method"] == "POST":
            return usual
        found = _V1.fullmatch(path) or _V2.fullmatch(path)
        if found is None:
            if path.startswith("/v2/repository/"):
                raise Refused("not_found", "which model is served is the InferenceService's to say", 404)
            return Route(None, path)
        self.service.check_model(found["model"], found["version"] if found.re is _V2 else None)
        operation = found["operation"]
        protocol = inference_protocol(path)
        if protocol is None:
            if found.re is _V1 and operation is not None:
                raise Refused("not_found", "the model predicts and does nothing else: use :predict", 404)
            return Route(None, f"/{path.split('/')[1]}/models/{self.service.name}{operation or ''}")
        if scope["method"] != "POST":
            raise Refused("method", f"{scope['method']} is not allowed here; POST is", 405)
        return Route(protocol, path)

    async def _answer(self, protocol: Protocol, scope: Scope, receive: Receive) -> Body:
        arrived = time.time()
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of two of a name the first counts, as in Go
        json_length = _check_headers(headers, protocol)
        with contextlib.ExitStack() as held:
            body = await self._body(headers, receive, held)
            if len(body) <= LONG:
                answer = await self.service.answer(protocol, body, json_length)
            else:
                answer = await self.bodies.work_on(self.service.answer_alone, protocol, body, json_length)
        if self.payloads is not None:
            every = scope["headers"]
            self.payloads.answered(protocol, headers, every, body, json_length, answer.content, arrived)
        return answer

    async def _body(self, headers: dict[bytes, bytes], receive: Receive, held: contextlib.ExitStack) -> bytes:
        """The whole body; refused as soon as it is known to be too long, and then no more of it is kept.

        `held` keeps the room that a long one takes.
        """
        told = headers.get(b"content-length", b"0")
        expected = int(told) if told.isdigit() else 0
        if expected > self.bodies.limit:
            raise self.bodies.too_large()
        if expected > LONG:
            held.enter_context(self.bodies.room(expected))
        parts, length = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > self.bodies.limit:
                raise self.bodies.too_large()
            if length > LONG >= expected:
                expected = self.bodies.limit
                held.enter_context(self.bodies.room(expected))
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _respond(self, scope: Scope, send: Send, status: int, body: Body) -> None:
        headers = [
            (b"content-type", b"application/json" if body.json_length is None else b"application/octet-stream"),
            (b"content-length", str(len(body.content)).encode()),
            self._version,
        ]
        if body.json_length is not None:
            headers.append((JSON_LENGTH_HEADER, str(body.json_length).encode()))
        if status == 405:
            headers.append((b"allow", b"POST"))
        # Who waits for leave to send a body and gets an error instead may send it or not: the connection cannot go on.
        if self.drain.leaving or (status != 200 and any(name == b"expect" for name, _ in scope["headers"])):
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.content})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let KServe's application answer, with our header; its failures become a 500 with the connection kept."""
        started = False

        async def with_version(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                closing = (_CLOSE,) if self.drain.leaving else ()
                message["headers"] = [*message.get("headers", ()), self._version, *closing]
            await send(message)

        try:
            await self.app(scope, receive, with_version)
        except Exception:  # the outermost loop of a request
            _logger.exception("%s %s failed", scope["method"], scope["path"])
            if not started:
                await self._respond(scope, send, 500, _error("the server's log says why"))


def inference_protocol(path: str) -> Protocol | None:
    """The protocol whose prediction `path` asks for, of whatever model; None for every other path."""
    if path.startswith("/v1/models/") and path.endswith(":predict"):
        return "v1"
    return "v2" if path.startswith("/v2/models/") and path.endswith("/infer") else None


def _check_headers(headers: dict[bytes, bytes], protocol: Literal["v1", "v2"]) -> int | None:
    """Refuse a body that is no JSON by its headers; give the length of the JSON where binary tensors follow it."""
    kind = headers.get(b"content-type", b"application/json")
    if kind != b"application/json" and not _is_json(kind):
        raise Refused("content", "the content type must be application/json, in UTF-8", 415)
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refused("content", "the body must not be compressed", 415)
    told = headers.get(JSON_LENGTH_HEADER)
    if told is None or protocol == "v1":
        return None
    if not (told.isdigit() and len(told) < 16):
        raise Refused("malformed", f"{JSON_LENGTH_HEADER.decode()} is no whole number")
    return int(told)


def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.decode("latin-1").lower().partition(";")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters)
    return kind.strip() in _CONTENT_TYPES and not (charset and charset[1] not in ("utf-8", "utf8", "us-ascii"))


def _error(message: str) -> Body:
    return Body(orjson.dumps({"error": message}))
