"""One inference CloudEvent, in HTTP's binary mode, to the rows or the predictions in it. Guesses nothing.

What comes in is what KServe's agent or the predictor's payload log sends: serving/predictor/README.md says what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from math import prod
from operator import itemgetter
from typing import Any, Literal

import orjson

from kanary.errors import InputError
from kanary.modelspec import CategoricalFeature, Feature, ModelSpec
from serving.drift.window import Prediction, Row
from serving.predictor.refusal import Refused
from serving.predictor.tensors import Tensor, tensors

TYPE = b"org.kubeflow.serving.inference."
Kind = Literal["request", "response"]
KINDS: Mapping[bytes, Kind] = {TYPE + b"request": "request", TYPE + b"response": "response"}

Reason = Literal["headers", "type", "body", "protocol", "columns", "values", "classes"]
REASONS: tuple[Reason, ...] = ("headers", "type", "body", "protocol", "columns", "values", "classes")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int, float),
    "string": (str,),
    "boolean": (bool,),
}
_SIGNATURES = 4096


class Corrupt(InputError):
    """An event that cannot be what it says. `reason` is one of a fixed few: it labels a metric."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Source:
    """Who an event is about. `version` and `digest` are the model's; empty where the logger names none."""

    namespace: str
    service: str
    revision: str
    version: str
    digest: str


@dataclass
class Reader:
    """Reads the events of one model. A row is its features' values in the model's order, as they were sent."""

    spec: ModelSpec
    _names: tuple[str, ...] = field(init=False)
    _set: frozenset[str] = field(init=False)
    _known: set[tuple[type, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names = tuple(feature.name for feature in self.spec.features)
        self._set = frozenset(self._names)
        self._pick = itemgetter(*self._names) if len(self._names) > 1 else lambda row: (row[self._names[0]],)

    def rows(self, body: bytes, json_length: int | None = None) -> list[Row]:
        """The rows of a request, V1 or V2. Raises Corrupt."""
        document = _document(body, json_length)
        if "instances" in document:
            rows = self._instances(document["instances"])
        elif "inputs" in document:
            rows = self._inputs(document["inputs"], b"" if json_length is None else body[json_length:])
        else:
            raise Corrupt("protocol", "the request has neither instances nor inputs")
        if not rows:
            raise Corrupt("protocol", "the request has no rows")
        for row in rows:
            if (signature := tuple(map(type, row))) not in self._known:
                self._check(row, signature)
        return rows

    def predictions(self, body: bytes, json_length: int | None = None) -> list[Prediction]:
        """The predictions of a response, V1 or V2. Raises Corrupt."""
        document = _document(body, json_length)
        classes = self.spec.classes
        try:
            if "predictions" in document:
                made = [
                    Prediction(entry["label"], tuple(map(entry["probabilities"].__getitem__, classes)))
                    for entry in document["predictions"]
                ]
            elif "outputs" in document:
                made = self._outputs(document["outputs"], b"" if json_length is None else body[json_length:])
            else:
                raise Corrupt("protocol", "the response has neither predictions nor outputs")
        except (TypeError, KeyError, AttributeError, ValueError, Refused) as error:
            raise Corrupt("protocol", f"the response is none of this model's: {error!r:.200}") from None
        for prediction in made:
            if prediction.label not in classes:
                raise Corrupt("classes", f"the label {prediction.label!r:.60} is no class of the model")
            if not all(type(value) in (float, int) and 0 <= value <= 1 for value in prediction.probabilities):
                raise Corrupt("values", "a probability is no number from 0 to 1")
        if not made:
            raise Corrupt("protocol", "the response has no predictions")
        return made

    def _instances(self, instances: Any) -> list[Row]:
        if not isinstance(instances, list):
            raise Corrupt("protocol", "instances is no list")
        rows = []
        for instance in instances:
            if isinstance(instance, dict):
                if instance.keys() != self._set:
                    raise Corrupt("columns", f"an instance has the columns {sorted(instance)!r:.300}")
                rows.append(self._pick(instance))
            elif isinstance(instance, list) and len(instance) == len(self._names):
                rows.append(tuple(instance))
            else:
                raise Corrupt("columns", f"an instance is not {len(self._names)} values")
        return rows

    def _inputs(self, inputs: Any, binary: bytes) -> list[Row]:
        try:
            found = tensors(_list(inputs), binary)
        except Refused as error:
            raise Corrupt("protocol", error.message) from None
        width = len(self._names)
        only = found[0] if len(found) == 1 else None
        if only is not None and len(only.shape) == 2 and (width > 1 or only.name not in self._set):
            if only.shape[1] != width:
                raise Corrupt(
                    "columns", f"the tensor has the shape {list(only.shape)}; the model takes {width} columns"
                )
            values = _plain(only)
            return [tuple(values[at : at + width]) for at in range(0, len(values), width)]
        by_name = {tensor.name: tensor for tensor in found}
        if by_name.keys() != self._set or len(found) != width or len({tensor.shape[0] for tensor in found}) != 1:
            raise Corrupt("columns", f"the inputs are {[tensor.name for tensor in found]!r:.300}")
        if any(prod(tensor.shape) != tensor.shape[0] for tensor in found):
            raise Corrupt("columns", "an input has more than one column")
        return list(zip(*(_plain(by_name[name]) for name in self._names), strict=True))

    def _outputs(self, outputs: Any, binary: bytes) -> list[Prediction]:
        found = {tensor.name: tensor for tensor in tensors(_list(outputs), binary)}
        labels, flat = _plain(found["label"]), _plain(found["probabilities"])
        width = len(self.spec.classes)
        if len(flat) != len(labels) * width:
            raise Corrupt("classes", f"{len(flat)} probabilities for {len(labels)} rows of {width} classes")
        return [Prediction(label, tuple(flat[at * width : (at + 1) * width])) for at, label in enumerate(labels)]

    def _check(self, row: Row, signature: tuple[type, ...]) -> None:
        """Look at the types of a row; such as have been seen are known to be good. Raises Corrupt."""
        for feature, kind in zip(self.spec.features, signature, strict=True):
            if kind is not type(None) and kind not in _allowed(feature):
                raise Corrupt("values", f"{feature.name} is of the type {kind.__name__}, which is no {feature.type}")
        if len(self._known) < _SIGNATURES:
            self._known.add(signature)


def source(headers: Mapping[bytes, bytes]) -> Source:
    """Who the event with these headers (names in lower case) is about. Raises Corrupt."""
    service = headers.get(b"ce-inferenceservicename", b"")
    if not service:
        raise Corrupt("headers", "ce-inferenceservicename is missing")
    try:
        annotations = orjson.loads(headers.get(b"ce-annotations") or b"{}")
        version, digest = annotations.get("model-version", ""), annotations.get("model-digest", "")
        namespace, name, revision = (
            value.decode() for value in (headers.get(b"ce-namespace", b""), service, headers.get(b"ce-revision", b""))
        )
    except (ValueError, AttributeError):
        raise Corrupt("headers", "ce-annotations is no JSON object, or a header is no UTF-8") from None
    found = (namespace, name, revision, version, digest)
    if not all(isinstance(text, str) and len(text) < 254 for text in found):
        raise Corrupt("headers", "a header is longer than any name may be")
    return Source(*found)


def json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Where the JSON of a binary V2 body ends; None where all of it is JSON. The logger must log the header."""
    metadata = headers.get(b"ce-metadata", b"")
    if b"nference-" not in metadata:
        return None
    try:
        given = orjson.loads(metadata)["Inference-Header-Content-Length"]
        return int(given[0] if isinstance(given, list) else given)
    except (ValueError, KeyError, TypeError, IndexError):
        return None


@lru_cache(maxsize=4096)
def moment(text: bytes) -> float:
    """A ce-time as seconds since the epoch. Raises Corrupt."""
    try:
        return datetime.fromisoformat(text.decode("ascii")).timestamp()
    except ValueError:
        raise Corrupt("headers", f"ce-time is {text!r:.60}") from None


def _document(body: bytes, json_length: int | None) -> dict[str, Any]:
    try:
        found = orjson.loads(body if json_length is None else body[:json_length])
    except ValueError as error:
        raise Corrupt("body", f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Corrupt("body", "the body is no JSON object")
    return found


def _plain(tensor: Tensor) -> list[Any]:
    data = tensor.data
    if isinstance(data, list):
        return data
    return [None if value != value else value for value in data.tolist()]


def _allowed(feature: Feature) -> tuple[type, ...]:
    own = _TYPES[feature.type]
    return (*own, str) if isinstance(feature, CategoricalFeature) else own


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Corrupt("protocol", "a list of tensors is needed")
    return value
