"""One model behind both protocols: bytes of a request in, bytes of an answer out. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from kanary.errors import InputError
from serving.model.predict import Predictor
from serving.predictor import v1, v2
from serving.predictor.contract import Contract
from serving.predictor.metrics import Metrics
from serving.predictor.refusal import Refused

Protocol = Literal["v1", "v2"]


@dataclass(frozen=True)
class Service:
    """A loaded model, served as `name`. `metrics` counts what is predicted; None where nothing is to be counted."""

    name: str
    predictor: Predictor
    contract: Contract
    metrics: Metrics | None = None

    @property
    def version(self) -> str:
        """The model's version."""
        return self.predictor.spec.version

    def answer(self, protocol: Protocol, body: bytes, json_length: int | None = None) -> bytes:
        """The response's body. V2: `json_length` bytes are JSON, what follows is binary tensors; None: all is JSON.

        Raises Refused for a body that the model cannot take.
        """
        if protocol == "v1":
            return orjson.dumps(self.v1(_parsed(body)))
        if json_length is None:
            return orjson.dumps(self.v2(_parsed(body)))
        if not 0 <= json_length <= len(body):
            raise Refused("malformed", f"the JSON is said to have {json_length} bytes; the body has {len(body)}")
        return orjson.dumps(self.v2(_parsed(body[:json_length]), body[json_length:]))

    def v1(self, document: Any) -> dict[str, Any]:
        """The answer to a V1 document."""
        labels, probabilities = self._predict(v1.decode(document, self.contract))
        return v1.encode(labels, probabilities, self.predictor.spec.classes)

    def v2(self, document: Any, binary: bytes = b"") -> dict[str, Any]:
        """The answer to a V2 document and the binary tensors behind it."""
        request = v2.decode(document, binary, self.contract)
        labels, probabilities = self._predict(request.columns)
        return v2.encode(request, labels, probabilities, self.name, self.predictor.spec)

    def _predict(self, columns: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[list[float]]]:
        try:
            probabilities = self.predictor.predict_proba(columns)
        except InputError as error:
            raise Refused("type", error.message) from None
        labels = self.predictor.labels(probabilities)
        if self.metrics is not None:
            self.metrics.predicted(labels)
        return labels, probabilities.tolist()


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused("malformed", f"the body is no JSON: {error}") from None
