"""HTTP/1.1 for many small POSTs on few connections, pipelined ones included; one function answers them all.

Bounded: connections, bytes of a body, bytes of all unfinished bodies. Speaks no TLS; a mesh or a proxy in front does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A whole request; names of headers in lower case."""

    method: str
    path: bytes
    headers: Mapping[bytes, bytes]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A response; 204 has no content."""

    status: int
    content: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    retry_after_s: int = 0


Respond = Callable[[Request], Answer]


@dataclass
class Limits:
    """What all connections together may hold; `held` is bytes of bodies that are not whole yet."""

    body_bytes: int = 10 << 20
    held_bytes: int = 64 << 20
    connections: int = 512
    held: int = 0
    open: set[Connection] = field(default_factory=set)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, respond: Respond, limits: Limits) -> None:
        self._respond, self._limits = respond, limits
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._closing = False
        self._size = 0
        self._reset()
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if len(self._limits.open) >= self._limits.connections:
            transport.write(wire(Answer(503, b"too many connections", retry_after_s=1), close=True))
            transport.close()
            return
        self._limits.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._limits.open.discard(self)
        self._limits.held -= self._size
        self._size = 0

    def data_received(self, data: bytes) -> None:
        """asyncio's. Answers all that is whole with one write."""
        if self._transport is None or self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end(Answer(501, b"no other protocol is spoken here"))
        except httptools.HttpParserError as error:
            if not self._closing:
                self._end(Answer(400, str(error)[:200].encode()))
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._closing:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: the server stops, and what it has answered is kept."""
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        """asyncio's: who does not read its answers is not read."""
        if self._transport:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio's."""
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def on_url(self, url: bytes) -> None:
        """httptools'."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools'."""
        self._head += len(name) + len(value)
        if self._head > HEAD_BYTES:
            self._refuse(Answer(431, b"the headers are too long"))
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """httptools'."""
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """httptools'."""
        self._size += len(body)
        self._limits.held += len(body)
        if self._size > self._limits.body_bytes:
            self._refuse(Answer(413, b"the body is too long"))
        elif self._limits.held > self._limits.held_bytes:
            self._refuse(Answer(429, b"too much is on its way at once", retry_after_s=1))
        self._body.append(body)

    def on_message_complete(self) -> None:
        """httptools'."""
        if self._closing:
            return
        request = Request(
            self._parser.get_method().decode("ascii"),
            self._url,
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
        )
        keep = self._parser.should_keep_alive()
        self._limits.held -= self._size
        self._reset()
        self._out.append(wire(self._respond(request), not keep))
        self._closing = not keep

    def _reset(self) -> None:
        self._url, self._headers, self._body = b"", dict[bytes, bytes](), list[bytes]()
        self._size = self._head = 0

    def _refuse(self, answer: Answer) -> None:
        """Answer from within the parser, and end the parsing."""
        self._end(answer)
        raise _Ended

    def _end(self, answer: Answer) -> None:
        """Answer, and hear no more of this connection: where its next request begins is not known."""
        self._closing = True
        self._out.append(wire(answer, close=True))


class _Ended(Exception):
    """Ends the parsing of what is not worth it."""


def wire(answer: Answer, close: bool) -> bytes:
    """The bytes of an answer."""
    if answer.status == 204 and not close:
        return b"HTTP/1.1 204 No Content\r\n\r\n"
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    if answer.status != 204:
        lines += [f"content-type: {answer.content_type}", f"content-length: {len(answer.content)}"]
    lines += [f"retry-after: {answer.retry_after_s}"] if answer.retry_after_s else []
    lines += ["connection: close"] if close else []
    return "\r\n".join([*lines, "", ""]).encode() + (answer.content if answer.status != 204 else b"")
