"""Reading a service and moving its traffic: status, set_traffic, promote. An operator's act bumps the epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kanary import kubernetes as k8s
from kanary import manifests, release
from kanary.errors import ApiError, InputError, KanaryError
from kanary.kserve import standard, store
from kanary.kserve.deploy import check_not_denied
from kanary.kserve.status import STANDARD, ServiceStatus, check_mode, move, service_status
from kanary.kserve.store import Token
from kanary.kubernetes import Act, Document
from kanary.release import Intent, State

Clock = Callable[[], float]
_LOOK = 5.0
_SETTLED = 3.0  # seconds without an event after which a status that agreed all along is believed
_ATTEMPTS = 20


@dataclass(frozen=True)
class Moved:
    """Traffic before and after. `in_force`: the status says that what was asked is so; `why` says why not."""

    before: ServiceStatus
    after: ServiceStatus
    in_force: bool
    why: str = ""
    patch: Document | None = None  # what was sent; of a dry run, what would be


def status(name: str, namespace: str) -> Act[ServiceStatus]:
    """One service as it is. Raises InputError where there is none of that name."""
    service, state = yield from store.both(name, namespace)
    return service_status(service, state)


def statuses(namespace: str) -> Act[list[ServiceStatus]]:
    """All services of a namespace, by name."""
    selector = {"labelSelector": "app.kubernetes.io/managed-by=kanary"}
    services, config_maps = yield k8s.Together(
        (k8s.read(k8s.inference_services(namespace)), k8s.read(k8s.config_maps(namespace), **selector))
    )
    if isinstance(services, ApiError):
        raise services
    kept = [] if isinstance(config_maps, ApiError) else config_maps.get("items") or []
    states = {entry["metadata"]["name"]: entry for entry in kept}
    found = []
    for service in services.get("items") or []:
        state = release.parse(states.get(release.name_of(service["metadata"]["name"])))
        found.append(service_status((yield from store.seen(service)), state))
    return sorted(found, key=lambda entry: entry.name)


def set_traffic(
    name: str,
    namespace: str,
    percent: int,
    reason: str = "",
    *,
    token: Token | None = None,
    deadline: float = 60.0,
    dry_run: bool = False,
    clock: Clock = time.time,
) -> Act[Moved]:
    """Gives the canary `percent` (0 to 99) of the traffic, and waits until that is so.

    With `dry_run` the API server checks the patch and nothing is changed. Raises InputError for another percentage or
    a denied model, KanaryError where there is no canary or it is not ready, Held where `token` is given and somebody
    has acted since.
    """
    if not 0 <= percent <= 99:
        raise InputError(
            f"{percent} is no share that a canary can have: 0 to 99.", f"All traffic: `kanary promote {name}`."
        )

    def check(service: Document, state: State) -> None:
        now = _canary(service, state, percent)
        if percent and not now.canary_ready:
            failure = f": {now.failure}" if now.failure else ""
            raise KanaryError(
                f"The canary {now.canary} of {namespace}/{name} is not ready{failure}.",
                "Traffic that is asked for now would reach it untested, the moment it is ready.",
            )
        if percent:
            check_not_denied(state, manifests.model_digest(manifests.content(service)), name, namespace)

    def there(now: ServiceStatus) -> bool:
        return now.requested == percent and now.effective == percent and now.obeyed

    wish = _Wish(name, namespace, percent, release.SET_TRAFFIC, reason, check, there)
    if dry_run:
        return (yield from _tried(wish))
    return (yield from _move(wish, token, deadline, clock))


def promote(
    name: str,
    namespace: str,
    reason: str = "",
    *,
    token: Token | None = None,
    deadline: float = 60.0,
    dry_run: bool = False,
    clock: Clock = time.time,
) -> Act[Moved]:
    """Gives the canary all traffic, as the new stable revision, and waits until that is so. Raises as set_traffic.

    Whether there is a way back from it is `kanary.kserve.readiness`'s to say, before.
    """

    def check(service: Document, state: State) -> None:
        now = _canary(service, state, None)
        if not now.canary_ready:
            raise KanaryError(
                f"The canary {now.canary} of {namespace}/{name} is not ready.", "`kanary status` says why."
            )
        check_not_denied(state, manifests.model_digest(manifests.content(service)), name, namespace)

    def there(now: ServiceStatus) -> bool:
        alone = now.stable == now.created == now.latest_ready and now.split == {now.created: 100}
        return now.requested is None and alone and now.obeyed

    wish = _Wish(name, namespace, None, release.PROMOTE, reason, check, there)
    if dry_run:
        return (yield from _tried(wish))
    return (yield from _move(wish, token, deadline, clock))


@dataclass(frozen=True)
class _Wish:
    """What is to become of the traffic. `check` raises where it may not; `there` says whether it is so."""

    name: str
    namespace: str
    percent: int | None
    action: str
    reason: str
    check: Callable[[Document, State], None]
    there: Callable[[ServiceStatus], bool]


def _canary(service: Document, state: State, percent: int | None) -> ServiceStatus:
    check_mode(service)
    if manifests.mode(service) == STANDARD:
        standard.check_steerable(service, percent)
    now = service_status(service, state)
    if not now.canary:
        raise KanaryError(
            f"{now.namespace}/{now.name} has no canary: {now.stable or 'no revision'} takes all traffic.",
            "Deploy a new model first.",
        )
    return now


def _tried(wish: _Wish) -> Act[Moved]:
    """The patch, checked by the API server and not stored."""
    service, state = yield from store.both(wish.name, wish.namespace)
    wish.check(service, state)
    body = move(service, wish.percent)
    yield k8s.patch(k8s.inference_services(wish.namespace, wish.name), body, dry_run=True)
    now = service_status(service, state)
    return Moved(now, now, wish.there(now), "a dry run: nothing was changed", body)


def _move(wish: _Wish, token: Token | None, deadline: float, clock: Clock) -> Act[Moved]:
    """Intent first, then the percentage, then waiting for it to be in force."""
    name, namespace, ends = wish.name, wish.namespace, clock() + deadline
    epoch = token.epoch if token else None
    before: ServiceStatus | None = None
    for _ in range(_ATTEMPTS):
        asked = (*store.reads(name, namespace), k8s.who_am_i())
        found, config_map, me = yield k8s.Together(asked)
        state = release.parse(store.unpack(config_map))
        service = yield from store.seen(store.existing(found, name, namespace))
        if epoch is not None:
            release.check_epoch(state, epoch)
        now = service_status(service, state)
        wish.check(service, state)
        before = before or now
        content = manifests.content(service)
        intent = Intent(
            *(wish.action, k8s.username(me), release.timestamp(clock()), wish.reason),
            percent=wish.percent,
            version=manifests.model_version(content),
            digest=manifests.model_digest(content),
        )
        if epoch is None or state.intent is None or replace(state.intent, when=intent.when) != intent:
            (written,) = yield k8s.Together(
                (store.write(release.begin(state, intent, operator=epoch is None), name, namespace),)
            )
            if store.conflict(written):
                continue
            # From here on it is this act's own epoch that must hold.
            epoch = release.parse(store.unpack(written)).epoch
        else:
            intent = state.intent  # written down already, before somebody was faster with the service
            yield from store.still(name, namespace, epoch)
        body = move(service, wish.percent)
        (answer,) = yield k8s.Together((k8s.patch(k8s.inference_services(namespace, name), body),))
        if not store.conflict(answer):
            break
    else:
        raise KanaryError(f"{namespace}/{name} changes all the time.", "Try again.")
    patched = yield from store.seen(store.existing(answer, name, namespace))
    after = yield from _until(wish, patched, _in_flight(wish, service), ends, clock)
    in_force = wish.there(service_status(after))
    state = yield from store.change(name, namespace, lambda known: _settle(known, intent, after, in_force), epoch)
    told = service_status(after, state)
    return Moved(before, told, in_force, "" if in_force else "; ".join(told.notes) or "not in force yet", body)


def _in_flight(wish: _Wish, service: Document) -> bool:
    """Whether the spec asked for something else that was not in force yet when this act changed it.

    Then a status that agrees may be older than both, and the controller may still be on its way to the other.
    """
    now = service_status(service)
    return now.requested != wish.percent and now.effective != (now.requested or 0)


def _settle(state: State, intent: Intent, service: Document, in_force: bool) -> State:
    if in_force and intent.action == release.PROMOTE:
        now = service_status(service)
        state = release.amend(state, intent.digest, verdict=release.PROMOTED, revision=now.created)
    mine = state.intent is not None and state.intent.when == intent.when
    return store.settled(state, release.DONE if in_force else release.HELD) if mine else state


def _until(wish: _Wish, service: Document, in_flight: bool, ends: float, clock: Clock) -> Act[Document]:
    """The service once it is there, once somebody has asked for another percentage, or when the time is up.

    `in_flight`: a status that agrees from the start is believed only after another event, or none for a while.
    """
    quiet = clock() + _SETTLED if in_flight else 0.0
    while clock() < ends and manifests.percent(service) == wish.percent:
        if wish.there(service_status(service)) and clock() >= quiet:
            return service
        seconds = max(0.05, min(_LOOK, ends - clock(), max(quiet - clock(), 0.0) or _LOOK))
        changed: Any = yield from store.after(service, seconds)
        metadata = service["metadata"]
        if changed is not None:
            quiet = 0.0
        service = changed or (yield from store.both(metadata["name"], metadata["namespace"]))[0]
    return service
