"""Whatever a client sends, the API answers and lives on."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kubernetes.server import Server

Body = dict[str, Any]
KSERVE = "/apis/serving.kserve.io/v1beta1/namespaces/default"
CORE = "/api/v1/namespaces/default"
CONTAINER = {"name": "c", "ports": [{"containerPort": 1}], "env": [{"name": "A", "value": "b"}]}
METADATA = {
    "name": "a",
    "labels": {"x": "1"},
    "annotations": {"k": "v"},
    "finalizers": ["a.b/c"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"}],
    "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:spec": {}}}],
}
PREDICTOR = {
    "minReplicas": 1,
    "model": {"modelFormat": {"name": "x"}},
    "containers": [CONTAINER],
    "logger": {"mode": "all"},
}
OBJECTS: dict[str, Body] = {
    f"{KSERVE}/inferenceservices": {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": METADATA,
        "spec": {"predictor": PREDICTOR, "canary": [{"trafficPercent": 1, "predictor": {"name": "c"}}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    },
    f"{CORE}/configmaps": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": METADATA, "data": {"k": "v"}},
    f"{CORE}/secrets": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "dg=="}},
    f"{CORE}/pods": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": METADATA,
        "spec": {"containers": [CONTAINER]},
        "status": {"containerStatuses": [{"ready": True, "state": {"waiting": {"reason": "x"}}}]},
    },
    f"{CORE}/events": {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a"},
        "involvedObject": {"kind": "X", "namespace": "default"},
        "series": {"count": 1, "lastObservedTime": "2026-01-01T00:00:00Z"},
    },
    "/apis/coordination.k8s.io/v1/namespaces/default/leases": {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "a"},
        "spec": {"leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00Z"},
    },
}
JUNK: list[Any] = [None, 5, -1, 1.5, True, "", "x", [], {}, [1], {"a": 1}, [None], [{}], {"x": None}, "a" * 300, 10**30]
QUERY = [
    *("dryRun", "fieldManager", "fieldValidation", "force", "labelSelector", "fieldSelector", "limit", "continue"),
    *("resourceVersion", "resourceVersionMatch", "pretty", "propagationPolicy", "gracePeriodSeconds"),
    *("sendInitialEvents", "includeObject", "orphanDependents"),
]
VALUES = ["", "All", "x", "true", "0", "-1", "Strict", "a=b", "metadata.name=a", "a in (b", "Exact", "Orphan", "eyJ9"]
OPERATIONS = ["add", "remove", "replace", "test", "move", "copy", "x"]
PATCHES = [f"application/{kind}" for kind in ("merge-patch+json", "apply-patch+yaml", "strategic-merge-patch+json")]
JSON_PATCH = "application/json-patch+json"
ACCEPTED = [
    "application/json",
    "application/yaml",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    "text/html",
    "a;b=;c,;,",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def spoiled(value: Any, chance: random.Random) -> Any:
    """A copy in which some places hold junk, or nothing."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice([0, 1, 1, 2])):
        path = chance.choice(list(places(value)))
        if not path:
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if chance.random() < 0.15:
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(chance.choice(JUNK))
    return value


def operation(value: Any, chance: random.Random) -> Body:
    pointers = ["/" + "/".join(map(str, path)) for path in places(value)]
    made = {"op": chance.choice(OPERATIONS), "path": chance.choice(pointers), "from": chance.choice(pointers)}
    return spoiled(made | {"value": chance.choice(JUNK)}, chance)  # type: ignore[no-any-return]


def send(client: httpx.Client, chance: random.Random) -> httpx.Response:
    collection = chance.choice(list(OBJECTS))
    method = chance.choice(["POST", "POST", "PUT", "PATCH", "PATCH", "PATCH", "DELETE", "GET"])
    path = collection if method == "POST" or chance.random() < 0.1 else f"{collection}/{chance.choice('aab')}"
    path += "/status" if chance.random() < 0.15 else ""
    query = {chance.choice(QUERY): chance.choice(VALUES) for _ in range(chance.choice([0, 0, 1, 2]))}
    body: Any = spoiled(OBJECTS[collection], chance)
    kind = "application/json"
    if method == "PATCH":
        kind = chance.choice([*PATCHES, JSON_PATCH])
        query |= {"fieldManager": chance.choice(["m", "kubectl"])}
        if kind == JSON_PATCH:
            body = [operation(OBJECTS[collection], chance) for _ in range(chance.choice([0, 1, 2]))]
    elif method == "DELETE":
        body = spoiled({"kind": "DeleteOptions", "preconditions": {"uid": "x"}, "dryRun": ["All"]}, chance)
    content = json.dumps(body).encode()
    if chance.random() < 0.05:
        content = content[: chance.randrange(len(content))]
    if chance.random() < 0.02:
        content = chance.randbytes(40)
    headers = {"Content-Type": kind, "Accept": chance.choice(ACCEPTED) if chance.random() < 0.2 else kind[:16]}
    return client.request(method, path, params=query, content=b"" if method == "GET" else content, headers=headers)


def survives(server: Server, requests: int, seed: int) -> None:
    chance = random.Random(seed)
    with server.client() as client:
        for _ in range(requests):
            answer = send(client, chance)
            assert "Internal error" not in answer.text, (answer.request.url, answer.request.content)
        assert client.get("/readyz").text == "ok"
    log = (server.home / "api.log").read_text(encoding="utf-8")
    assert "Traceback" not in log, log[-3000:]


@pytest.mark.parametrize("options", [("--default-mode", "Standard"), ("--no-admission",)], ids=["admission", "bare"])
def test_malformed_requests_break_nothing(
    options: tuple[str, ...], tmp_path: Path, kube_start: Callable[..., Server]
) -> None:
    survives(kube_start(tmp_path, "--plain", *options), 1500, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_malformed_requests_break_nothing_for_long(
    seed: int, tmp_path: Path, kube_start: Callable[..., Server]
) -> None:
    survives(kube_start(tmp_path, "--plain"), 20_000, seed)
