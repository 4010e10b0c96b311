"""The status of an InferenceService in Knative mode, as KServe 0.20 derives it from what Knative says.

Pure: every function gives a new status document. Source: inference_service_status.go and controller.go in KServe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.kserve import conditions
from sandbox.kserve.conditions import FALSE, TRUE, UNKNOWN, State
from sandbox.kserve.knative import Document, Knative, Server, Servers, Target, resolve
from sandbox.kserve.traffic import remember

PREDICTOR_READY = "PredictorReady"
# What a container's termination message may hold.
MESSAGE_CHARACTERS = 4096


@dataclass(frozen=True)
class Urls:
    """Where a service is reached. `tagged` holds `{}` for the tag; `address` needs no name resolution."""

    service: str
    predictor: str
    tagged: str
    address: str


@dataclass(frozen=True)
class Names:
    """What of the surroundings a status tells: URLs and the runtime that was chosen (`cluster`: cluster-wide)."""

    urls: Urls
    runtime: str = ""
    cluster: bool = False


def propagate(previous: Document, knative: Knative | None, servers: Servers, names: Names, now: str) -> Document:
    """The status after one reconcile that found the Knative Service as `knative` (None: it was only just made)."""
    marked = previous.get("conditions") or conditions.initial(now)
    component = dict((previous.get("components") or {}).get("predictor") or {})
    observed = previous.get("observedGeneration")
    if knative is not None:
        component = _component(component, knative, names.urls)
        for kind, state in _knative_states(knative).items():
            marked = conditions.mark(marked, kind, state, now)
        observed = knative.observed
    server = servers.get(component.get("latestCreatedRevision", ""))
    model = _model_status(previous.get("modelStatus") or {}, component, marked, knative, server)
    stopped = conditions.get(marked, "Stopped")
    if stopped is None or stopped.status == TRUE:
        marked = conditions.mark(marked, "Stopped", State(FALSE), now)
    marked = _across_components(marked, "RoutesReady", "PredictorRouteReady", now)
    marked = _across_components(marked, "LatestDeploymentReady", "PredictorConfigurationReady", now)
    status: Document = {"deploymentMode": "Knative", "modelStatus": model, "components": {"predictor": component}}
    if "url" in component:
        marked = conditions.mark(marked, "IngressReady", State(TRUE), now)
        status |= {"url": names.urls.service, "address": {"url": names.urls.address}}
    if observed is not None:
        status["observedGeneration"] = observed
    if names.runtime:
        status["clusterServingRuntimeName" if names.cluster else "servingRuntimeName"] = names.runtime
    return status | {"conditions": marked}


def refused(previous: Document, reason: str, message: str, now: str, mode: str = "Knative") -> Document:
    """The status after a reconcile that failed: as it was, but the predictor is not ready and `message` says why."""
    marked = previous.get("conditions") or conditions.initial(now)
    marked = conditions.mark(marked, PREDICTOR_READY, State(FALSE, reason, message), now)
    components = previous.get("components") or {"predictor": {}}
    model = previous.get("modelStatus") or {"transitionStatus": ""}
    return previous | {
        "conditions": marked,
        "deploymentMode": mode,
        "components": components,
        "modelStatus": model,
    }


def invalid(previous: Document, reason: str, message: str, now: str, mode: str = "Knative") -> Document:
    """The status after a predictor that cannot be built: `reason` is one of KServe's FailureReasons."""
    model = previous.get("modelStatus") or {}
    states = {"activeModelState": ""} | dict(model.get("states") or {}) | {"targetModelState": "FailedToLoad"}
    return previous | {
        "conditions": previous.get("conditions") or conditions.initial(now),
        "deploymentMode": mode,
        "modelStatus": _model(states, "InvalidSpec", model.get("copies"), {"reason": reason, "message": message}),
    }


def stopped(previous: Document, now: str) -> Document:
    """The status of a service that its annotation `serving.kserve.io/stop` has stopped; revision history is gone."""
    marked = conditions.mark(conditions.initial(now), PREDICTOR_READY, State(FALSE, "Stopped"), now)
    marked = [condition for condition in marked if condition["type"] != "IngressReady"]
    before = previous.get("conditions") or []
    marked = conditions.mark(marked, "Stopped", State(TRUE), now)
    kept = [next((old for old in before if _same(old, new)), new) for new in marked]
    return {"conditions": kept, "deploymentMode": "Knative", "modelStatus": {"transitionStatus": ""}}


def traffic(routed: Sequence[Target], urls: Urls) -> list[Document]:
    """`status.components.predictor.traffic` for what the gateway obeys."""
    found: list[Document] = []
    for target in routed:
        entry: Document = {
            "latestRevision": target.latest,
            "percent": target.percent,
            "revisionName": target.revision,
        }
        if target.tag:
            entry |= {"tag": target.tag, "url": urls.tagged.format(target.tag)}
        found.append(entry)
    return found


def is_ready(status: Document) -> bool:
    """Whether the status says Ready."""
    return conditions.holds(status.get("conditions") or [], conditions.READY)


def _component(component: Document, knative: Knative, urls: Urls) -> Document:
    component = remember(component, knative.routed, knative.latest_ready, knative.latest_created)
    for key, value in (
        ("latestCreatedRevision", knative.latest_created),
        ("latestReadyRevision", knative.latest_ready),
        ("traffic", traffic(knative.routed, urls)),
    ):
        component.pop(key, None)
        if value:
            component[key] = value
    if _knative_states(knative)[PREDICTOR_READY].status == TRUE:
        component |= {"url": urls.predictor, "address": {"url": urls.address}}
    return component


def _knative_states(knative: Knative) -> dict[str, State]:
    """The Knative Service's conditions under the names that KServe gives them, in the order in which it sets them."""
    configuration, route = _configuration(knative), _route(knative)
    overall = State(TRUE)
    for state in (configuration, route):
        worse = state.status == FALSE or (state.status == UNKNOWN and overall.status != FALSE)
        overall = state if worse else overall
    return {PREDICTOR_READY: overall, "PredictorRouteReady": route, "PredictorConfigurationReady": configuration}


def _configuration(knative: Knative) -> State:
    if knative.configuration_behind:
        return _out_of_date("Configuration")
    created = knative.revision(knative.latest_created)
    if created is None or not (created.ready or created.failed):
        return State(UNKNOWN)
    if created.ready:
        return State(TRUE)
    return State(FALSE, "RevisionFailed", f'Revision "{created.name}" failed with message: {created.failed}.')


def _route(knative: Knative) -> State:
    if knative.route_behind:
        return _out_of_date("Route")
    wanted = resolve(knative)
    if not wanted:
        waiting = f'Configuration "{knative.name}" is waiting for a Revision to become ready.'
        return State(UNKNOWN, "RevisionMissing", waiting)
    if wanted == knative.routed:
        return State(TRUE)
    latest = [target.revision for target in knative.routed if target.latest]
    if latest and latest != [knative.latest_ready]:
        return State(UNKNOWN, "TrafficNotMigrated", "Traffic is not yet migrated to the latest revision.")
    return State(UNKNOWN, "IngressNotConfigured", "Ingress has not yet been reconciled.")


def _out_of_date(what: str) -> State:
    return State(UNKNOWN, "OutOfDate", f"The {what} is still working to reflect the latest desired specification.")


def _across_components(marked: list[Document], kind: str, of: str, now: str) -> list[Document]:
    found = conditions.get(marked, of) or State(UNKNOWN)
    state = State(TRUE) if found.status == TRUE else State(found.status, f"{of} not ready")
    return conditions.mark(marked, kind, state, now)


def _model_status(
    previous: Document, component: Document, marked: list[Document], knative: Knative | None, server: Server | None
) -> Document:
    """Source: PropagateModelStatus. `marked` must not hold yet what this reconcile finds of the ingress."""
    states = {"activeModelState": ""} | dict(previous.get("states") or {})
    copies = {"failedCopies": 0} | ({"totalCopies": 1} if server is not None and server.ready else {})
    failure = previous.get("lastFailureInfo")
    if server is None or not server.running:
        broken = knative is not None and any(state.status == FALSE for state in _knative_states(knative).values())
        state, transition = ("FailedToLoad", "BlockedByFailedLoad") if broken else ("Pending", "InProgress")
        return _model(states | {"targetModelState": state}, transition, copies, failure)
    up_to_date = component.get("latestCreatedRevision") == component.get("latestReadyRevision")
    if up_to_date and conditions.holds(marked, conditions.READY):
        loaded = {"activeModelState": "Loaded", "targetModelState": "Loaded"}
        return _model(loaded, "UpToDate", copies, failure)
    if server.failure is not None and not server.ready:
        info: Document = {"reason": "ModelLoadFailed", "message": server.failure.message[-MESSAGE_CHARACTERS:]}
        info |= {"exitCode": server.failure.exit_code} if server.failure.exit_code else {}
        return _model(states | {"targetModelState": "FailedToLoad"}, "BlockedByFailedLoad", copies, info)
    target = "Loading" if server.state == "initializing" else "Pending"
    return _model(states | {"targetModelState": target}, "InProgress", copies, failure)


def _model(states: Document, transition: str, copies: Document | None, failure: Document | None) -> Document:
    document: Document = {"transitionStatus": transition, "states": states}
    if copies is not None:
        document["copies"] = copies
    if failure is not None:
        document["lastFailureInfo"] = failure
    return document


def _same(old: Document, new: Document) -> bool:
    return {key: old.get(key) for key in ("type", "status", "reason", "message")} == {
        key: new.get(key) for key in ("type", "status", "reason", "message")
    }
