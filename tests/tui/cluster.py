"""A Kubernetes API with InferenceServices as KServe leaves them, and a Prometheus that says what it is told to."""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kanary import manifests, release
from kanary.release import Denial, Intent, Release, State
from tests.kubernetes.server import Server
from tests.tui.drift import FakeDrift

Json = dict[str, Any]
_numbers = itertools.count(1)
SERVING = "/apis/serving.kserve.io/v1beta1"


@dataclass(frozen=True)
class Namespace:
    """A namespace of its own in a running API, and what can be put there."""

    server: Server
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        return {"kubeconfig": str(self.server.kubeconfig), "namespace": self.name}

    def put(self, service: str, percent: int | None = None, effective: int | None = None, **more: Any) -> None:
        """A service with v1 as stable and, with a percentage, v2 as its canary; its status as KServe writes it."""
        document = manifests.inference_service(
            service, self.name, "s3://models/2", "v2" if percent is not None else "v1", "sha256:2", percent
        )
        with self.server.client() as client:
            path = f"{SERVING}/namespaces/{self.name}/inferenceservices"
            answer = client.post(path, json=document)
            if answer.status_code == 409:
                known = client.get(f"{path}/{service}").json()
                answer = client.put(f"{path}/{service}", json=known | {"spec": document["spec"]})
            answer.raise_for_status()
        self.status(service, percent, effective, **more)

    def put_standard(self, service: str, percent: int, effective: int) -> None:
        """A service in Standard mode with v1 as stable and v2 as its canary, and its route."""
        document = manifests.inference_service(
            service, self.name, "s3://models/1", "v1", "sha256:1", mode=manifests.STANDARD
        )
        predictor = {"name": "r2", "model": {"modelFormat": {"name": "kanary"}, "storageUri": "s3://models/2"}}
        document["spec"]["canary"] = [{"trafficPercent": percent, "predictor": predictor}]
        told = {
            "deploymentMode": "Standard",
            "components": {"predictor": {"url": f"http://{service}-predictor"}},
            "canaryStatuses": [{"name": "r2", "ready": True, "trafficPercent": percent}],
            "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "PredictorReady")],
        }
        path = f"{SERVING}/namespaces/{self.name}/inferenceservices"
        with self.server.client() as client:
            self.route(service, effective)
            client.post(path, json=document).raise_for_status()
            headers = {"content-type": "application/merge-patch+json"}
            patch = json.dumps({"status": told})
            client.patch(f"{path}/{service}/status", content=patch, headers=headers).raise_for_status()

    def route(self, service: str, percent: int) -> None:
        """Where a service in Standard mode sends its traffic."""
        shares = ((f"{service}-predictor", 100 - percent), (f"{service}-r2-predictor", percent))
        backends = [{"name": name, "port": 80, "weight": weight} for name, weight in shares]
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{self.name}/httproutes"
        body = {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": f"{service}-predictor", "namespace": self.name},
            "spec": {"rules": [{"backendRefs": backends}]},
        }
        with self.server.client() as client:
            answer = client.post(path, json=body)
            if answer.status_code == 409:
                headers = {"content-type": "application/merge-patch+json"}
                patch = json.dumps({"spec": body["spec"]})
                answer = client.patch(f"{path}/{service}-predictor", content=patch, headers=headers)
            answer.raise_for_status()

    def status(self, service: str, percent: int | None = None, effective: int | None = None, **more: Any) -> None:
        """The controller's words on it."""
        body = {"status": status(service, percent, effective, **more)}
        with self.server.client() as client:
            path = f"{SERVING}/namespaces/{self.name}/inferenceservices/{service}/status"
            headers = {"content-type": "application/merge-patch+json"}
            client.patch(path, content=json.dumps(body), headers=headers).raise_for_status()

    def document(self, service: str) -> Json:
        with self.server.client() as client:
            found: Json = client.get(f"{SERVING}/namespaces/{self.name}/inferenceservices/{service}").json()
        return found

    def remember(self, service: str, state: State | None = None) -> None:
        """What Kanary remembers of it: v1 promoted, v2 as its canary."""
        document = release.document(state or remembered(service), service, self.name)
        with self.server.client() as client:
            client.post(f"/api/v1/namespaces/{self.name}/configmaps", json=document).raise_for_status()

    def delete(self, service: str) -> None:
        with self.server.client() as client:
            client.delete(f"{SERVING}/namespaces/{self.name}/inferenceservices/{service}").raise_for_status()

    def happened(self, service: str, reason: str, message: str, kind: str = "Normal", name: str = "") -> None:
        """A Kubernetes event about it."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name or f"{service}.{next(_numbers)}", "namespace": self.name},
            "involvedObject": {"kind": "InferenceService", "name": service, "namespace": self.name},
            "reason": reason,
            "message": message,
            "type": kind,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        with self.server.client() as client:
            client.post(f"/api/v1/namespaces/{self.name}/events", json=event).raise_for_status()


def status(service: str, percent: int | None, effective: int | None = None, **more: Any) -> Json:
    """A status of KServe in Knative mode, at rest or during a canary."""
    old, new = f"{service}-predictor-00001", f"{service}-predictor-00002"
    ready = more.get("ready", True)
    share = (percent if effective is None else effective) or 0
    if percent is None:
        names = ("latestCreatedRevision", "latestReadyRevision", "latestRolledoutRevision")
        component: Json = dict.fromkeys(names, old)
        component["traffic"] = [{"revisionName": old, "percent": 100, "latestRevision": True}]
    else:
        component = {"latestCreatedRevision": new, "latestReadyRevision": new if ready else old}
        component |= {"latestRolledoutRevision": old}
        component["traffic"] = [
            {"revisionName": new, "percent": share, "latestRevision": True, "tag": "latest", "url": "http://latest"},
            {"revisionName": old, "percent": 100 - share, "latestRevision": False, "tag": "prev", "url": "http://prev"},
        ]
    model: Json = {"transitionStatus": "UpToDate"}
    if more.get("failure"):
        info = {"reason": "ModelLoadFailed", "message": more["failure"]}
        model = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": info}
    return {
        "deploymentMode": "Knative",
        "url": f"http://{service}.example.com",
        "components": {"predictor": component},
        "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        "modelStatus": model,
    }


def remembered(service: str) -> State:
    def entry(number: int, verdict: str) -> Release:
        predictor: Json = {"annotations": {"model-version": f"v{number}", "model-digest": f"sha256:{number}"}}
        predictor |= {
            "minReplicas": 1,
            "model": {"modelFormat": {"name": "kanary"}, "storageUri": f"s3://models/{number}"},
        }
        return Release(
            f"v{number}",
            f"s3://models/{number}",
            f"sha256:{number}",
            predictor,
            run_id=f"run-{number}",
            who="ada",
            when=f"2026-11-20T0{number}:00:00.000Z",
            why=f"why {number}",
            revision=f"{service}-predictor-0000{number}",
            verdict=verdict,
        )

    denial = Denial("sha256:0", "v0", "bob", "2026-11-19T00:00:00.000Z", "it was slow")
    intent = Intent(
        release.SET_TRAFFIC, "ada", "2026-11-20T03:00:00.000Z", phase=release.DONE, percent=20, version="v2"
    )
    return State(3, intent, (entry(1, release.PROMOTED), entry(2, release.CANARY)), (denial,))


@dataclass
class FakePrometheus:
    """Answers queries of the Envoy profile from `rates`: revision -> (requests/s, errors/s, p50, p99).

    Latencies are in milliseconds. `override` answers in its place where it is set.
    """

    namespace: str = ""
    rates: dict[str, tuple[float, float, float, float]] = field(default_factory=dict)
    alerts: list[Json] = field(default_factory=list)  # labels of those that fire
    fired: float = field(default_factory=lambda: time.time() - 120)
    drift: FakeDrift | None = None  # a drift detector's metrics, too
    override: Response | None = None
    held: threading.Event = field(default_factory=threading.Event)  # cleared: answers wait
    asked: list[str] = field(default_factory=list)
    heard: list[dict[str, str]] = field(default_factory=list)  # the headers of each request
    port: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.held.set()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        app = Starlette(routes=[Route("/api/v1/query", self._query), Route("/api/v1/query_range", self._range)])
        made = uvicorn.Config(
            app, log_config=None, access_log=False, log_level="critical", lifespan="off", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(made)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def stop(self) -> None:
        self.held.set()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(60)
            assert not self._thread.is_alive()
            self._server = self._thread = None

    def _query(self, request: Request) -> Response:
        query = request.query_params["query"]
        self.asked.append(query)
        self.heard.append(dict(request.headers))
        self.held.wait(30)
        if self.override is not None:
            return self.override
        if self.drift is not None and "kanary_drift" in query:
            return JSONResponse({"status": "success", "data": self.drift.answer(request.query_params)})
        now = float(request.query_params.get("time") or time.time())
        if query == "time()":
            return _answer("scalar", [now, str(now)])
        if query.startswith("max(count_over_time"):
            there = "upstream_rq_completed" in query and self.rates
            count = 0 if not there else 120 if "[60s]" in query else 600
            return _answer("vector", [{"metric": {}, "value": [now, str(count)]}] if count else [])
        return _answer("vector", [{"metric": labels, "value": [now, value]} for labels, value in self._series(query)])

    def _range(self, request: Request) -> Response:
        query, ask = request.query_params["query"], request.query_params
        start, end, step = (float(ask[key]) for key in ("start", "end", "step"))
        if self.override is not None:
            return self.override
        if self.drift is not None and "kanary_drift" in query:
            return JSONResponse({"status": "success", "data": self.drift.answer(ask)})
        times = [start + step * index for index in range(math.floor((end - start) / step + 1e-6) + 1)]
        if query.startswith("ALERTS"):
            since = [[at, "1"] for at in times if at >= self.fired]
            found = [{"metric": labels, "values": since} for labels in self.alerts]
            return _answer("matrix", found)
        result = [{"metric": labels, "values": [[at, value] for at in times]} for labels, value in self._series(query)]
        return _answer("matrix", result)

    def _series(self, query: str) -> list[tuple[Json, str]]:
        if "histogram_quantile(0.5" in query:
            part = 2
        elif "histogram_quantile(0.99" in query:
            part = 3
        elif "rq_xx" in query:
            part = 1
        elif "rq_completed" in query:
            part = 0
        else:
            return []
        return [
            ({"namespace": self.namespace, "revision": revision}, str(numbers[part]))
            for revision, numbers in self.rates.items()
        ]


def _answer(kind: str, result: Any) -> Response:
    return JSONResponse({"status": "success", "data": {"resultType": kind, "result": result}})


@contextmanager
def prometheus(fake: FakePrometheus) -> Iterator[FakePrometheus]:
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()


def new_namespace(server: Server) -> Namespace:
    """A fresh namespace."""
    name = f"m{os.getpid()}-{next(_numbers)}"
    with server.client() as client:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        client.post("/api/v1/namespaces", json=body).raise_for_status()
    return Namespace(server, name)


def kubeconfig(path: Path, url: str, token: str = "t", context: str = "somewhere") -> Path:
    """A kubeconfig file of one server."""
    document = {
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "current-context": context,
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path
