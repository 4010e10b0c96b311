"""The acts on a service's ConfigMap and Lease: compare and swap, so that two writers at once lose nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kanary import errors, manifests, release
from kanary import kubernetes as k8s
from kanary.errors import ApiError, InputError, KanaryError
from kanary.kserve import standard
from kanary.kubernetes import Act, Document
from kanary.operations import Request
from kanary.release import State

LEASE_SECONDS = 60
ROUTE_SECONDS = 0.5  # between two looks at an HTTPRoute
_ATTEMPTS = 20


@dataclass(frozen=True)
class Token:
    """What an automation acts under: the epoch that it found, and its name on the Lease."""

    epoch: int
    holder: str


def unpack(answer: Document | ApiError) -> Document | None:
    """The object; None where there is none. Raises the ApiError for anything else."""
    if isinstance(answer, ApiError):
        if answer.status == 404:
            return None
        raise answer
    return answer


def existing(answer: Document | ApiError, name: str, namespace: str) -> Document:
    """The InferenceService. Raises InputError where there is none."""
    found = unpack(answer)
    if found is None:
        raise InputError(
            f"There is no InferenceService {name!r} in namespace {namespace!r}.",
            "`kanary status` lists those there are; --namespace chooses another namespace.",
        )
    return found


def reads(name: str, namespace: str) -> tuple[Request, Request]:
    """The requests for the InferenceService and the ConfigMap."""
    return (
        k8s.read(k8s.inference_services(namespace, name)),
        k8s.read(k8s.config_maps(namespace, release.name_of(name))),
    )


def both(name: str, namespace: str) -> Act[tuple[Document, State]]:
    """The InferenceService and what is remembered of it. Raises InputError where there is no such service.

    In Standard mode with what says where its traffic goes, as `seen` reads it.
    """
    service, config_map = yield k8s.Together(reads(name, namespace))
    found = yield from seen(existing(service, name, namespace))
    return found, release.parse(unpack(config_map))


def seen(service: Document) -> Act[Document]:
    """`service`, in Standard mode with its HTTPRoute and its canary's pods under standard.ROUTE and standard.PODS.

    The route is the predictor's, in a release that names it after the service (later than 0.20.0), else the service's.
    """
    if manifests.mode(service) != manifests.STANDARD:
        return service
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    asked = [k8s.read(k8s.http_routes(namespace, one)) for one in (f"{name}-predictor", name)]
    entry = manifests.canary(service)
    if entry is not None:
        app = f"app=isvc.{standard.deployment(service, entry.get('predictor') or {})}"
        asked.append(k8s.read(k8s.pods(namespace), labelSelector=app))
    answers = yield k8s.Together(tuple(asked))
    routes = [found for answer in answers[:2] if (found := _or_none(answer))]
    pods = [found for answer in answers[2:] if (found := _or_none(answer))]
    return service | {
        standard.ROUTE: routes[0] if routes else {},
        standard.PODS: (pods[0].get("items") or []) if pods else [],
    }


def after(service: Document, seconds: float) -> Act[Document | None]:
    """The service after its next change, at most so many seconds later; None where it must be read again."""
    metadata = service["metadata"]
    if manifests.mode(service) == manifests.STANDARD:
        seconds = min(seconds, ROUTE_SECONDS)  # a change of the HTTPRoute is no event of the InferenceService
    collection = k8s.inference_services(metadata["namespace"])
    changed = yield k8s.Change(collection, metadata["name"], metadata["resourceVersion"], seconds)
    return None if changed is None else (yield from seen(changed))


def _or_none(answer: Document | ApiError) -> Document | None:
    """What could be read; None where there is none, the cluster knows no such kind, or it is not ours to see."""
    if isinstance(answer, ApiError):
        if answer.status in (403, 404):
            return None
        raise answer
    return answer


def write(state: State, name: str, namespace: str) -> Request:
    """The request that stores `state`; 409 where the ConfigMap has changed since it was read."""
    document = release.document(state, name, namespace)
    if state.resource_version:
        return k8s.replace(k8s.config_maps(namespace, release.name_of(name)), document)
    return k8s.create(k8s.config_maps(namespace), document)


def change(name: str, namespace: str, decide: Callable[[State], State], epoch: int | None = None) -> Act[State]:
    """Stores what `decide` makes of the state, and gives it as stored; decides again where somebody was faster.

    Raises Held where `epoch` is given and no longer holds.
    """
    for _ in range(_ATTEMPTS):
        (answer,) = yield k8s.Together((reads(name, namespace)[1],))
        before = release.parse(unpack(answer))
        if epoch is not None:
            release.check_epoch(before, epoch)
        after = decide(before)
        if after == before:
            return before
        (written,) = yield k8s.Together((write(after, name, namespace),))
        if not conflict(written):
            return release.parse(unpack(written))
    raise KanaryError(f"The ConfigMap {release.name_of(name)} changes all the time.", "Try again.")


def still(name: str, namespace: str, epoch: int) -> Act[None]:
    """Raises Held where `epoch` no longer holds. To be asked after the service was read, and before it is patched.

    Who acts writes the epoch down first and patches then. So either it is seen here, or their patch is a conflict for
    ours, or ours for theirs. An epoch that was read beside the service may be from before their act, and the service
    from after it. Who has just written the epoch down need not ask: the service was read before.
    """
    (answer,) = yield k8s.Together((reads(name, namespace)[1],))
    release.check_epoch(release.parse(unpack(answer)), epoch)


def conflict(answer: Document | ApiError) -> bool:
    """Whether somebody was faster. Raises any other ApiError."""
    if isinstance(answer, ApiError):
        if answer.status == 409:
            return True
        raise answer
    return False


def holder(lease: Mapping[str, Any] | None, now: float) -> str:
    """Who holds the Lease at this moment; empty for nobody, and where it has run out."""
    spec = (lease or {}).get("spec") or {}
    held = str(spec.get("holderIdentity") or "")
    try:
        renewed = datetime.fromisoformat(spec.get("renewTime") or "").timestamp()
    except ValueError:
        return ""
    return held if now < renewed + int(spec.get("leaseDurationSeconds") or 0) else ""


def take_lease(lease: Document | None, name: str, namespace: str, who: str, now: float) -> Request:
    """The request that makes `who` the holder, or renews; 409 where the Lease has changed since it was read."""
    moment = release.timestamp(now).replace("Z", "000Z")
    spec: Document = dict((lease or {}).get("spec") or {})
    if spec.get("holderIdentity") != who:
        transitions = int(spec.get("leaseTransitions") or 0) + (1 if lease else 0)
        spec |= {"holderIdentity": who, "acquireTime": moment, "leaseTransitions": transitions}
    spec |= {"renewTime": moment, "leaseDurationSeconds": LEASE_SECONDS}
    if lease is None:
        metadata: Document = {"name": release.name_of(name), "namespace": namespace}
        document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        return k8s.create(k8s.leases(namespace), document)
    return k8s.replace(k8s.leases(namespace, release.name_of(name)), lease | {"spec": spec})


def renew(name: str, namespace: str, token: Token, now: float) -> Act[None]:
    """Keeps the Lease. Raises Held where another has taken it over."""
    path = k8s.leases(namespace, release.name_of(name))
    lease = unpack((yield k8s.Together((k8s.read(path),)))[0])
    other = holder(lease, now)
    if other not in ("", token.holder):
        raise errors.Held(f"Held: {other} has taken over {namespace}/{name}; this automation stops.", who=other)
    yield k8s.Together((take_lease(lease, name, namespace, token.holder, now),))


def free_lease(name: str, namespace: str, who: str) -> Act[None]:
    """Gives the Lease back, if `who` holds it; where that fails it runs out by itself."""
    path = k8s.leases(namespace, release.name_of(name))
    (lease,) = yield k8s.Together((k8s.read(path),))
    if isinstance(lease, ApiError) or (lease.get("spec") or {}).get("holderIdentity") != who:
        return
    spec = {key: value for key, value in lease["spec"].items() if key == "leaseTransitions"}
    yield k8s.Together((k8s.replace(path, lease | {"spec": spec}),))


def settled(state: State, phase: str) -> State:
    """`state` with its intent in another phase."""
    return replace(state, intent=replace(state.intent, phase=phase)) if state.intent else state
