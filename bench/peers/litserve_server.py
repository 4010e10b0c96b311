"""LitServe around the model, with its batching: `-m bench.peers.litserve_server`. One worker, which is its default.

Source: https://lightning.ai/docs/litserve/features/batching
"""

from __future__ import annotations

import os
from typing import Any

import litserve

from bench.peers import answers


class Census(litserve.LitAPI):  # type: ignore[misc]  # litserve is no part of the environment that is checked
    """A row a request; LitServe gathers rows into batches."""

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self.answers = answers.load()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # a type would have LitServe parse it otherwise
        """The row of a request."""
        row: dict[str, Any] = request["instances"][0]
        return row

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows as they are."""
        return inputs

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An answer a row."""
        return self.answers.rows(rows)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers as they are."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        return {"predictions": [output]}


if __name__ == "__main__":
    api = Census(max_batch_size=answers.MOST_ROWS, batch_timeout=answers.WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ[answers.PORT]), generate_client_file=False)
