"""KServe's model server as it comes, logging included, around a plain `kserve.Model`: `-m bench.peers.stock`.

It reads `--model_name`, `--http_port` and `--grpc_port` itself, and has no word for the address that it listens on.
"""

from __future__ import annotations

from typing import Any

import kserve
from kserve.model_server import args
from kserve.utils.utils import generate_uuid

from bench.peers import answers


class Plain(kserve.Model):  # type: ignore[misc]  # kserve carries no types
    """The model, written as KServe's documentation writes one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.answers = answers.load()
        self.ready = True

    def predict(
        self, payload: dict[str, Any] | kserve.InferRequest, headers: dict[str, str] | None = None
    ) -> dict[str, Any] | kserve.InferResponse:
        """A dict for a dict, tensors for tensors."""
        if isinstance(payload, dict):
            return {"predictions": self.answers.rows(payload["instances"])}
        labels, probabilities = self.answers.columns({tensor.name: tensor.data for tensor in payload.inputs})
        flat = [value for row in probabilities for value in row]
        outputs = [
            kserve.InferOutput("label", [len(labels)], "BYTES", labels),
            kserve.InferOutput("probabilities", [len(labels), len(probabilities[0])], "FP64", flat),
        ]
        return kserve.InferResponse(payload.id or generate_uuid(), self.name, outputs)


if __name__ == "__main__":
    kserve.ModelServer().start([Plain(args.model_name)])
