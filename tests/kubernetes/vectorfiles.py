"""The vectors of this folder, in a short form of their own, and the recordings that they were made from, if at hand.

Short forms: a request is [method, path, body, options]; "@" in a path is the collection of InferenceServices of a fresh
namespace; {"@isvc": metadata} is an InferenceService with the usual spec, {"@stored": metadata} one as answered, with
what the server adds; {"@failure": ...} is a Status; a string that starts with "@" may stand for a value of shared.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Body = dict[str, Any]
FOLDER = Path(__file__).parent / "vectors"
GOLDEN = Path(__file__).parents[3] / "shared/golden"
COLLECTION = "/apis/serving.kserve.io/v1beta1/namespaces/${ns}/inferenceservices"
SERVER = {"creationTimestamp": "<time>", "namespace": "${ns}", "resourceVersion": "<rv>", "uid": "<uid>"}
DEFAULT_TYPES = {"POST": "json", "PUT": "json", "PATCH": "merge"}
TYPES = {
    "json": "application/json",
    "yaml": "application/yaml",
    "merge": "application/merge-patch+json",
    "patch": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
    "strategic": "application/strategic-merge-patch+json",
}
ABSENT = "@absent"


def load(topic: str = "*") -> Iterator[Body]:
    """The vectors of a topic, or all, in the recordings' form."""
    shared = json.loads((FOLDER / "shared.json").read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob(f"{topic}.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield _vector(json.loads(line), path.stem, shared)


def recorded() -> Iterator[Body]:
    """The recordings themselves; none where there are none."""
    path = GOLDEN / "kubernetes-api.jsonl"
    if path.exists():
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def _vector(short: Body, topic: str, shared: Body) -> Body:
    response = _expanded(short["response"], shared)
    headers = {"content-type": "application/json"} | response.get("headers", {})
    vector = {
        "name": short["name"],
        "topic": topic,
        "note": short.get("note", ""),
        "setup": [_call(call, shared) for call in short.get("setup", ())],
        "request": _call(short["request"], shared),
        "during": [_call(call, shared) for call in short.get("during", ())],
        "response": response | {"headers": headers},
    }
    return vector if short.get("namespace") is False else vector | {"namespace": "fresh"}


def _call(short: list[Any], shared: Body) -> Body:
    missing: list[Any] = [ABSENT, {}]
    method, path, body, options = [*short, *missing[len(short) - 2 :]]
    path = COLLECTION + path[1:] if path.startswith("@") else path
    call = {"method": method, "path": path, "status": 201 if method == "POST" else 200}
    call |= {key: value for key, value in options.items() if key in ("bodyText", "bodyGen", "noauth", "status")}
    headers = {"Accept": _expanded(options.get("accept", "application/json"), shared), **options.get("headers", {})}
    has_body = body != ABSENT or "bodyText" in options or "bodyGen" in options
    kind = options.get("type", DEFAULT_TYPES.get(method) if has_body else None)
    if kind:
        headers["Content-Type"] = TYPES.get(kind, kind)
    if body != ABSENT:
        call["body"] = _expanded(body, shared)
    return call | {"headers": headers}


def _expanded(value: Any, shared: Body) -> Any:
    if isinstance(value, str):
        return shared.get(value, value)
    if isinstance(value, list):
        return [_expanded(item, shared) for item in value]
    if not isinstance(value, dict):
        return value
    if "@failure" in value:
        head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        return head | _expanded(value["@failure"], shared)
    for key in ("@isvc", "@stored"):
        if key in value:
            return _service(value, key, shared)
    return {key: _expanded(item, shared) for key, item in value.items()}


def _service(short: Body, key: str, shared: Body) -> Body:
    metadata = dict(_expanded(short[key], shared))
    if key == "@stored":
        metadata = {"generation": 1} | SERVER | metadata
        if metadata["generation"] is None:
            del metadata["generation"]
    rest = {name: _expanded(item, shared) for name, item in short.items() if name != key}
    # The order is that in which the recorded bodies were sent.
    made = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata}
    made["spec"] = rest.pop("spec", shared["@spec"])
    if made["spec"] == ABSENT:
        del made["spec"]
    return made | rest
