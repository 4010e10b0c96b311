"""The status of an InferenceService in Standard mode, as KServe derives it from its Deployments and their pods.

Pure: every function gives a new status document. Source: inference_service_status.go and predictor.go in KServe 0.20.
"""

from __future__ import annotations

from sandbox.kserve import conditions
from sandbox.kserve.conditions import FALSE, TRUE, State
from sandbox.kserve.config import STANDARD
from sandbox.kserve.knative import Document, Server, Servers
from sandbox.kserve.standard import COMPLETE, TIMED_OUT, Deployment, Standard, ready_copies, replica_set
from sandbox.kserve.standard_wish import Canary, StandardWish
from sandbox.kserve.status import MESSAGE_CHARACTERS
from sandbox.modelserver.spec import BACKING_OFF, INITIALIZING

PREDICTOR_READY, CANARIES, TRANSFORMER_READY = "PredictorReady", "CanaryPredictorReady", "TransformerReady"
_NO_MODEL = {"transitionStatus": ""}


def propagate(
    previous: Document, wish: StandardWish, record: Standard, servers: Servers, obeyed: bool, now: str
) -> Document:
    """The status after one reconcile that found `record`. `obeyed`: the gateway does what it is told."""
    marked = previous.get("conditions") or conditions.initial(now)
    stable = record.deployment(record.stable)
    component = dict((previous.get("components") or {}).get("predictor") or {})
    observed = previous.get("observedGeneration")
    model = previous.get("modelStatus") or {}
    if stable is not None:
        state = predictor_state(stable)
        marked = conditions.mark(marked, PREDICTOR_READY, state, now)
        if state.status == TRUE:
            component["url"] = wish.names.urls.component.format(name=stable.name)
        observed = stable.observed or None
        model = _model_status(model, stable, record, servers, marked)
    components: Document = {"predictor": component}
    if (transformer := record.transformer) is not None:
        state = predictor_state(transformer)
        marked = conditions.mark(marked, TRANSFORMER_READY, state, now)
        own = dict((previous.get("components") or {}).get("transformer") or {})
        at = wish.names.urls.component.format(name=transformer.name)
        components["transformer"] = own | ({"url": at} if state.status == TRUE else {})
        observed = transformer.observed or None
    else:
        marked = [condition for condition in marked if condition["type"] != TRANSFORMER_READY]
    marked, canaries = _canaries(marked, wish.canaries, record, now)
    stopped = conditions.get(marked, "Stopped")
    if stopped is None or stopped.status == TRUE:
        marked = conditions.mark(marked, "Stopped", State(FALSE), now)
    marked = conditions.mark(marked, "IngressReady", _ingress(record, obeyed), now)
    status: Document = {
        "deploymentMode": STANDARD,
        "modelStatus": model,
        "components": components,
        "url": wish.names.urls.service,
        "address": {"url": wish.names.urls.address},
    }
    if observed is not None:
        status["observedGeneration"] = observed
    if wish.names.runtime:
        status["clusterServingRuntimeName" if wish.names.cluster else "servingRuntimeName"] = wish.names.runtime
    return status | ({"canaryStatuses": canaries} if canaries else {}) | {"conditions": marked}


def stopped(previous: Document, wish: StandardWish, now: str) -> list[Document]:
    """The statuses of a service that is stopped, in their order: everything cleared, then what became of canaries."""
    before = previous.get("conditions") or []
    marked = conditions.mark(conditions.initial(now), PREDICTOR_READY, State(FALSE, "Stopped"), now)
    marked = [condition for condition in marked if condition["type"] != "IngressReady"]
    marked = conditions.mark(marked, "Stopped", State(TRUE), now)
    if wish.transformer is not None:
        marked = conditions.mark(marked, TRANSFORMER_READY, State(FALSE, "Stopped"), now)
    cleared: Document = {"deploymentMode": STANDARD, "modelStatus": dict(_NO_MODEL)}
    found = [cleared | {"conditions": _keep_times(before, marked)}]
    if wish.canaries:
        told = [_canary_status(canary, ready=False) for canary in wish.canaries]
        marked = conditions.mark(marked, CANARIES, State(FALSE, "Stopped"), now)
        found.append(cleared | {"canaryStatuses": told, "conditions": _keep_times(before, marked)})
    return found


def predictor_state(known: Deployment) -> State:
    """The condition that KServe makes of a Deployment's. Source: PropagateRawStatus."""
    if not known.observed:
        return State(FALSE)
    if not known.available:
        return State(FALSE, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    name = replica_set(known.newest)
    if known.progress == TIMED_OUT:
        return State(FALSE, TIMED_OUT, f'ReplicaSet "{name}" has timed out progressing.')
    if known.progress == COMPLETE:
        return State(TRUE, COMPLETE, f'ReplicaSet "{name}" has successfully progressed.')
    return State(TRUE, "MinimumReplicasAvailable", "Deployment has minimum availability.")


def canary_ready(record: Standard, deployment: str) -> bool:
    """Whether a canary's Deployment has an available replica."""
    known = record.deployment(deployment)
    return known is not None and known.ready + known.old_ready > 0


def _canaries(
    marked: list[Document], canaries: tuple[Canary, ...], record: Standard, now: str
) -> tuple[list[Document], list[Document]]:
    if not canaries:
        return [condition for condition in marked if condition["type"] != CANARIES], []
    ready = [canary_ready(record, canary.pods.deployment) for canary in canaries]
    state = State(TRUE, "AllCanariesReady") if all(ready) else State(FALSE, "CanariesNotReady")
    told = [_canary_status(canary, one) for canary, one in zip(canaries, ready, strict=True)]
    return conditions.mark(marked, CANARIES, state, now), told


def _canary_status(canary: Canary, ready: bool) -> Document:
    """KServe 0.20 never fills in a canary's model status."""
    return {
        "modelStatus": dict(_NO_MODEL),
        "name": canary.name,
        "ready": ready,
        "trafficPercent": canary.percent,
    }


def _ingress(record: Standard, obeyed: bool) -> State:
    """True from the start, as it was recorded; where a transformer is missing, not before there is a route to it."""
    if record.transformer is not None and not record.exposed:
        return State(FALSE, "Transformer Deployment NotReady", "Transformer HTTPRoute not created")
    return State(TRUE) if obeyed else State(FALSE, "ParentStatusNotAvailable", "Predictor HttpRouteNotReady")


def _model_status(
    previous: Document, known: Deployment, record: Standard, servers: Servers, marked: list[Document]
) -> Document:
    """Source: PropagateModelStatus. Of several pods it looks at the newest."""
    states = {"activeModelState": ""} | dict(previous.get("states") or {})
    ready = ready_copies(record, known, servers)
    copies = {"failedCopies": 0} | ({"totalCopies": ready} if ready else {})
    failure = previous.get("lastFailureInfo")
    server = servers.get(known.newest.name)
    if server is None or not server.running:
        return _model("InProgress", states | {"targetModelState": "Pending"}, copies, failure)
    if server.state == INITIALIZING:
        return _model("InProgress", states | {"targetModelState": "Loading"}, copies, failure)
    if _fails(server) and (server.failure is not None and server.failure.loading):
        return _failed(states, copies, server)
    if conditions.holds(marked, conditions.READY):
        return _model("UpToDate", {"activeModelState": "Loaded", "targetModelState": "Loaded"}, copies, failure)
    if _fails(server):
        return _failed(states, copies, server)
    return _model("InProgress", states | {"targetModelState": "Pending"}, copies, failure)


def _fails(server: Server) -> bool:
    return server.failure is not None and server.state == BACKING_OFF


def _failed(states: Document, copies: Document, server: Server) -> Document:
    assert server.failure is not None
    info: Document = {"reason": "ModelLoadFailed", "message": server.failure.message[-MESSAGE_CHARACTERS:]}
    info |= {"exitCode": server.failure.exit_code} if server.failure.exit_code else {}
    return _model("BlockedByFailedLoad", states | {"targetModelState": "FailedToLoad"}, copies, info)


def _model(transition: str, states: Document, copies: Document, failure: Document | None) -> Document:
    document: Document = {"transitionStatus": transition, "states": states, "copies": copies}
    return document | ({"lastFailureInfo": failure} if failure is not None else {})


def _keep_times(before: list[Document], marked: list[Document]) -> list[Document]:
    """`marked`, with the time of what was said before."""

    def said(condition: Document) -> Document:
        return {key: value for key, value in condition.items() if key != "lastTransitionTime"}

    return [next((old for old in before if said(old) == said(new)), new) for new in marked]
