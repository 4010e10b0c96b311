"""A transformer of the standard library: asks the predictor for a prediction and puts "transformed " before it."""

from __future__ import annotations

import argparse
import json
import urllib.request
from http.server import BaseHTTPRequestHandler

from tests.kserve.fake_server import Handler, Server


class Transformer(Handler, BaseHTTPRequestHandler):
    """Predictions by way of the predictor; readiness of its own."""

    predictor = ""

    def do_POST(self) -> None:
        """A prediction."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        asked = urllib.request.Request(f"http://{self.predictor}{self.path}", data=body)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found = json.load(answer)
        self._answer(found | {"predictions": [f"transformed {one}" for one in found["predictions"]]})


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--http_port", type=int)
    parser.add_argument("--model_name")
    parser.add_argument("--predictor_host")
    options = parser.parse_args()
    Transformer.model_name, Transformer.predictor = options.model_name, options.predictor_host
    print(f"asking {options.predictor_host}", flush=True)
    Server(("127.0.0.1", options.http_port), Transformer).serve_forever()


if __name__ == "__main__":
    main()
