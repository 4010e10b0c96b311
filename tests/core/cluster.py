"""A Kubernetes API in memory, with KServe's controller as the sandbox decides it: acts run against it step by step.

The controller moves only when an act waits: one status event a time. So every interleaving can be written down.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kanary import manifests, release
from kanary.errors import ApiError
from kanary.kubernetes import SELF_REVIEW, Act, Change, Document, Step, Together
from kanary.operations import Request
from sandbox.kserve.config import Config
from sandbox.kserve.runtimes import Runtime
from tests.core.rights import allowed
from tests.kserve.replay import CRASH, World

T = TypeVar("T")
NAMESPACE = "ns"
RUNTIME: Document = {
    "supportedModelFormats": [{"name": "kanary", "autoSelect": True}],
    "containers": [{"name": "kserve-container", "image": "i", "command": ["serve"]}],
}


class Killed(BaseException):
    """The process that runs an act ends here."""


@dataclass
class ModelWorld(World):
    """The controller's world, with a runtime for Kanary's models."""

    runtimes: tuple[Runtime, ...] = (Runtime("kanary", RUNTIME, {}, "", True),)


@dataclass
class Cluster:
    """One namespace with one InferenceService `m`. `bad` are the storage URIs whose servers crash, `slow` hang."""

    user: str = "operator"
    objects: dict[str, Document] = field(default_factory=dict)
    world: ModelWorld = field(default_factory=lambda: ModelWorld(config=Config()))
    bad: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    version: int = 0
    now: float = 1_800_000_000.0
    published: int = 0  # of the world's statuses
    sent: list[Request] = field(default_factory=list)
    splits: list[dict[str, int]] = field(default_factory=list)
    before_request: Callable[[Request], None] | None = None
    backwards: bool = False  # of requests sent at once the last is answered first

    def clock(self) -> float:
        return self.now

    def run(self, act: Act[T], kill_after: int | None = None) -> T:
        """The act's result. With `kill_after`, its process is killed after that many requests that change something."""
        answer: Any = None
        error: ApiError | None = None
        changes = 0
        while True:
            try:
                step: Step = act.send(answer) if error is None else act.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer, error = None, None
            if isinstance(step, Change):
                answer = self._wait(step)
                continue
            requests = step.requests if isinstance(step, Together) else (step,)
            answers: list[Document | ApiError] = []
            for request in reversed(requests) if self.backwards else requests:
                if kill_after is not None and request.changes and request.path != SELF_REVIEW:
                    if changes == kill_after:
                        act.close()
                        raise Killed
                    changes += 1
                try:
                    answers.append(self.send(request))
                except ApiError as failed:
                    answers.append(failed)
            if self.backwards:
                answers.reverse()
            if isinstance(step, Together):
                answer = answers
            elif isinstance(answers[0], ApiError):
                error = answers[0]
            else:
                answer = answers[0]

    def send(self, request: Request) -> Document:
        """One request, as the API server answers it."""
        self.sent.append(request)
        allowed(request)
        if self.before_request is not None:
            self.before_request(request)
        if request.path == SELF_REVIEW:
            return {"status": {"userInfo": {"username": self.user}}}
        body: Any = copy.deepcopy(request.body)
        if request.method == "POST":
            path = f"{request.path}/{body['metadata']['name']}"
            if path in self.objects:
                raise ApiError(f"{path} exists", status=409)
            return self._store(path, body)
        found = self.objects.get(request.path)
        if found is None:
            if request.method == "GET" and request.path.rpartition("/")[2] in ("inferenceservices", "configmaps"):
                items = [copy.deepcopy(o) for path, o in self.objects.items() if path.startswith(request.path + "/")]
                return {"items": items}
            raise ApiError(f"{request.path} not found", status=404)
        if request.method == "GET":
            return copy.deepcopy(found)
        asked = (body.get("metadata") or {}).get("resourceVersion")
        if asked and asked != found["metadata"]["resourceVersion"]:
            raise ApiError("conflict", status=409)
        return self._store(request.path, merged(found, body) if request.method == "PATCH" else body)

    def touch(self, **changes: Any) -> None:
        """Somebody writes to the InferenceService with kubectl: a merge patch of its spec.predictor."""
        self.send(Request("PATCH", path("m"), body={"spec": {"predictor": changes}}))

    def settle(self) -> None:
        """The controller goes on until nothing changes."""
        while self._move():
            pass

    @property
    def service(self) -> Document:
        return self.objects[path("m")]

    @property
    def state(self) -> release.State:
        return release.parse(self.objects.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/kanary-m"))

    def _store(self, path: str, body: Document) -> Document:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = json.loads(json.dumps(body))
        return copy.deepcopy(body)

    def _wait(self, step: Change) -> Document | None:
        name = step.name
        allowed(Request("GET", step.collection, {"watch": "true"}))
        current = self.objects.get(path(name))
        if current is not None and current["metadata"]["resourceVersion"] != step.resource_version:
            return copy.deepcopy(current)
        if self._move():
            return copy.deepcopy(self.objects[path(name)])
        self.now += step.seconds
        return None

    def _move(self) -> bool:
        """One more status event; whether there was one."""
        service = self.objects.get(path("m"))
        if service is None:
            return False
        if self.published == len(self.world.statuses):
            spec = {key: value for key, value in service.items() if key != "status"}
            self.world.now = self.now
            self.world.reconcile(spec)
            if self.published == len(self.world.statuses):
                self._servers(spec)
        if self.published == len(self.world.statuses):
            return False
        status = self.world.statuses[self.published]
        self.published += 1
        self._store(path("m"), copy.deepcopy(service) | {"status": status})
        self.splits.append(shares(self.service))
        return True

    def _servers(self, service: Document) -> None:
        for name in self.world.starting():
            revision = self.world.known["predictor"].revision(name)
            assert revision is not None
            uri = json.dumps(revision.template.document)
            if any(f'"{known}"' in uri for known in self.slow):
                continue
            if any(f'"{known}"' in uri for known in self.bad):
                self.world.answer(service, name, state="failed", ready=False, failure=CRASH)
            else:
                self.world.answer(service, name)
            return


def path(name: str) -> str:
    return f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices/{name}"


def manifest(number: int, **more: Any) -> Document:
    """The InferenceService of the model of that number."""
    return manifests.inference_service("m", NAMESPACE, f"s3://models/{number}", f"v{number}", digest(number), **more)


def digest(number: int) -> str:
    return f"sha256:{number}"


def shares(service: Document) -> dict[str, int]:
    """Percent by storage-free revision number."""
    traffic = service["status"].get("components", {}).get("predictor", {}).get("traffic", [])
    found: dict[str, int] = {}
    for entry in traffic:
        number = entry["revisionName"][-2:]
        found[number] = found.get(number, 0) + entry["percent"]
    return {number: percent for number, percent in found.items() if percent}


def merged(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found
