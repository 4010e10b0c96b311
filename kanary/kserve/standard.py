"""Standard mode: a Deployment for the predictor, one for its canary, weights in an HTTPRoute. Pure.

KServe 0.20.0 writes no weights: what is in force is read from the route's backends, never from the spec. A service is
the InferenceService with what was read beside it under ROUTE and PODS (see kanary.kserve.store).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kanary import manifests
from kanary.errors import KanaryError
from kanary.kserve.parts import Parts, condition, load_failure
from kanary.manifests import Document

# Keys beside metadata, spec and status: the HTTPRoute ({} where there is none) and the canary's pods.
ROUTE, PODS = "kanary.route", "kanary.pods"


def deployment(service: Mapping[str, Any], predictor: Mapping[str, Any]) -> str:
    """The name of a predictor's Deployment and Service, which is what gateways count it by."""
    name = (service.get("metadata") or {}).get("name") or ""
    return "-".join(part for part in (name, predictor.get("name"), "predictor") if part)


def parts(service: Mapping[str, Any]) -> Parts:
    """The Deployments. `stable` is empty while the predictor has never been ready."""
    told = service.get("status") or {}
    named = deployment(service, (service.get("spec") or {}).get("predictor") or {})
    # KServe gives the component a URL once it was ready, and leaves it there.
    served = bool(((told.get("components") or {}).get("predictor") or {}).get("url"))
    stable = named if served else ""
    entry = manifests.canary(service)
    canary = deployment(service, entry.get("predictor") or {}) if entry is not None else ""
    ready = bool(canary) and _canary_ready(service)
    up = condition(service, "PredictorReady").get("status") == "True"
    latest_ready = canary if ready else stable if up or canary else ""
    return Parts(
        stable=stable,
        canary=canary if stable else "",
        created=canary or named,
        latest_ready=latest_ready,
        previous="",  # KServe deletes the Deployment of what was promoted over
        shares=shares(service),
        failure=_failure(service, canary, ready),
        obeyed=_obeyed(service),
        urls=_urls(service, stable, canary),
        notes=_notes(service, canary, ready),
    )


def shares(service: Mapping[str, Any]) -> dict[str, int]:
    """Effective percent by Deployment: the weights of the route; without one, stable has all."""
    backends = _backends(service)
    if not backends:
        told = (service.get("status") or {}).get("components") or {}
        served = bool((told.get("predictor") or {}).get("url"))
        return {deployment(service, (service.get("spec") or {}).get("predictor") or {}): 100} if served else {}
    total = sum(backends.values())
    return {name: round(100 * weight / total) if total else 0 for name, weight in backends.items()}


def move(service: Mapping[str, Any], percent: int | None) -> Document:
    """The patch of the spec that gives the canary `percent`; None: makes it the predictor, without a restart."""
    entry = manifests.canary(service)
    assert entry is not None
    if percent is not None:
        return {"canary": manifests.with_percent(service, percent)}
    before = (service.get("spec") or {}).get("predictor") or {}
    # Name and model together: a change of the name alone is refused. The pod template stays what the canary's is.
    after = manifests.content(service) | {"name": (entry.get("predictor") or {}).get("name")}
    return {"predictor": manifests.merge_patch(before, after), "canary": []}


def check_steerable(service: Mapping[str, Any], percent: int | None) -> None:
    """Raises KanaryError for several canaries, and for a share that would go past a transformer or explainer."""
    spec, metadata = service.get("spec") or {}, service.get("metadata") or {}
    where = f"{metadata.get('namespace')}/{metadata.get('name')}"
    if len(spec.get("canary") or []) > 1:
        names = ", ".join(str((entry.get("predictor") or {}).get("name")) for entry in spec["canary"])
        raise KanaryError(
            f"{where} has several canaries ({names}); Kanary compares one with stable.",
            "Remove all but one from spec.canary, or `kanary rollback` them all.",
        )
    for component in ("transformer", "explainer"):
        if spec.get(component) and percent:
            raise KanaryError(
                f"{where} has {'an' if component == 'explainer' else 'a'} {component}: in Standard mode KServe sends "
                f"a canary's share past it, straight to the predictor.",
                f"Move the {component}'s work into the model server, or use Knative mode.",
            )


def _canary_ready(service: Mapping[str, Any]) -> bool:
    entry = manifests.canary(service)
    name = ((entry or {}).get("predictor") or {}).get("name")
    told = (service.get("status") or {}).get("canaryStatuses") or []
    return any(one.get("name") == name and one.get("ready") for one in told)


def _backends(service: Mapping[str, Any]) -> dict[str, int]:
    """Weight by Service: those of the route's rule; 1 where it names none (Gateway API's default)."""
    rules = ((service.get(ROUTE) or {}).get("spec") or {}).get("rules") or []
    found: dict[str, int] = {}
    for backend in (rules[-1].get("backendRefs") or []) if rules else []:
        weight = backend.get("weight")
        name = str(backend.get("name") or "")
        found[name] = found.get(name, 0) + (1 if weight is None else int(weight))
    # With a transformer the service's own route leads there.
    return {} if any(name.endswith(("-transformer", "-explainer")) for name in found) else found


def _obeyed(service: Mapping[str, Any]) -> bool:
    """Whether the gateway has taken the route; where there is none, nothing is waited for."""
    parents = ((service.get(ROUTE) or {}).get("status") or {}).get("parents") or []
    told = [one for parent in parents for one in parent.get("conditions") or [] if one.get("type") == "Accepted"]
    return all(one.get("status") == "True" for one in told)


def _urls(service: Mapping[str, Any], stable: str, canary: str) -> dict[str, str]:
    """Each Deployment's own Service: the address that the status gives for stable, with the other's name in it."""
    namespace = (service.get("metadata") or {}).get("namespace") or ""
    address = str((((service.get("status") or {}).get("address")) or {}).get("url") or "")
    found = {}
    for name in (stable, canary):
        if name and stable and stable in address:
            head, _, tail = address.rpartition(stable)
            found[name] = f"{head}{name}{tail}"
        elif name:
            found[name] = f"http://{name}.{namespace}.svc.cluster.local"
    return found


def _failure(service: Mapping[str, Any], canary: str, ready: bool) -> str:
    if canary:
        # KServe never fills in a canary's model status, and CanariesNotReady says no more than that: its pods do.
        return "" if ready else _pods_failure(service)
    if said := load_failure(service):
        return said
    told = condition(service, "PredictorReady")
    # Without a reason KServe has only just begun; a Deployment that starts is not yet available.
    if told.get("status") == "False" and told.get("reason") not in (None, "", "MinimumReplicasUnavailable"):
        return str(told.get("message") or told.get("reason"))
    return ""


def _pods_failure(service: Mapping[str, Any]) -> str:
    for pod in service.get(PODS) or []:
        status = pod.get("status") or {}
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            state = container.get("state") or {}
            waiting = state.get("waiting") or {}
            ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
            # One that runs again may come up at its second start; one that is being made has not failed.
            if "running" in state or waiting.get("reason") in ("ContainerCreating", "PodInitializing"):
                continue
            if waiting or ended.get("exitCode"):
                code = f"exit code {ended['exitCode']}" if ended.get("exitCode") else ""
                said = str(ended.get("message") or waiting.get("message") or "").strip()
                return ": ".join(part for part in (waiting.get("reason"), code, said) if part)
    return ""


def _notes(service: Mapping[str, Any], canary: str, ready: bool) -> tuple[str, ...]:
    notes = []
    spec, asked = service.get("spec") or {}, manifests.percent(service)
    if (spec.get("predictor") or {}).get(manifests.PERCENT) is not None:
        notes.append(f"{manifests.PERCENT} is in the spec: in Standard mode KServe ignores it")
    if len(spec.get("canary") or []) > 1:
        notes.append(f"{len(spec['canary'])} canaries; Kanary shows and steers one")
    if ROUTE in service and not service[ROUTE]:
        notes.append("there is no HTTPRoute: without KServe's Gateway API ingress no weight is in force")
    elif canary and ready and asked and canary not in _backends(service):
        notes.append("the HTTPRoute has no weight for the canary; KServe 0.20.0 sets none, later releases do")
    if not _obeyed(service):
        notes.append("the gateway has not accepted the HTTPRoute yet")
    least = (spec.get("predictor") or {}).get("minReplicas")
    entry = manifests.canary(service)
    taken = ((entry or {}).get("predictor") or {}).get("minReplicas") or 0
    if least is not None and taken and least > 1:
        kept = max(1, least - taken)
        notes.append(f"stable keeps {kept} of its {least} replicas beside the canary; a rollback has to scale it up")
    return tuple(notes)
