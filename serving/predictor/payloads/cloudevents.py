"""CloudEvents 1.0 in HTTP's binary mode, as KServe's agent 0.20 writes them: the bytes of one POST an event.

Source: kserve/kserve, pkg/logger/{handler,worker}.go; cloudevents/spec, cloudevents/bindings/http-protocol-binding.md.
The agent knows no revision; where we do, the extension `revision` names it.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from serving.predictor.payloads.frames import Exchange
from serving.predictor.payloads.redaction import redacted
from serving.predictor.payloads.spec import Kind, PayloadLog

TYPE = "org.kubeflow.serving.inference."
_JSON = b"application/json"


@dataclass(frozen=True)
class Writer:
    """Makes events. `heads` is what every event of a kind begins with; `sensitive` are features to be redacted."""

    heads: Mapping[Kind, bytes]
    features: tuple[str, ...]
    sensitive: frozenset[str]

    def events(self, exchange: Exchange) -> Iterator[tuple[Kind, bytes]]:
        """The POSTs of an answered prediction. Raises Unredactable where its request cannot be redacted."""
        request, content_type, metadata = exchange.request, exchange.content_type, exchange.metadata
        # Of no request there is nothing to redact, and the response holds no column.
        if self.sensitive and request:
            request = redacted(exchange.protocol, request, exchange.json_length, self.features, self.sensitive)
        if self.sensitive and exchange.json_length is not None:
            # It is JSON throughout now, and a length that was logged is not its own.
            content_type, metadata = _JSON, _without_length(metadata)
        event_id = _line(exchange.id) or str(uuid.uuid4()).encode()
        common = b"Ce-Id: %b\r\nCe-Metadata: %b\r\nCe-Recordedtime: %b\r\n" % (
            event_id,
            _line(metadata) or b"{}",
            timestamp(time.time()),
        )
        if content_type:
            common += b"Content-Type: %b\r\n" % _line(content_type)
        for kind, head in self.heads.items():
            at, body = (exchange.arrived, request) if kind == "request" else (exchange.answered, exchange.response)
            yield (
                kind,
                b"%b%bCe-Time: %b\r\nContent-Length: %d\r\n\r\n%b" % (head, common, timestamp(at), len(body), body),
            )


def writer(log: PayloadLog, features: Sequence[str], sensitive: Sequence[str]) -> Writer:
    """The writer of the events that `log` asks for, about a model with these features and sensitive columns."""
    heads = {kind: _head(log, kind) for kind in log.kinds}
    return Writer(heads, tuple(features), frozenset(sensitive) & frozenset(features))


def timestamp(seconds: float) -> bytes:
    """RFC 3339 in UTC with as many decimals as needed, as Go writes it."""
    whole, fraction = divmod(round(seconds * 1_000_000), 1_000_000)
    return _second(whole) + (b".%06d" % fraction).rstrip(b"0").rstrip(b".") + b"Z"


@lru_cache(maxsize=8)
def _second(whole: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)).encode()


def _head(log: PayloadLog, kind: Kind) -> bytes:
    parts = urlsplit(log.url)
    place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "User-Agent": "kanary-predictor",
        "Ce-Specversion": "1.0",
        "Ce-Type": TYPE + kind,
        "Ce-Source": log.source,
        "Ce-Inferenceservicename": log.service,
        "Ce-Namespace": log.namespace,
        "Ce-Component": log.component,
        "Ce-Endpoint": log.endpoint,
    }
    if log.annotations:
        headers["Ce-Annotations"] = go_json(log.annotations)
    if log.revision:
        headers["Ce-Revision"] = log.revision
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    lines = b"".join(b"%b: %b\r\n" % (name.encode(), _line(value.encode())) for name, value in headers.items())
    return b"POST %b HTTP/1.1\r\n%b" % (place.encode(), lines)


def go_json(document: Mapping[str, object]) -> str:
    """JSON as Go's encoding/json writes it: sorted, without blanks, with <, > and & escaped."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _without_length(metadata: bytes) -> bytes:
    name = "Inference-Header-Content-Length"
    if name.encode() not in metadata:
        return metadata
    found: dict[str, object] = json.loads(metadata)
    found.pop(name)
    return go_json(found).encode()


def _line(value: bytes) -> bytes:
    """A header's value: whatever a client sent, it ends no header."""
    return value.translate(None, b"\r\n\0")
