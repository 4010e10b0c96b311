"""Replays one recorded vector against an API and tells the differences."""

from __future__ import annotations

import itertools
import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

Body = dict[str, Any]
HEADERS = ("content-type", "warning", "retry-after", "allow", "vary")
PATTERNS = {
    "uid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "rv": r"\d+",
    "suffix": r"[a-z0-9]{5}",
    "age": r"\d+[smhdy](\d+[smhd])?",
}
MANAGED_FIELDS = re.compile(r"  managedFields:\n(  [ -].*\n)+?(?=  \w)")
numbers = itertools.count()


@dataclass
class Replay:
    """One vector being replayed: what its templates stand for, and the versions seen of each object.

    Its watches last `patience` times as long as when it was recorded.
    """

    client: httpx.Client
    patience: int = 1
    known: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[str]] = field(default_factory=dict)

    def fill(self, value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{([^}]+)\}", lambda m: self.known.get(m[1], m[0]), value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return {self.fill(key): self.fill(item) for key, item in value.items()} if isinstance(value, dict) else value

    def request(self, call: Body) -> httpx.Request:
        headers = {**call.get("headers", {})}
        if "bodyGen" in call:
            note = {"note": "x" * call["bodyGen"]["annotationBytes"]}
            content = json.dumps(
                {
                    "apiVersion": "serving.kserve.io/v1beta1",
                    "kind": "InferenceService",
                    "metadata": {"name": "a", "annotations": note},
                }
            )
        else:
            content = (
                self.fill(call["bodyText"])
                if "bodyText" in call
                else json.dumps(self.fill(call["body"]))
                if "body" in call
                else ""
            )
        path = re.sub(
            r"(?<=timeoutSeconds=)\d+", lambda found: str(int(found[0]) * self.patience), self.fill(call["path"])
        )
        request = self.client.build_request(call["method"], path, content=content, headers=headers)
        if call.get("noauth"):
            del request.headers["authorization"]
        if "Content-Type" not in headers:
            request.headers.pop("content-type", None)
        return request

    def send(self, call: Body) -> httpx.Response:
        response = self.client.send(self.request(call))
        self.learn(response)
        return response

    def learn(self, response: httpx.Response) -> None:
        try:
            body = response.json()
        except ValueError:
            return
        metadata = body.get("metadata") if isinstance(body, dict) else None
        if not isinstance(metadata, dict):
            return
        if "items" in body:
            self.known["listrv"] = metadata.get("resourceVersion", "")
            self.known["continue"] = metadata.get("continue", "")
        elif "name" in metadata and "resourceVersion" in metadata:
            name, version = metadata["name"], metadata["resourceVersion"]
            seen = self.versions.setdefault(name, [])
            if not seen or seen[-1] != version:
                seen.append(version)
            self.known |= {f"rv:{name}": version, f"oldrv:{name}": seen[-2] if len(seen) > 1 else ""}
            self.known[f"uid:{name}"] = metadata.get("uid", "")


def compare(expected: Any, actual: Any, at: str = "") -> list[str]:
    """Differences; a placeholder such as <uid> in the expectation stands for anything of its form."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [f"{at}: missing {key}" for key in expected if key not in actual]
        found += [f"{at}: unexpected {key}" for key in actual if key not in expected]
        return found + [
            d for key in expected.keys() & actual.keys() for d in compare(expected[key], actual[key], f"{at}.{key}")
        ]
    if isinstance(expected, list) and isinstance(actual, list):
        found = [] if len(expected) == len(actual) else [f"{at}: {len(actual)} items, expected {len(expected)}"]
        pairs = enumerate(zip(expected, actual, strict=False))
        return found + [d for index, (e, a) in pairs for d in compare(e, a, f"{at}[{index}]")]
    if isinstance(expected, str) and isinstance(actual, str) and "<" in expected:
        pattern = re.sub(
            r"<(\w+)>", lambda m: PATTERNS.get(m[1], ".+?"), re.escape(expected).replace(r"\<", "<").replace(r"\>", ">")
        )
        if re.fullmatch(pattern, actual, re.DOTALL):
            return []
    same = expected == actual and type(expected) is type(actual)
    return [] if same else [f"{at}: {actual!r}, expected {expected!r}"]


def subset(expected: Any, actual: Any) -> Any:
    """What of `actual` a trimmed expectation speaks of."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return {key: subset(value, actual[key]) for key, value in expected.items() if key in actual}
    if isinstance(expected, list) and isinstance(actual, list) and all(isinstance(item, dict) for item in expected):
        return [
            subset(item, twin)
            for item in expected
            for twin in [next((a for a in actual if identity(a) == identity(item)), None)]
        ]
    return actual


def identity(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    keys = (
        item.get("name"),
        item.get("resource"),
        item.get("version"),
        item.get("subresource"),
        item.get("groupVersion"),
    )
    return (keys, (item.get("metadata") or {}).get("name"))


def without_managed_fields(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_managed_fields(item) for key, item in value.items() if key != "managedFields"}
    return [without_managed_fields(item) for item in value] if isinstance(value, list) else value


def check(vector: Body, replay: Replay, response: httpx.Response, changed: bool) -> list[str]:
    expected = replay.fill(vector["response"])
    found = (
        [] if response.status_code == expected["status"] else [f"status {response.status_code}: {response.text[:300]}"]
    )
    for name in HEADERS:
        given = expected.get("headers", {}).get(name)
        if name == "content-type" or given is not None:
            found += compare(given, response.headers.get(name), name)
    text = expected.get("body")
    if isinstance(text, str):
        shown = MANAGED_FIELDS.sub("", response.text)
        return found + compare(text, shown, "body")
    actual = response.json()
    if "managedFields" not in json.dumps(text):
        actual = without_managed_fields(actual)
    found += compare_body(vector, text, actual)
    facts = vector["response"].get("facts", {})
    if "resourceVersionChanged" in facts and facts["resourceVersionChanged"] != changed:
        found.append(f"resourceVersion changed: {changed}")
    return found


def compare_body(vector: Body, expected: Any, actual: Any) -> list[str]:
    note = vector.get("note", "")
    if "$shape" in expected:
        return check_shape(expected, actual)
    if vector["topic"] == "discovery":
        return compare(expected, subset(expected, actual), "body")
    if "items reduced" in note and all(set(item) == {"metadata"} for item in expected["items"]):
        actual = actual | {"items": [{"metadata": {"name": item["metadata"]["name"]}} for item in actual["items"]]}
    if "order of causes varies" in note:
        expected, actual = sorted_causes(expected), sorted_causes(actual)
    return compare(expected, actual, "body")


def sorted_causes(status: Body) -> Body:
    causes = sorted(status["details"]["causes"], key=lambda cause: str(cause["field"]))
    message = sorted(
        re.split(r", (?=[\w.<>\[\]]+: )", re.sub(r"[\[\]]", "", status["message"].split(" is invalid: ")[1]))
    )
    return status | {"message": message, "details": status["details"] | {"causes": causes}}


def check_shape(expected: Body, actual: Body) -> list[str]:
    found = [
        f"{key} is no {kind}" for key, kind in expected["$shape"].items() if type(actual.get(key)).__name__ != kind
    ]
    found += [f"path {path} is missing" for path in expected["paths"] if path not in actual["paths"]]
    if "schemaNames" in expected:
        schemas = actual["components"]["schemas"]
        found += [f"schema {name} is missing" for name in expected["schemaNames"] if name not in schemas]
        service, wanted = schemas["io.kserve.serving.v1beta1.InferenceService"], dict(expected["InferenceService"])
        found += compare(wanted.pop("keys"), sorted(service), "keys")
        found += compare(wanted.pop("properties"), sorted(service["properties"]), "properties")
        found += compare(wanted.pop("metadata"), service["properties"]["metadata"], "metadata")
        found += compare(wanted["x-kubernetes-group-version-kind"], service["x-kubernetes-group-version-kind"], "kind")
        item = actual["paths"]["/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices/{name}"]
        for method, shape in expected["path {name}"].items():
            if method == "parameters":
                found += compare(shape, sorted(p["name"] for p in item[method]), method)
            else:
                operation = item[method]
                types = sorted(operation.get("requestBody", {}).get("content", {}))
                mine = [
                    operation["operationId"],
                    operation["x-kubernetes-action"],
                    sorted(p["name"] for p in operation["parameters"]),
                    types,
                ]
                found += compare(shape, mine, method)
    if "entry" in expected:
        entry = actual["paths"]["apis/serving.kserve.io/v1beta1"]
        found += compare(expected["entry"], entry, "entry")
    return found


def watch(vector: Body, replay: Replay) -> list[str]:
    """Opens the watch, sends what happens meanwhile, compares the events."""
    expected = replay.fill(vector["response"])
    events: list[Any] = []
    headers: dict[str, str] = {}
    opened = threading.Event()

    def follow() -> None:
        request = replay.request(vector["request"])
        request.extensions = {"timeout": {"connect": 60, "read": 100, "write": 60, "pool": 60}}
        response = replay.client.send(request, stream=True)
        headers.update(response.headers)
        opened.set()
        for line in response.iter_lines():
            events.append(json.loads(line))

    thread = threading.Thread(target=follow)
    thread.start()
    assert opened.wait(60)
    for call in vector.get("during", ()):
        time.sleep(0.05)
        replay.send(call)
    thread.join()
    return compare(expected["headers"]["content-type"], headers.get("content-type"), "content-type") + compare(
        expected["events"], without_managed_fields(events), "events"
    )


def run(vector: Body, client: httpx.Client, patience: int = 1) -> list[str]:
    """Replays one vector; the differences."""
    replay = Replay(client, patience)
    if vector.get("namespace") == "fresh":
        replay.known["ns"] = f"v{os.getpid()}-{next(numbers)}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": replay.known["ns"]}}
        client.post("/api/v1/namespaces", json=body).raise_for_status()
    found = []
    for call in vector["setup"]:
        if call["method"] != "COMPACT":
            status = replay.send(call).status_code
            found += [] if status == call["status"] else [f"setup {call['method']} {call['path']}: {status}"]
    if "events" in vector["response"]:
        return found + watch(vector, replay)
    before = dict(replay.known)
    response = replay.send(vector["request"])
    changed = any(replay.known[key] != before.get(key) for key in replay.known if key.startswith("rv:"))
    return found + check(vector, replay, response, changed)
