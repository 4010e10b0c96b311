"""Drives the controller's pure decisions with servers and a gateway that do at once what they are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.kserve.collection import DEFAULTS, Retention
from sandbox.kserve.config import Config
from sandbox.kserve.decide import RUN, STOP, Decision, decide, put_in_force, wanted_servers
from sandbox.kserve.knative import Components, Document, Failure, Server
from sandbox.kserve.predictor import wish
from sandbox.kserve.runtimes import Runtime
from sandbox.kserve.status import Urls

NAMESPACE = "ns"
URLS = Urls("http://m", "http://127.0.0.1/m", "http://{name}", "http://{tag}-{name}", "http://127.0.0.1/{name}")
CRASH = Failure(3, "cannot load\n")


def inference_service(step: dict[str, Any], status: Document) -> Document:
    """The InferenceService that a recorded step leaves behind."""
    container = {
        "name": "kserve-container",
        "command": ["python3", "-m", "http.server", "8080"],
        "env": [{"name": "MODEL_VERSION", "value": step["version"]}, {"name": "SERVER", "value": step["server"]}],
    }
    predictor: Document = {"containers": [container]}
    if "percent" in step:
        predictor["canaryTrafficPercent"] = step["percent"]
    metadata = {"name": "m", "namespace": NAMESPACE, "annotations": step["annotations"]}
    return {"metadata": metadata | {"labels": step.get("labels", {})}, "spec": {"predictor": predictor}} | {
        "status": status
    }


@dataclass
class World:
    """One InferenceService, its servers and the gateway, in a time of their own."""

    config: Config = field(default_factory=Config)
    now: float = 0.0
    scale_down_s: float = 30.0
    status: Document = field(default_factory=dict)
    entry: str = ""
    known: Components = field(default_factory=dict)
    retention: Retention = DEFAULTS
    runtimes: tuple[Runtime, ...] = ()
    servers: dict[str, Server] = field(default_factory=dict)
    statuses: list[Document] = field(default_factory=list)
    routes: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def reconcile(self, service: Document) -> None:
        """Decide and act until nothing changes."""
        for _ in range(20):
            before = (self.known, self.status, dict(self.servers))
            decision = self._decide(service)
            self._act(decision)
            if before == (self.known, self.status, self.servers):
                return
        raise AssertionError(f"never settles: {self.status}")

    def answer(self, service: Document, name: str, **changes: Any) -> None:
        """A server changes its state; the controller reacts."""
        known = self.servers[name]
        values: dict[str, Any] = {"port": known.port, "state": "ready", "ready": True} | changes
        self.servers[name] = Server(**values)
        self.reconcile(service)

    def starting(self) -> Iterator[str]:
        """Names of the servers that have been told to start and have done nothing since, in their order."""
        yield from [name for name, server in sorted(self.servers.items()) if server.state == "starting"]

    def _decide(self, service: Document) -> Decision:
        wanted = wish(service | {"status": self.status}, self.runtimes, self.config, URLS)
        return decide(wanted, self.status, self.known, self.servers, self.now, f"at {self.now}", self.retention)

    def _act(self, decision: Decision) -> None:
        self.known = decision.components
        if not self.known:
            self.servers.clear()
        for kind, route in decision.routes.items():
            if route != self.known[kind].routed:
                unready = [target.revision for target in route if not self._may_route(kind, target.revision)]
                assert not unready, f"traffic to a revision that never answered: {unready}"
                self.routes.append(route)
        self.known = put_in_force(self.known, decision.routes)
        self.entry = decision.entry
        for status in decision.statuses:
            self.status = status
            self.statuses.append(status)
        self.events += [event.reason for event in decision.events]
        self._move_servers()

    def _may_route(self, kind: str, revision: str) -> bool:
        routed = {target.revision for target in self.known[kind].routed}
        return revision in routed or self.servers[revision].ready

    def _move_servers(self) -> None:
        for name, action in wanted_servers(self.known, self.now, self.scale_down_s, frozenset()).items():
            server = self.servers.get(name)
            if action == RUN and (server is None or not server.running):
                self.servers[name] = Server(port=1000 + int(name[-5:]), state="starting", ready=False)
            elif action == STOP and server is not None and server.running:
                self.servers[name] = Server(port=server.port, state="stopped", ready=False)


def flat(status: Document) -> dict[str, str]:
    """A status as the recordings keep it: one line for each thing that it says."""
    found: dict[str, str] = {}
    for condition in status.get("conditions", []):
        text = f" {condition['reason']}" if "reason" in condition else ""
        text += f": {condition['message']}" if "message" in condition else ""
        found[condition["type"]] = condition["status"] + text
    component = (status.get("components") or {}).get("predictor", {})
    found |= {key: value for key, value in component.items() if key.endswith("Revision")}
    if "traffic" in component:
        found["traffic"] = ", ".join(
            f"{target['percent']} % {target['revisionName']}"
            + (" (latest)" if target["latestRevision"] else "")
            + (f" {target['tag']}" if "tag" in target else "")
            for target in component["traffic"]
        )
    model = status.get("modelStatus")
    if model and model.get("states"):
        states, ready = model["states"], model.get("copies", {}).get("totalCopies", 0)
        was = states["activeModelState"] or "nothing"
        found["model"] = f"{model['transitionStatus']}, {was} to {states['targetModelState']}, {ready} ready"
        if failure := model.get("lastFailureInfo"):
            found["failure"] = f"{failure['reason']} {failure.get('exitCode', 0)}: {failure['message'].strip()}"
    if "url" in status:
        found["url"] = "set"
    if "observedGeneration" in status:
        found["observedGeneration"] = status["observedGeneration"]
    return found
