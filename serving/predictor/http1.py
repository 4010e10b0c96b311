"""uvicorn's HTTP protocol for a server that speaks HTTP/1 and nothing else: an offer to change is not heard.

Java's own client and `curl --http2` offer HTTP/2 with every first request; uvicorn answers such a request without its
body. Source: RFC 9110, 7.8.
"""

from __future__ import annotations

import sys

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = frozenset({b"upgrade", b"http2-settings"})


class Http1Protocol(HttpToolsProtocol):
    """Reads a request that offers another protocol once more, without the offer."""

    _data = _again = b""

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._again = data
        while self._again:
            self._data, self._again = self._again, b""
            super().data_received(self._data)

    def _should_upgrade(self) -> bool:
        """uvicorn's: whether the request is to be left to `handle_websocket_upgrade`, body and all."""
        return self.scope["method"] != "CONNECT"

    def handle_websocket_upgrade(self) -> None:
        """uvicorn's, once the head of such a request has been read; its body begins where the parser stopped."""
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        lines = [b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, self.scope["http_version"].encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token for token in value.split(b",") if token.strip().lower() not in _OFFER]
                value = b",".join(tokens)
            if name not in _OFFER:
                lines.append(b"%b: %b" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._again = b"\r\n".join([*lines, b"", b""]) + self._data[stopped.args[0] :]
