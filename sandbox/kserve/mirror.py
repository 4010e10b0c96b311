"""What people read with kubectl and the controller never does: the Knative Service, its Revisions, the Pods.

A Pod stands for a model server; its annotation says where the log lies, so that `kubectl logs` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.kserve import revisionstatus
from sandbox.kserve.client import Kind
from sandbox.kserve.knative import Components, Document, Knative, Revision, child_name, pod_name, referenced
from sandbox.kserve.status import Urls, traffic
from sandbox.modelserver.spec import BACKING_OFF, STOPPED, STOPPING, Status

PODS = Kind("v1", "pods")
KNATIVE_SERVICES = Kind("serving.knative.dev/v1", "services")
REVISIONS = Kind("serving.knative.dev/v1", "revisions")
DEPLOYMENTS = Kind("apps/v1", "deployments")
MIRRORED = (KNATIVE_SERVICES, REVISIONS, DEPLOYMENTS, PODS)
_REVISION_LABEL = "serving.knative.dev/revision"
LOG_ANNOTATION = "sandbox.kanary.dev/log"
SERVICE_LABEL = "serving.kserve.io/inferenceservice"

Name = tuple[Kind, str, str]


@dataclass(frozen=True)
class Found:
    """What there is of one InferenceService."""

    service: Document
    components: Components
    servers: Mapping[str, Status]
    urls: Urls
    home: Path


def documents(found: Found) -> dict[Name, Document]:
    """Every object that mirrors it, by kind, namespace and name; the `status` in each goes to its subresource."""
    namespace = found.service["metadata"]["namespace"]
    made: dict[Name, Document] = {}
    for knative in found.components.values():
        if not knative.revisions:
            continue
        made[KNATIVE_SERVICES, namespace, knative.name] = _knative_service(found, knative)
        active = referenced(knative)
        for revision in knative.revisions:
            document = _revision(found, knative, revision, revision.name in active)
            made[REVISIONS, namespace, revision.name] = document
            server = found.servers.get(revision.name)
            deployment = _deployment(found, revision, server)
            made[DEPLOYMENTS, namespace, deployment["metadata"]["name"]] = deployment
            if server is not None and server.state not in (STOPPED, STOPPING):
                pod = _pod(found, revision, server)
                made[PODS, namespace, pod["metadata"]["name"]] = pod
    return made


def _knative_service(found: Found, knative: Knative) -> Document:
    latest = knative.revisions[-1].template.document
    asked = [_target(target.percent, target.latest, target.revision, target.tag) for target in knative.traffic]
    status: Document = {
        "observedGeneration": knative.observed,
        "latestCreatedRevisionName": knative.latest_created,
        "latestReadyRevisionName": knative.latest_ready,
        "traffic": traffic(knative.name, knative.routed, found.urls),
        "url": found.urls.component.format(name=knative.name),
        "conditions": revisionstatus.of_service(knative),
    }
    template = {"metadata": _part(latest, "annotations", "labels"), "spec": latest["spec"]}
    return owned(found.service, "serving.knative.dev/v1", "Service", knative.name, {}) | {
        "spec": {"template": template, "traffic": asked},
        "status": status,
    }


def _target(percent: int, latest: bool, revision: str, tag: str) -> Document:
    entry: Document = {"latestRevision": latest, "percent": percent}
    return entry | ({"revisionName": revision} if revision else {}) | ({"tag": tag} if tag else {})


def _revision(found: Found, knative: Knative, revision: Revision, active: bool) -> Document:
    labels = {"serving.knative.dev/routingState": "active" if active else "reserve"}
    document = owned(found.service, "serving.knative.dev/v1", "Revision", revision.name, labels)
    document["metadata"]["labels"] |= {"serving.knative.dev/service": knative.name}
    server = found.servers.get(revision.name)
    runs = server is not None and server.state not in (STOPPED, STOPPING)
    exit_code = server.failure.exit_code if server is not None and server.failure is not None else 0
    status = {"conditions": revisionstatus.of_revision(revision, runs, exit_code)}
    return document | {"spec": revision.template.document["spec"], "status": status}


def _deployment(found: Found, revision: Revision, server: Status | None) -> Document:
    """What `kubectl logs deployment/...` finds the pod by."""
    running = int(server is not None and server.state not in (STOPPED, STOPPING))
    ready = int(server is not None and server.ready)
    chosen = {_REVISION_LABEL: revision.name}
    template = {"metadata": {"labels": {"app": revision.name} | chosen}, "spec": {"containers": [_container(revision)]}}
    name = child_name(revision.name, "-deployment")
    return owned(found.service, "apps/v1", "Deployment", name, {"app": revision.name} | chosen) | {
        "spec": {"replicas": running, "selector": {"matchLabels": chosen}, "template": template},
        "status": {"replicas": running, "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": running},
    }


def _container(revision: Revision) -> Document:
    container = revision.template.document["spec"]["containers"][0]
    plain = {key: container[key] for key in ("image", "command", "args", "env") if key in container}
    return {"name": container.get("name") or "kserve-container"} | plain


def _pod(found: Found, revision: Revision, server: Status) -> Document:
    name = pod_name(revision, found.service["metadata"]["uid"])
    labels = {"app": revision.name, _REVISION_LABEL: revision.name}
    return pod(found.service, found.home, revision, server, name, labels)


def pod(
    service: Document, home: Path, revision: Revision, server: Status, name: str, labels: Mapping[str, str]
) -> Document:
    """The Pod that stands for the server of a pod template; `home` is where its log lies."""
    document = owned(service, "v1", "Pod", name, revision.template.document["labels"] | dict(labels))
    log = Path(server.log)
    if log.is_relative_to(home):
        document["metadata"]["annotations"] = {LOG_ANNOTATION: str(log.relative_to(home))}
    container = revision.template.document["spec"]["containers"][0]
    status: Document = {
        "phase": "Running" if server.pid else "Pending",
        "conditions": [_condition("Ready", server.ready)],
        "containerStatuses": [_container_status(server, container)],
        "podIP": "127.0.0.1",
    }
    if server.started:
        status["startTime"] = _text(server.started)
    return document | {"spec": {"containers": [_container(revision)]}, "status": status}


def _container_status(server: Status, container: Document) -> Document:
    state: Document = {"waiting": {"reason": "ContainerCreating"}}
    if server.state == BACKING_OFF:
        state = {"waiting": {"reason": "CrashLoopBackOff"}}
    elif server.pid:
        state = {"running": {"startedAt": _text(server.started)}}
    status: Document = {
        "name": container.get("name") or "kserve-container",
        "image": container.get("image", ""),
        "imageID": "",
        "ready": server.ready,
        "restartCount": server.restarts,
        "state": state,
    }
    if server.failure is not None:
        ended = {"exitCode": server.failure.exit_code, "reason": "Error", "message": server.failure.message}
        status["lastState"] = {"terminated": ended}
    return status


def owned(service: Document, version: str, kind: str, name: str, labels: Mapping[str, str]) -> Document:
    """An object of that kind that goes when the InferenceService `service` goes."""
    metadata = service["metadata"]
    owner = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    marked = dict(labels) | {SERVICE_LABEL: metadata["name"]}
    place: dict[str, Any] = {"name": name, "namespace": metadata["namespace"]}
    return {"apiVersion": version, "kind": kind, "metadata": place | {"labels": marked, "ownerReferences": [owner]}}


def _text(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _condition(kind: str, holds: bool) -> Document:
    return {"type": kind, "status": "True" if holds else "Unknown"}


def _part(document: Document, *keys: str) -> Document:
    return {key: document[key] for key in keys}
