"""The cluster of `tests.core.cluster` with KServe in Standard mode: what its route says is what its gateway obeys."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from kanary import manifests
from kanary.errors import ApiError
from kanary.kubernetes import Document
from kanary.operations import Request
from sandbox.kserve.knative import Failure
from sandbox.kserve.runtimes import Runtime
from sandbox.modelserver.spec import BACKING_OFF
from tests.core.cluster import NAMESPACE, RUNTIME, Cluster, digest, path
from tests.core.rights import allowed
from tests.kserve.standard_replay import World

ROUTES = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes/"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class StandardWorld(World):
    """The controller's world, with a runtime for Kanary's models."""

    release: str = "next"
    runtimes: tuple[Runtime, ...] = (Runtime("kanary", RUNTIME, {}, "", True),)


@dataclass
class StandardCluster(Cluster):
    """`gateway`: whether there is Gateway API; `accepted`: whether the gateway has taken the newest route."""

    world: Any = field(default_factory=StandardWorld)
    gateway: bool = True
    accepted: bool = True

    def send(self, request: Request) -> Document:
        allowed(request)
        if request.method == "GET" and request.path.startswith(ROUTES):
            return self._route(request.path.removeprefix(ROUTES))
        if request.method == "GET" and request.path == PODS:
            return {"items": self._pods(request.params["labelSelector"].removeprefix("app=isvc."))}
        if request.method == "GET" and request.path.startswith(DEPLOYMENTS):
            return self._deployment(request.path.removeprefix(DEPLOYMENTS))
        return super().send(request)

    @property
    def split(self) -> dict[str, int]:
        """Percent by Deployment, as the gateway obeys."""
        return {one.deployment: one.weight for one in self.world.record.routed if one.weight}

    def deployments(self) -> set[str]:
        return {one.name for one in self.world.record.deployments}

    def _route(self, name: str) -> Document:
        routed = self.world.record.routed if self.world.record else ()
        named = "m-predictor" if self.world.release == "next" else (self.world.record.stable if routed else "")
        if not self.gateway or not routed or name not in ("m", named):
            raise ApiError("not found", status=404)
        stable = self.world.record.stable
        backends = [{"name": one.deployment, "weight": one.weight} for one in routed]
        if self.world.release != "next":
            backends = [{"name": stable}]
        accepted = {"type": "Accepted", "status": "True" if self.accepted else "False"}
        spec = {"rules": [{"backendRefs": backends}]}
        return {"spec": spec, "status": {"parents": [{"conditions": [accepted]}]}}

    def _pods(self, deployment: str) -> list[Document]:
        known = self.world.record.deployment(deployment) if self.world.record else None
        server = self.world.servers.get(known.newest.name) if known is not None else None
        if server is None or server.failure is None:
            return []
        ended = {"exitCode": server.failure.exit_code, "message": server.failure.message}
        container = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}
        return [{"status": {"containerStatuses": [container]}}]

    def _deployment(self, name: str) -> Document:
        known = self.world.record.deployment(name) if self.world.record else None
        if known is None:
            raise ApiError("not found", status=404)
        return {"metadata": {}, "status": {"readyReplicas": known.ready}}

    def _move(self) -> bool:
        service = self.objects.get(path("m"))
        if service is None:
            return False
        if self.published == len(self.world.statuses):
            spec = {key: value for key, value in service.items() if key != "status"}
            spec["metadata"] = spec["metadata"] | {"uid": "u"}
            self.world.now = self.now
            routes = len(self.world.routes)
            self.world.reconcile(spec)
            if self.published == len(self.world.statuses):
                self._servers(spec)
            self.splits += [
                {one.deployment: one.weight for one in route if one.weight} for route in self.world.routes[routes:]
            ]
        if self.published == len(self.world.statuses):
            return False
        status = self.world.statuses[self.published]
        self.published += 1
        self._store(path("m"), json.loads(json.dumps(service)) | {"status": status})
        return True

    def _servers(self, service: Document) -> None:
        for deployment, name in self.world.starting():
            known = self.world.record.deployment(deployment)
            text = json.dumps(known.newest.template.document)
            if any(f'"{uri}"' in text for uri in self.slow):
                continue
            if any(f'"{uri}"' in text for uri in self.bad):
                failure = Failure(3, "cannot load\n")
                self.world.answer(service, name, state=BACKING_OFF, ready=False, failure=failure)
            else:
                self.world.answer(service, name)
            return


def manifest(number: int, **more: Any) -> Document:
    """The InferenceService of the model of that number, in Standard mode."""
    uri = f"s3://models/{number}"
    return manifests.inference_service("m", NAMESPACE, uri, f"v{number}", digest(number), mode="Standard", **more)


def named(number: int) -> str:
    """The Deployment of that model where it came as a canary."""
    return f"m-{manifests.canary_name({'annotations': {manifests.DIGEST: digest(number)}}, '')}-predictor"
