"""The status of an InferenceService in Knative mode, as KServe 0.20 derives it from what Knative says.

Pure: every function gives a new status document. Source: inference_service_status.go and controller.go in KServe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.kserve import conditions
from sandbox.kserve.conditions import FALSE, TRUE, UNKNOWN, State
from sandbox.kserve.knative import Document, Knative, Server, Servers, Target, missing, resolve
from sandbox.kserve.traffic import remember

PREDICTOR, TRANSFORMER = "predictor", "transformer"
_INGRESS_READY = "IngressReady"
# What a container's termination message may hold.
MESSAGE_CHARACTERS = 4096


@dataclass(frozen=True)
class Urls:
    """Where a service is reached, `service` and `address`, and the components behind it, by their Knative Services.

    `component`, `tagged` and `direct` hold `{name}` for that, `tagged` also `{tag}`; addresses need no name resolution.
    """

    service: str
    address: str
    component: str
    tagged: str
    direct: str


@dataclass(frozen=True)
class Names:
    """What of the surroundings a status tells: URLs and the runtime that was chosen (`cluster`: cluster-wide)."""

    urls: Urls
    runtime: str = ""
    cluster: bool = False


def propagate(
    previous: Document, records: Mapping[str, Knative | None], servers: Servers, names: Names, now: str, *, whole: bool
) -> Document:
    """The status after one reconcile that found the components as `records` (None: one was only just made).

    Not `whole`: the reconcile failed after these components, before it came to what concerns all of them.
    """
    marked = previous.get("conditions") or conditions.initial(now)
    components = dict(previous.get("components") or {})
    observed, model = previous.get("observedGeneration"), previous.get("modelStatus") or {}
    for kind, knative in records.items():
        found = component(previous, kind)
        if knative is not None:
            found = _component(found, knative, kind, names.urls)
            for type_, state in _states(knative, kind).items():
                marked = conditions.mark(marked, type_, state, now)
            observed = knative.observed
        components[kind] = found
        if kind == PREDICTOR:
            server = servers.get(found.get("latestCreatedRevision", ""))
            model = _model_status(model, found, marked, knative, server)
    status: Document = {"deploymentMode": "Knative", "modelStatus": model, "components": components}
    if observed is not None:
        status["observedGeneration"] = observed
    if names.runtime:
        status["clusterServingRuntimeName" if names.cluster else "servingRuntimeName"] = names.runtime
    status |= {key: previous[key] for key in ("url", "address") if key in previous}
    return _across(status, marked, tuple(records), names.urls, now) if whole else status | {"conditions": marked}


def refused(
    previous: Document, reason: str, message: str, now: str, mode: str = "Knative", kind: str = PREDICTOR
) -> Document:
    """The status after a reconcile that failed: as it was, but a component is not ready and `message` says why."""
    marked = previous.get("conditions") or conditions.initial(now)
    marked = conditions.mark(marked, _ready(kind), State(FALSE, reason, message), now)
    components = previous.get("components") or {}
    model = previous.get("modelStatus") or {"transitionStatus": ""}
    return previous | {
        "conditions": marked,
        "deploymentMode": mode,
        "components": components | {kind: components.get(kind) or {}},
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


def stopped(previous: Document, now: str, kinds: Sequence[str] = (PREDICTOR,)) -> Document:
    """The status of a service that its annotation `serving.kserve.io/stop` has stopped; revision history is gone.

    Source: the end of Reconcile in components/predictor.go and transformer.go, and in ingress_reconciler.go.
    """
    marked: list[Document] = []
    for kind in kinds:
        marked = conditions.mark(marked, _ready(kind), State(FALSE, "Stopped"), now)
    marked = conditions.mark(marked, "Stopped", State(TRUE), now)
    marked = conditions.mark(marked, _INGRESS_READY, State(FALSE, "Stopped"), now)
    before = previous.get("conditions") or []
    kept = [next((old for old in before if _same(old, new)), new) for new in marked]
    return {"conditions": kept, "deploymentMode": "Knative", "modelStatus": {"transitionStatus": ""}}


def component(status: Document, kind: str) -> Document:
    """What the status says of a component; empty before it says anything."""
    found: Document = (status.get("components") or {}).get(kind) or {}
    return found


def traffic(name: str, routed: Sequence[Target], urls: Urls) -> list[Document]:
    """`traffic` of the component whose Knative Service has that name, for what the gateway obeys."""
    found: list[Document] = []
    for target in routed:
        entry: Document = {
            "latestRevision": target.latest,
            "percent": target.percent,
            "revisionName": target.revision,
        }
        if target.tag:
            entry |= {"tag": target.tag, "url": urls.tagged.format(tag=target.tag, name=name)}
        found.append(entry)
    return found


def is_ready(status: Document) -> bool:
    """Whether the status says Ready."""
    return conditions.holds(status.get("conditions") or [], conditions.READY)


def _ready(kind: str) -> str:
    return f"{kind.capitalize()}Ready"


def _component(known: Document, knative: Knative, kind: str, urls: Urls) -> Document:
    found = remember(known, knative.routed, knative.latest_ready, knative.latest_created)
    for key, value in (
        ("latestCreatedRevision", knative.latest_created),
        ("latestReadyRevision", knative.latest_ready),
        ("traffic", traffic(knative.name, knative.routed, urls)),
    ):
        found.pop(key, None)
        if value:
            found[key] = value
    if _states(knative, kind)[_ready(kind)].status == TRUE:
        address = {"url": urls.direct.format(name=knative.name)}
        found |= {"url": urls.component.format(name=knative.name), "address": address}
    return found


def states(knative: Knative) -> tuple[State, State, State]:
    """The Knative Service's conditions: Ready, RoutesReady, ConfigurationsReady."""
    configuration, route = _configuration(knative), _route(knative)
    overall = State(TRUE)
    for state in (configuration, route):
        worse = state.status == FALSE or (state.status == UNKNOWN and overall.status != FALSE)
        overall = state if worse else overall
    return overall, route, configuration


def _states(knative: Knative, kind: str) -> dict[str, State]:
    """The same under the names that KServe gives them, in the order in which it sets them."""
    overall, route, configuration = states(knative)
    name = kind.capitalize()
    return {_ready(kind): overall, f"{name}RouteReady": route, f"{name}ConfigurationReady": configuration}


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
    if gone := missing(knative):
        return State(FALSE, "RevisionMissing", f'Revision "{gone}" referenced in traffic not found.')
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


def _across(status: Document, marked: list[Document], kinds: Sequence[str], urls: Urls, now: str) -> Document:
    """The status with what concerns all components: Stopped, RoutesReady, LatestDeploymentReady, the service's URL."""
    stop = conditions.get(marked, "Stopped")
    if stop is None or stop.status == TRUE:
        marked = conditions.mark(marked, "Stopped", State(FALSE), now)
    for kind, suffix in (("RoutesReady", "RouteReady"), ("LatestDeploymentReady", "ConfigurationReady")):
        marked = conditions.mark(marked, kind, _worst(marked, [f"{one.capitalize()}{suffix}" for one in kinds]), now)
    if "url" in component(status, kinds[-1]):
        marked = conditions.mark(marked, _INGRESS_READY, State(TRUE), now)
        status = status | {"url": urls.service, "address": {"url": urls.address}}
    return status | {"conditions": marked}


def _worst(marked: Sequence[Document], kinds: Sequence[str]) -> State:
    """Source: PropagateCrossComponentStatus; the last one that is not True decides."""
    states = [(kind, conditions.get(marked, kind) or State(UNKNOWN)) for kind in kinds]
    bad = [State(state.status, f"{kind} not ready") for kind, state in states if state.status != TRUE]
    return bad[-1] if bad else State(TRUE)


def _model_status(
    previous: Document, found: Document, marked: list[Document], knative: Knative | None, server: Server | None
) -> Document:
    """Source: PropagateModelStatus. `marked` must not hold yet what this reconcile finds of the ingress."""
    states = {"activeModelState": ""} | dict(previous.get("states") or {})
    copies = {"failedCopies": 0} | ({"totalCopies": 1} if server is not None and server.ready else {})
    failure = previous.get("lastFailureInfo")
    if server is None or not server.running:
        broken = knative is not None and any(state.status == FALSE for state in _states(knative, PREDICTOR).values())
        state, transition = ("FailedToLoad", "BlockedByFailedLoad") if broken else ("Pending", "InProgress")
        return _model(states | {"targetModelState": state}, transition, copies, failure)
    up_to_date = found.get("latestCreatedRevision") == found.get("latestReadyRevision")
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
