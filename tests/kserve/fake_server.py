"""A model server of the standard library; its command line is that of KServe's model servers.

It answers predictions with the text in the model's file `version` (else MODEL_VERSION). A version "broken" makes it
print a line and exit with 3, "silent" makes it never listen; "hang" listens and never answers; "zombie" is ready but
not alive.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """V1 predictions and V2 readiness."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    version = ""
    model_name = ""

    def do_GET(self) -> None:
        """Readiness."""
        if self.version == "hang":
            time.sleep(3600)
        if self.version == "zombie" and self.path == "/live":
            self.send_error(500)
            return
        self._answer({"ready": True} if self.path.startswith("/v2/health") else {"name": self.model_name})

    def do_POST(self) -> None:
        """A prediction."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        self._answer({"predictions": [self.version] * len(body.get("instances", [0])), "pid": os.getpid()})

    def log_message(self, format: str, *args: object) -> None:
        """No line a request."""

    def _answer(self, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Does not look its own name up."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind, and no more."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http_port", type=int, default=8080)
    parser.add_argument("--model_name", default="m")
    parser.add_argument("--model_dir", type=Path, default=None)
    options = parser.parse_args()
    Handler.version = os.environ.get("MODEL_VERSION", "")
    if options.model_dir is not None:
        Handler.version = (options.model_dir / "version").read_text(encoding="utf-8").strip()
    Handler.model_name = options.model_name
    print(f"serving {Handler.version}", flush=True)
    if Handler.version == "broken":
        print("cannot load", file=sys.stderr)
        sys.exit(3)
    if Handler.version == "silent":
        time.sleep(3600)
    Server((os.environ.get("HOST", "127.0.0.1"), options.http_port), Handler).serve_forever()


if __name__ == "__main__":
    main()
