"""What people read with kubectl in Standard mode: Deployments, Services, autoscalers, HTTPRoutes, Pods with logs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.gateway.description import DOMAIN
from sandbox.kserve.client import Kind
from sandbox.kserve.conditions import FALSE, TRUE
from sandbox.kserve.knative import Document
from sandbox.kserve.mirror import DEPLOYMENTS, PODS, Name, owned, pod
from sandbox.kserve.standard import TIMED_OUT, Deployment, Standard, replica_set
from sandbox.kserve.standard_decide import route, weights
from sandbox.kserve.standard_route import TIMEOUT_S
from sandbox.kserve.standard_status import predictor_state
from sandbox.kserve.standard_wish import FIRST_RELEASE, StandardWish
from sandbox.modelserver.spec import STOPPED, STOPPING, Status

SERVICES = Kind("v1", "services")
AUTOSCALERS = Kind("autoscaling/v2", "horizontalpodautoscalers")
HTTP_ROUTES = Kind("gateway.networking.k8s.io/v1", "httproutes")
STANDARD_MIRRORED = (DEPLOYMENTS, SERVICES, AUTOSCALERS, HTTP_ROUTES)

_GATEWAY = {
    "group": "gateway.networking.k8s.io",
    "kind": "Gateway",
    "namespace": "kserve",
    "name": "kserve-ingress-gateway",
}
_CONTROLLER = "sandbox.kanary.dev/gateway"
_PORT, _CPU_PERCENT = 80, 80


@dataclass(frozen=True)
class StandardFound:
    """What there is of one InferenceService in Standard mode."""

    service: Document
    wish: StandardWish
    record: Standard
    servers: Mapping[str, Status]
    release: str
    home: Path

    def documents(self) -> dict[Name, Document]:
        """Every object that mirrors it, by kind, namespace and name."""
        namespace = self.service["metadata"]["namespace"]
        made: dict[Name, Document] = {}
        for kind, document in _objects(self):
            made[kind, namespace, document["metadata"]["name"]] = document
        return made


def _objects(found: StandardFound) -> Iterator[tuple[Kind, Document]]:
    for known in found.record.deployments:
        yield DEPLOYMENTS, _deployment(found, known)
        yield SERVICES, _service(found, known)
    for scaler in found.record.scalers:
        at = found.record.deployment(scaler.name)
        replicas = at.replicas if at is not None else 0
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": scaler.name}
        cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _CPU_PERCENT}}
        spec = {
            "scaleTargetRef": target,
            "minReplicas": scaler.minimum,
            "maxReplicas": scaler.maximum,
            "metrics": [{"type": "Resource", "resource": cpu}],
        }
        status = {"currentReplicas": replicas, "desiredReplicas": replicas}
        document = owned(found.service, "autoscaling/v2", "HorizontalPodAutoscaler", scaler.name, {})
        yield AUTOSCALERS, document | {"spec": spec, "status": status}
    if found.record.exposed:
        for name, service in _routes(found).items():
            yield HTTP_ROUTES, _http_route(found, name, service)
    yield from _pods(found)


def _deployment(found: StandardFound, known: Deployment) -> Document:
    template = known.newest.template.document
    document = owned(found.service, "apps/v1", "Deployment", known.name, template["labels"])
    document["metadata"]["annotations"] = template["annotations"]
    spec = {
        "replicas": known.replicas,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": int(known.newest.deadline - known.newest.created),
        "selector": {"matchLabels": {"app": f"isvc.{known.name}"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {
            "metadata": {"annotations": template["annotations"], "labels": template["labels"]},
            "spec": template["spec"],
        },
    }
    return document | {"spec": spec, "status": _deployment_status(known)}


def _deployment_status(known: Deployment) -> Document:
    ready = known.ready + known.old_ready
    total = known.replicas + known.old_ready
    counts = {"replicas": total, "updatedReplicas": known.replicas, "readyReplicas": ready, "availableReplicas": ready}
    counts["unavailableReplicas"] = total - ready
    status: Document = {key: count for key, count in counts.items() if count} | {"observedGeneration": known.observed}
    if known.observed:
        state = predictor_state(known)
        available, what = ("True", "has") if known.available else ("False", "does not have")
        reason = "MinimumReplicasAvailable" if known.available else "MinimumReplicasUnavailable"
        progressing = "False" if known.progress == TIMED_OUT else "True"
        message = state.message if state.reason == known.progress else f'ReplicaSet "{replica_set(known.newest)}"'
        status["conditions"] = [
            {
                "type": "Available",
                "status": available,
                "reason": reason,
                "message": f"Deployment {what} minimum availability.",
            },
            {"type": "Progressing", "status": progressing, "reason": known.progress, "message": message},
        ]
    return status


def _service(found: StandardFound, known: Deployment) -> Document:
    container = known.newest.template.document["spec"]["containers"][0]
    ports = [port["containerPort"] for port in container.get("ports") or [] if port.get("containerPort")]
    port = {"port": _PORT, "protocol": "TCP", "targetPort": ports[0] if ports else 8080}
    labels = {"app": f"isvc.{known.name}", "component": known.component}
    spec = {"type": "ClusterIP", "clusterIP": "127.0.0.1", "selector": {"app": f"isvc.{known.name}"}, "ports": [port]}
    return owned(found.service, "v1", "Service", known.name, labels) | {"spec": spec}


def _routes(found: StandardFound) -> dict[str, str]:
    """The HTTPRoutes, each with the Service that it leads to."""
    name, stable, transformer = found.wish.name, found.record.stable, found.record.transformer
    predictor = stable if found.release == FIRST_RELEASE else f"{name}-predictor"
    if transformer is None:
        return {predictor: stable, name: stable}
    return {predictor: stable, transformer.name: transformer.name, name: transformer.name}


def _http_route(found: StandardFound, name: str, leads_to: str) -> Document:
    namespace = found.service["metadata"]["namespace"]
    asked = weights(found.wish, found.record, found.release) if not name.endswith("-transformer") else {}
    if asked:
        asked = {leads_to: asked.pop(found.record.stable)} | asked
    backends = []
    for service in asked or {leads_to: 0}:
        reference = {"group": "", "kind": "Service", "name": service, "namespace": namespace, "port": _PORT}
        backends.append(reference | ({"weight": asked[service]} if asked else {}))
    headers = [
        {"name": "KServe-Isvc-Name", "value": found.wish.name},
        {"name": "KServe-Isvc-Namespace", "value": namespace},
    ]
    rule = {
        "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}],
        "backendRefs": backends,
        "timeouts": {"request": f"{found.wish.timeout_s or TIMEOUT_S:g}s"},
    }
    labels = found.service["metadata"].get("labels") or {}
    document = owned(found.service, "gateway.networking.k8s.io/v1", "HTTPRoute", name, labels)
    spec = {"hostnames": [f"{name}.{namespace}.{DOMAIN}"], "parentRefs": [_GATEWAY], "rules": [rule]}
    return document | {"spec": spec, "status": {"parents": [_parent(found)]}}


def _parent(found: StandardFound) -> Document:
    """What the gateway says of a route: not accepted while it obeys an earlier one."""
    obeyed = found.record.routed == route(found.wish, found.record, found.release)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.record.routed_at))
    accepted = {"status": TRUE, "reason": "Accepted"} if obeyed else {"status": FALSE, "reason": "Pending"}
    conditions = [
        {"type": kind, "message": "", "lastTransitionTime": since} | state
        for kind, state in (("Accepted", accepted), ("ResolvedRefs", {"status": TRUE, "reason": "ResolvedRefs"}))
    ]
    return {"controllerName": _CONTROLLER, "parentRef": _GATEWAY, "conditions": conditions}


def _pods(found: StandardFound) -> Iterator[tuple[Kind, Document]]:
    """A pod for every server; however many replicas it stands for."""
    revisions = [(d.name, revision) for d in found.record.deployments for revision in d.revisions]
    revisions += [(one.deployment, one.revision) for one in found.record.leaving]
    for deployment, revision in revisions:
        server = found.servers.get(revision.name)
        if server is not None and server.state not in (STOPPED, STOPPING):
            labels = {"app": f"isvc.{deployment}", "pod-template-hash": revision.template.digest[:10]}
            yield PODS, pod(found.service, found.home, revision, server, revision.name, labels)
