"""Drives the decisions about Standard mode with servers and a gateway that do at once what they are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.kserve import standard
from sandbox.kserve.config import Config
from sandbox.kserve.decide import Problem
from sandbox.kserve.knative import Document, Server
from sandbox.kserve.runtimes import Runtime
from sandbox.kserve.standard import Backend, Standard
from sandbox.kserve.standard_decide import decide, tell
from sandbox.kserve.standard_decide import events as events_of
from sandbox.kserve.standard_wish import FIRST_RELEASE, standard_wish
from sandbox.kserve.status import Urls

NAMESPACE = "ns"
_SERVE = ["python3", "-m", "http.server", "8080"]
_COMMANDS = {
    "good": _SERVE,
    "exits 3": ["python3", "-c", "import sys; print('cannot load', file=sys.stderr); sys.exit(3)"],
    "silent": ["python3", "-c", "import time; time.sleep(9999)"],
}
# What is served by a ClusterServingRuntime in the recordings.
LAB = Runtime(
    "lab-python",
    {
        "supportedModelFormats": [{"name": "lab", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "command": _SERVE}],
    },
    {},
    "",
    cluster=True,
)


def inference_service(step: dict[str, Any], status: Document) -> Document:
    """The InferenceService that a recorded step leaves behind."""
    metadata: Document = {"name": "m", "namespace": NAMESPACE, "uid": "u", "annotations": step["annotations"]}
    spec: Document = {"predictor": _predictor(step["predictor"])}
    if "canaries" in step:
        spec["canary"] = [
            {"trafficPercent": entry["trafficPercent"], "predictor": _predictor(entry)} for entry in step["canaries"]
        ]
    return {"metadata": metadata | {"labels": step.get("labels", {})}, "spec": spec, "status": status}


def _predictor(recorded: Document) -> Document:
    kept = ("name", "minReplicas", "maxReplicas", "canaryTrafficPercent", "terminationGracePeriodSeconds")
    found: Document = {key: recorded[key] for key in kept if key in recorded}
    if "format" in recorded:
        model = {"modelFormat": {"name": recorded["format"]}, "storageUri": recorded["storage"]}
        return found | {"model": model}
    env = [{"name": "MODEL_VERSION", "value": recorded["version"]}]
    if "storage" in recorded:
        env.append({"name": "STORAGE_URI", "value": recorded["storage"]})
    container = {"name": "kserve-container", "command": _COMMANDS[recorded["server"]], "env": env}
    return found | {"containers": [container]}


@dataclass
class World:
    """One InferenceService in Standard mode, its servers and the gateway, in a time of their own."""

    config: Config = field(default_factory=Config)
    release: str = FIRST_RELEASE
    now: float = 0.0
    status: Document = field(default_factory=dict)
    record: Standard | None = None
    servers: dict[str, Server] = field(default_factory=dict)
    statuses: list[Document] = field(default_factory=list)
    routes: list[tuple[Backend, ...]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    problems: tuple[Problem, ...] = ()
    runtimes: tuple[Runtime, ...] = (LAB,)

    def reconcile(self, service: Document) -> None:
        """Decide and act until nothing changes."""
        for _ in range(20):
            before = (self.record, self.status, dict(self.servers))
            self._once(service)
            if before == (self.record, self.status, self.servers):
                return
        raise AssertionError(f"never settles: {self.status}")

    def answer(self, service: Document, name: str, **changes: Any) -> None:
        """A server changes its state; the controller reacts."""
        values: dict[str, Any] = {"port": self.servers[name].port, "state": "ready", "ready": True} | changes
        self.servers[name] = Server(**values)
        self.reconcile(service)

    def linger(self, service: Document) -> None:
        """Time passes until servers that nothing leads to are ended."""
        self.now += standard.LINGER_S + 1
        self.reconcile(service)

    def starting(self) -> Iterator[tuple[str, str]]:
        """Deployment and server of all that have been told to start and have done nothing since."""
        for known in self.record.deployments if self.record else ():
            for revision in known.revisions:
                server = self.servers.get(revision.name)
                if server is not None and server.state == "starting":
                    yield known.name, revision.name

    def _once(self, service: Document) -> None:
        names = [part for part in ("m", service["spec"]["predictor"].get("name"), "predictor") if part]
        stable = "-".join(names)
        at = Urls("http://m", f"http://{stable}", "http://{name}", "", "http://{name}")
        wish = standard_wish(service | {"status": self.status}, self.runtimes, self.config, at)
        decision = decide(wish, self.record, self.servers, self.now, self.release)
        if decision.route != decision.record.routed:
            self.routes.append(decision.route)
        record = standard.put_in_force(decision.record, decision.route, self.now)
        self._move_servers(record)
        ended = standard.due(record, frozenset(), self.now)
        for name in ended:
            self.servers.pop(name, None)
        told = tell(decision, wish, self.status, self.servers, True, f"at {self.now}")
        found = events_of(self.record, decision, wish, self.status, told, self.problems)
        self.events += [event.reason for event in found]
        self.problems = decision.problems
        self.record = standard.forget(record, ended)
        self.statuses += told
        self.status = told[-1] if told else self.status

    def _move_servers(self, record: Standard) -> None:
        for known in record.deployments:
            for revision in known.revisions:
                server = self.servers.get(revision.name)
                if known.replicas and (server is None or not server.running):
                    self.servers[revision.name] = Server(1000 + record.started, "starting", False)
                elif not known.replicas and server is not None and server.running:
                    self.servers[revision.name] = Server(server.port, "stopped", False)


def flat(status: Document) -> dict[str, str]:
    """A status as the recordings keep it: one line for each thing that it says."""
    found: dict[str, str] = {}
    for condition in status.get("conditions", []):
        text = f" {condition['reason']}" if "reason" in condition else ""
        text += f": {condition['message']}" if "message" in condition else ""
        found[condition["type"]] = condition["status"] + re.sub(r"-predictor-[^ \"]+\"", '-predictor-<rs>"', text)
    for canary in status.get("canaryStatuses") or []:
        ready = "ready" if canary["ready"] else "not ready"
        model = canary["modelStatus"]["transitionStatus"]
        found[f"canary {canary['name']}"] = f"{canary['trafficPercent']} %, {ready}{model and ', ' + model}"
    model = status.get("modelStatus")
    if model and "states" in model:
        states, ready = model["states"], model.get("copies", {}).get("totalCopies", 0)
        was = states["activeModelState"] or "nothing"
        found["model"] = f"{model['transitionStatus']}, {was} to {states['targetModelState']}, {ready} ready"
        if failure := model.get("lastFailureInfo"):
            found["failure"] = f"{failure['reason']} {failure.get('exitCode', 0)}: {failure['message'].strip()}"
    for key, where in (
        ("url", status.get("url")),
        ("predictor url", (status.get("components") or {}).get("predictor", {}).get("url")),
        ("address", (status.get("address") or {}).get("url")),
    ):
        if where:
            found[key] = re.sub(r"^http://|[-.](\$\{ns\}|ns)\..*$", "", where)
    for key in ("observedGeneration", "clusterServingRuntimeName", "deploymentMode"):
        if key in status:
            found[key] = str(status[key])
    return found


def deployments(record: Standard | None) -> dict[str, str]:
    """Deployments as the recordings keep them: replicas, ready and available ones, and why they progress."""
    return {
        known.name: f"{known.replicas} wanted, {known.ready + known.old_ready} ready, {known.progress}"
        for known in (record.deployments if record else ())
    }


def autoscalers(record: Standard | None) -> dict[str, str]:
    """Autoscalers with their bounds."""
    return {scaler.name: f"{scaler.minimum} to {scaler.maximum}" for scaler in (record.scalers if record else ())}
