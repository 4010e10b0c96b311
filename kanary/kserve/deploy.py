"""Deploying a model: as the first release at 100 %, else as a canary at 0 %; then waiting for *its* revision.

Refuses denied digests. Holds the service's Lease from start_canary to finish; stops with Held where somebody acts
meanwhile. The smoke test between readiness and traffic is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kanary import kubernetes as k8s
from kanary import manifests, release
from kanary.errors import InputError, KanaryError
from kanary.kserve import decide, standard, store
from kanary.kserve.status import STANDARD, ServiceStatus, check_mode, service_status
from kanary.kserve.store import Token
from kanary.kubernetes import Act, Document
from kanary.release import Intent, Release, State

Clock = Callable[[], float]
_LOOK = 5.0  # seconds without an event after which the service is read again
_RENEW = store.LEASE_SECONDS / 4
_ATTEMPTS = 20
_IMPLEMENTATIONS = ("model", "containers", "sklearn", "pytorch", "tensorflow", "onnx", "xgboost", "huggingface")


@dataclass(frozen=True)
class Started:
    """A deployment under way: what set_traffic, wait_ready and finish need of it.

    `first`: there was nothing to compare it with, it takes all traffic. `before`: the newest revision before it.
    """

    name: str
    namespace: str
    token: Token
    first: bool
    before: str
    version: str
    digest: str


@dataclass(frozen=True)
class Ready:
    """A revision that is ready. `url` leads to it whatever its share (its tag's URL); empty where KServe gives none."""

    revision: str
    url: str
    status: ServiceStatus


def start_canary(
    manifest: Mapping[str, Any],
    *,
    run_id: str = "",
    why: str = "",
    holder: str = "",
    clock: Clock = time.time,
) -> Act[Started]:
    """Brings the model of an InferenceService document (kanary.manifests) into the cluster, with no traffic yet.

    Where there is no such service it is created, and takes all traffic once ready. Called again for the same run and
    model it goes on. `holder` names who deploys, for the Lease; the run's id if not given. Raises KanaryError for a
    denied digest, another's deployment or an unfinished rollback, ApiError where the API refuses the document.
    """
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    wanted = manifests.content(manifest)
    holder = f"deploy {holder or run_id or manifests.model_digest(wanted)}"
    state, me = yield from _enter(name, namespace, wanted, holder, clock())
    token = Token(state.epoch, holder)
    for _ in range(_ATTEMPTS):
        found, config_map = yield k8s.Together(store.reads(name, namespace))
        service, state = store.unpack(found), release.parse(store.unpack(config_map))
        release.check_epoch(state, token.epoch)
        service = (yield from store.seen(service)) if service is not None else None
        if service is not None:
            _check_service(service, state)
        now = service_status(service, state) if service is not None else None
        first = now is None or not now.stable or (now.stable == now.created and _goes_on(service, wanted))
        before = _before(state, now, service, wanted, run_id)
        entry = _release(wanted, run_id, me, release.timestamp(clock()), why)
        intent = Intent(
            *(release.DEPLOY, me, entry.when, why),
            percent=None if first else 0,
            run_id=run_id,
            version=entry.version,
            digest=entry.digest,
            before=before,
        )

        yield from store.change(name, namespace, _recording(service, entry, intent), token.epoch)
        (answer,) = yield k8s.Together((_request(manifest, service, wanted, first),))
        if store.conflict(answer):
            continue
        stored = store.unpack(answer)
        if stored is None:  # deleted meanwhile
            continue
        yield from _note_stored(name, namespace, token, entry, stored)
        return Started(name, namespace, token, first, before, entry.version, entry.digest)
    raise KanaryError(f"{namespace}/{name} changes all the time.", "Try again.")


def wait_ready(
    started: Started,
    *,
    deadline: float = 600.0,
    patience: float = 10.0,
    on_progress: Callable[[str], None] = lambda text: None,
    clock: Clock = time.time,
) -> Act[Ready]:
    """Waits until the deployment's own revision is ready and in the routes; never for the service's Ready.

    Raises KanaryError with KServe's failure info after `deadline` seconds, or once the revision has been failing for
    `patience` seconds (a model server may come up at its second start); Held where somebody has acted.
    """
    begun = renewed = clock()
    failing, said = 0.0, ""
    service, state = yield from store.both(started.name, started.namespace)
    while True:
        release.check_epoch(state, started.token.epoch)
        now = service_status(service, state)
        if now.created != started.before and now.created and _is_ready(started, now):
            yield from _note_ready(started, now.created, clock() - begun if said else None)
            return Ready(now.created, _url(now), now)
        failing = (failing or clock()) if now.failure and now.created != started.before else 0.0
        left = begun + deadline - clock()
        if left <= 0 or (failing and clock() - failing >= patience):
            yield from _note_failed(started)
            raise _never_ready(started, now, deadline)
        text = _progress(started, now)
        if text != said:
            on_progress(text)
            said = text
        if clock() - renewed > _RENEW:
            yield from store.renew(started.name, started.namespace, started.token, clock())
            renewed = clock()
        seconds = max(0.05, min(_LOOK, left, patience if failing else _LOOK))
        changed = yield from store.after(service, seconds)
        if changed is None:
            service, state = yield from store.both(started.name, started.namespace)
        else:
            service = changed


def mode_for(name: str, namespace: str, asked: str = "") -> Act[str]:
    """KServe's mode for a deployment: the service's own; where there is no service, `asked`, else Knative.

    Raises InputError where the service has another one than is asked for: KServe does not change it.
    """
    (answer,) = yield k8s.Together((k8s.read(k8s.inference_services(namespace, name)),))
    service = store.unpack(answer)
    if service is None:
        return asked or manifests.KNATIVE
    found = manifests.mode(service)
    if asked and asked != found:
        raise InputError(
            f"{namespace}/{name} runs in KServe's mode {found}, and {asked} is asked for.",
            "Leave the mode empty, or deploy under another name: KServe does not change a service's mode.",
        )
    return found


def finish(started: Started) -> Act[None]:
    """Ends a deployment: the Lease is free again. What was deployed stays as it is."""

    def done(state: State) -> State:
        mine = state.intent is not None and state.intent.action == release.DEPLOY
        return store.settled(state, release.DONE) if mine and state.epoch == started.token.epoch else state

    yield from store.change(started.name, started.namespace, done)
    yield from store.free_lease(started.name, started.namespace, started.token.holder)


def _recording(service: Document | None, entry: Release, intent: Intent) -> Callable[[State], State]:
    def recorded(state: State) -> State:
        kept = release.record(_with_found(state, service, entry), entry)
        return release.begin(kept, intent, operator=False)

    return recorded


def _enter(name: str, namespace: str, wanted: Document, holder: str, now: float) -> Act[tuple[State, str]]:
    """Checks what forbids the deployment, and takes the Lease."""
    path = k8s.leases(namespace, release.name_of(name))
    for _ in range(_ATTEMPTS):
        asked = (store.reads(name, namespace)[1], k8s.read(path), k8s.who_am_i())
        config_map, lease_answer, me = yield k8s.Together(asked)
        state, lease = release.parse(store.unpack(config_map)), store.unpack(lease_answer)
        check_not_denied(state, manifests.model_digest(wanted), name, namespace)
        other = store.holder(lease, now)
        if other not in ("", holder):
            raise KanaryError(
                f"{namespace}/{name} is being worked on by {other}.",
                f"Wait until it ends; after a crash its lock runs out within {store.LEASE_SECONDS} s.",
            )
        (taken,) = yield k8s.Together((store.take_lease(lease, name, namespace, holder, now),))
        if not store.conflict(taken):
            return state, k8s.username(me)
    raise KanaryError(f"The lock of {namespace}/{name} changes hands all the time.", "Try again.")


def check_not_denied(state: State, digest: str, name: str, namespace: str) -> None:
    """Raises InputError, naming who denied the digest, when and why."""
    denied = release.denial(state, digest)
    if denied is not None:
        raise InputError(
            f"{denied.version or 'This model'} ({digest}) is denied for {namespace}/{name}: {denied.who} rolled it "
            f"back at {denied.when}" + (f" ({denied.why})." if denied.why else "."),
            "Deploy another model. A rollback is not undone by deploying the same thing again.",
        )


def _check_service(service: Document, state: State) -> None:
    check_mode(service)
    if manifests.mode(service) == STANDARD:
        # Refused before it is deployed: what could never get a share would only cost replicas.
        standard.check_steerable(service, 1)
    intent = state.intent
    if intent is not None and intent.action == release.ROLLBACK and intent.phase == release.BEGUN:
        name = service["metadata"]["name"]
        raise KanaryError(
            f"The rollback of {name} that {intent.who} began at {intent.when} is unfinished.",
            f"Finish it first: `kanary rollback {name}` goes on with it.",
        )


def _goes_on(service: Document | None, wanted: Document) -> bool:
    """Whether the spec already holds what is to be deployed: a repeated deployment."""
    return service is not None and manifests.model_digest(manifests.content(service)) == manifests.model_digest(wanted)


def _before(state: State, now: ServiceStatus | None, service: Document | None, wanted: Document, run_id: str) -> str:
    if now is None:
        return ""
    if _goes_on(service, wanted):
        intent = state.intent
        mine = intent is not None and intent.action == release.DEPLOY and intent.run_id == run_id
        # The same content again makes no revision: what there is, is it.
        return intent.before if intent is not None and mine else ""
    # In Standard mode a predictor that never was ready is changed under the name that it has.
    return now.stable if now.mode == STANDARD else now.created


def _release(wanted: Document, run_id: str, who: str, when: str, why: str) -> Release:
    return Release(
        manifests.model_version(wanted),
        manifests.storage_uri(wanted),
        manifests.model_digest(wanted),
        wanted,
        run_id,
        who,
        when,
        why,
    )


def _with_found(state: State, service: Document | None, entry: Release) -> State:
    """The state with what the service now serves in its history, should nobody have recorded it."""
    if service is None:
        return state
    now, content = service_status(service, state), manifests.content(service)
    digest = manifests.model_digest(content)
    if now.mode == STANDARD:
        # Stable stands beside its canary: it may be known to nobody even so.
        state = _with_stable(state, now, manifests.stable_content(service))
    if digest == entry.digest or not now.stable:
        return state
    known = release.newest(state, digest)
    if now.canary:
        # A canary that nobody rolled back gives way to the next one.
        undecided = known is not None and known.verdict == release.CANARY
        return release.amend(state, digest, verdict=release.REPLACED) if undecided else state
    return _with_stable(state, now, content)


def _with_stable(state: State, now: ServiceStatus, content: Document) -> State:
    """The state with the stable content as a good release, if nobody has said otherwise."""
    if not now.stable:
        return state
    digest = manifests.model_digest(content)
    known = release.newest(state, digest)
    if known is not None:
        good = known.verdict in (release.CANARY, release.PROMOTED, release.FOUND)
        verdict = release.PROMOTED if good else known.verdict
        return release.amend(state, digest, revision=now.stable, verdict=verdict)
    version, uri = manifests.model_version(content), manifests.storage_uri(content)
    found = Release(version, uri, digest, content, when=now.since, why="found in the cluster")
    return release.record(state, replace(found, revision=now.stable, verdict=release.FOUND))


def _request(manifest: Mapping[str, Any], service: Document | None, wanted: Document, first: bool) -> Any:
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    if service is None:
        document = dict(manifest) | {"spec": dict(manifest["spec"]) | {"predictor": wanted}}
        return k8s.create(k8s.inference_services(namespace), document)
    if manifests.mode(service) == STANDARD and not first:
        percent = manifests.percent(service) if _goes_on(service, wanted) else 0
        entry = manifests.canary_entry(service, wanted, percent or 0)
        return k8s.patch(k8s.inference_services(namespace, name), decide.patch_of(service, {"canary": [entry]}))
    content = manifests.content(service)
    # What an operator has set beside the model stays; two implementations beside each other would be refused.
    others = {key: None for key in _IMPLEMENTATIONS if key in content and key not in wanted}
    again = _goes_on(service, wanted) and not first
    percent = manifests.percent(service) if again else None if first else 0
    asked = {} if manifests.mode(service) == STANDARD else {manifests.PERCENT: percent}
    body = {
        "metadata": {"resourceVersion": service["metadata"]["resourceVersion"]},
        "spec": {"predictor": wanted | _replaced_model(content, wanted) | others | asked},
    }
    return k8s.patch(k8s.inference_services(namespace, name), body)


def _replaced_model(content: Document, wanted: Document) -> Document:
    """`model` as a patch that leaves nothing of the old model but what KServe's defaults would set again."""
    if "model" not in wanted:
        return {}
    old = {key: value for key, value in (content.get("model") or {}).items() if key not in ("name", "resources")}
    return {"model": {key: None for key in old if key not in wanted["model"]} | wanted["model"]}


def _note_stored(name: str, namespace: str, token: Token, entry: Release, stored: Document) -> Act[None]:
    """The release as the API server keeps it, defaults included: what a rollback to it has to restore."""
    content = manifests.content(stored)
    if decide.same(content, entry.predictor):
        return

    def noted(state: State) -> State:
        return release.record(state, replace(entry, predictor=content))

    yield from store.change(name, namespace, noted, token.epoch)


def _is_ready(started: Started, now: ServiceStatus) -> bool:
    if now.created != now.latest_ready:
        return False
    if started.first:
        return now.split.get(now.created, 0) == 100
    # In the routes, so that its tag leads to it; at 0 % it is there all the same.
    return now.revision(now.created) is not None and _routed(now)


def _routed(now: ServiceStatus) -> bool:
    found = now.revision(now.created)
    tagged = any("latest" in revision.tags for revision in now.revisions)
    return found is not None and (not tagged or "latest" in found.tags)


def _url(now: ServiceStatus) -> str:
    found = now.revision(now.created)
    return found.url if found else ""


def _note_ready(started: Started, revision: str, seconds: float | None) -> Act[None]:
    """`seconds` that it took; None where it was ready already, which says nothing about it."""
    verdict = release.PROMOTED if started.first else release.CANARY
    took = {"seconds": round(seconds, 1)} if seconds is not None else {}

    def noted(state: State) -> State:
        return release.amend(state, started.digest, revision=revision, verdict=verdict, **took)

    yield from store.change(started.name, started.namespace, noted, started.token.epoch)


def _note_failed(started: Started) -> Act[None]:
    def noted(state: State) -> State:
        return release.amend(state, started.digest, verdict=release.FAILED)

    yield from store.change(started.name, started.namespace, noted, started.token.epoch)


def _never_ready(started: Started, now: ServiceStatus, deadline: float) -> KanaryError:
    revision = now.created if now.created != started.before else "its revision"
    why = now.failure or (f"not ready after {deadline:g} s" if revision == now.created else "KServe made none")
    traffic = "" if started.first else f" Stable {now.stable} keeps all traffic that it had."
    return KanaryError(
        f"{started.version or started.digest} of {started.namespace}/{started.name} is not ready ({revision}): {why}",
        f"Look at the model server's log.{traffic}",
    )


def _progress(started: Started, now: ServiceStatus) -> str:
    if not now.created or now.created == started.before:
        return "waiting for KServe to make the revision"
    if now.created != now.latest_ready:
        return f"{now.created}: {now.failure}" if now.failure else f"{now.created} is starting"
    return f"{now.created} is ready, its routes are being made"
