"""One model behind every protocol: a request's bytes to rows, rows to probabilities, these to an answer's bytes.

Knows no HTTP. What waits at the same time is predicted together (`predict`); `answer_alone` serves callers without an
event loop, and bodies too long to be worked on in one.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from serving.model.predict import Predictor
from serving.model.preprocess import Encoded
from serving.predictor import binary, v1, v2
from serving.predictor.batcher import NOTHING, Batcher, Cost
from serving.predictor.binary import Body
from serving.predictor.contract import Contract
from serving.predictor.metrics import Metrics
from serving.predictor.refusal import Refused, listed

Protocol = Literal["v1", "v2"]


@dataclass(frozen=True)
class Asked:
    """A decoded request: its rows, and what else of it the answer needs (nothing in V1).

    `binary` names the outputs that are to be raw bytes.
    """

    rows: Encoded
    v2: v2.Request | None = None
    binary: frozenset[str] = frozenset()


class Service:
    """A loaded model, served as `name`. `metrics` counts what is predicted; None where nothing is to be counted."""

    def __init__(
        self, name: str, predictor: Predictor, contract: Contract, metrics: Metrics | None = None, cost: Cost = NOTHING
    ) -> None:
        self.name = name
        self.predictor = predictor
        self.contract = contract
        self.metrics = metrics
        self.predict = Batcher(self._predict, cost)

    @property
    def version(self) -> str:
        """The model's version."""
        return self.predictor.spec.version

    def check_model(self, name: str, version: str | None = None) -> None:
        """Refuse a request for another model or, where `version` is not empty, another version of it."""
        if name != self.name:
            raise Refused("not_found", f"Model with name {listed([name])} does not exist.", 404)
        if version and version != self.version:
            what = f"Model {self.name} has no version {listed([version])}; it is {self.version}"
            raise Refused("not_found", what, 404)

    async def answer(self, protocol: Protocol, body: bytes, json_length: int | None = None) -> Body:
        """The response's body. V2: `json_length` bytes are JSON, what follows is binary tensors; None: all is JSON.

        Raises Refused for a body that the model cannot take.
        """
        asked = self._read(protocol, body, json_length)
        return _body(asked, self._answer(asked, await self.predict(asked.rows)))

    def answer_alone(self, protocol: Protocol, body: bytes, json_length: int | None = None) -> Body:
        """The same, predicted by itself and at once; may run in any thread."""
        asked = self._read(protocol, body, json_length)
        return _body(asked, self._answer_alone(asked))

    async def answer_v2(self, document: Any, tensors: bytes) -> dict[str, Any]:
        """The answer to a V2 document and the binary tensors behind it. Raises Refused."""
        request = v2.decode(document, tensors, self.contract)
        return self._answer(Asked(request.rows, request), await self.predict(request.rows))

    def v1(self, document: Any) -> dict[str, Any]:
        """The answer to a V1 document, predicted by itself."""
        return self._answer_alone(Asked(v1.decode(document, self.contract)))

    def v2(self, document: Any, tensors: bytes = b"") -> dict[str, Any]:
        """The answer to a V2 document and the binary tensors behind it, predicted by itself."""
        request = v2.decode(document, tensors, self.contract)
        return self._answer_alone(Asked(request.rows, request))

    def _read(self, protocol: Protocol, body: bytes, json_length: int | None) -> Asked:
        if protocol == "v1":
            return Asked(v1.decode(_parsed(body), self.contract))
        length = len(body) if json_length is None else json_length
        if not 0 <= length <= len(body):
            raise Refused("malformed", f"the JSON is said to have {length} bytes; the body has {len(body)}")
        document = _parsed(body[:length])
        outputs = binary.asked(document)
        request = v2.decode(document, body[length:], self.contract)
        return Asked(request.rows, request, outputs)

    def _answer_alone(self, asked: Asked) -> dict[str, Any]:
        return self._answer(asked, self._predict(asked.rows))

    def _answer(self, asked: Asked, probabilities: npt.NDArray[np.float64]) -> dict[str, Any]:
        labels, rows = self.predictor.labels(probabilities), probabilities.tolist()
        if asked.v2 is None:
            return v1.encode(labels, rows, self.predictor.spec.classes)
        return v2.encode(asked.v2, labels, rows, self.name, self.predictor.spec)

    def _predict(self, rows: Encoded) -> npt.NDArray[np.float64]:
        probabilities = self.predictor.probabilities(rows)
        if self.metrics is not None:
            self.metrics.predicted(rows, probabilities)
        return probabilities


def _body(asked: Asked, answer: dict[str, Any]) -> Body:
    return binary.body(answer, asked.binary)


def _parsed(text: bytes) -> Any:
    # A long body may hold millions of lists: what looks for cycles among them would stop every other request, for
    # seconds, and JSON has none.
    gc.disable()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused("malformed", f"the body is no JSON: {error}") from None
    finally:
        gc.enable()
