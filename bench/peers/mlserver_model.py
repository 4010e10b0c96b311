"""MLServer around the model, with its adaptive batching: `mlserver start` in a folder with `model-settings.json`.

Source: https://docs.seldon.ai/mlserver/user-guide/adaptive-batching and .../custom
"""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from bench.peers import answers


class Census(MLModel):  # type: ignore[misc]  # mlserver is no part of the environment that is checked
    """Tensors of a column each; MLServer gathers the rows of several requests into one call."""

    async def load(self) -> bool:
        """Load the model, in the worker."""
        self.answers = answers.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Labels and probabilities, a row each."""
        labels, probabilities = self.answers.columns({tensor.name: _values(tensor) for tensor in payload.inputs})
        flat = [value for row in probabilities for value in row]
        shape = [len(labels), len(probabilities[0])]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="label", shape=[len(labels), 1], datatype="BYTES", data=labels),
                ResponseOutput(name="probabilities", shape=shape, datatype="FP64", data=flat),
            ],
        )


def _values(tensor: Any) -> list[Any]:
    """A tensor's values; texts come as bytes from the worker's queue."""
    values = list(tensor.data)
    return [value.decode() for value in values] if values and isinstance(values[0], bytes) else values
