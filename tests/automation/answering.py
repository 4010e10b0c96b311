"""A server that answers queries as Prometheus does, always the same, and remembers what it was asked and with what."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Answering(BaseHTTPRequestHandler):
    """Prometheus' query API, as far as it is needed; remembers headers and queries."""

    status, body = (
        200,
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1,"7"]}]}}',
    )
    seen: list[dict[str, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.seen.append(
            {key.lower(): value for key, value in self.headers.items()} | {k: v[0] for k, v in query.items()}
        )
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *arguments: Any) -> None:
        return


@contextmanager
def prometheus_like(status: int = 200, body: bytes = Answering.body) -> Iterator[tuple[str, list[dict[str, str]]]]:
    handler = type("Handler", (Answering,), {"status": status, "body": body, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.seen  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
