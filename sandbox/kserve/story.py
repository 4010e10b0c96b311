"""Events that tell an operator what happened: those that KServe and Knative write, and a few about the servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sandbox.kserve import conditions, payloadlog
from sandbox.kserve.config import STORAGE_URI_ANNOTATION
from sandbox.kserve.knative import Document, Knative, Revision, Server, Servers, Target
from sandbox.kserve.status import is_ready
from sandbox.kserve.traffic import shares, tags

_KNATIVE = "serving.knative.dev/v1"
_DEPLOYMENT = "Deployment"
# The InferenceService itself; its name and uid are filled in where the event is written.
SERVICE = "InferenceService"


@dataclass(frozen=True)
class Event:
    """One event about an object: `kind` and `name` say which; `warning` is its type."""

    reason: str
    message: str
    kind: str = SERVICE
    name: str = ""
    warning: bool = False

    @property
    def api_version(self) -> str:
        """The apiVersion of the object it is about."""
        if self.kind == _DEPLOYMENT:
            return "apps/v1"
        return "serving.kserve.io/v1beta1" if self.kind == SERVICE else _KNATIVE


def of_knative(before: Knative | None, after: Knative) -> Iterator[Event]:
    """What happened to the Knative Service between two records."""
    name = after.name
    if before is None or not before.generation:
        yield Event("Created", f'Created Configuration "{name}"', "Service", name)
        yield Event("Created", f'Created Route "{name}"', "Service", name)
        yield Event("FinalizerUpdate", f'Updated "{name}" finalizers', "Route", name)
    old = {revision.name: revision for revision in before.revisions} if before else {}
    for revision in after.revisions:
        was = old.get(revision.name)
        if was is None:
            yield Event("Created", f'Created Revision "{revision.name}"', "Configuration", name)
            text = f"Revision {revision.name} created{_content(revision)}; its server is starting"
            yield Event("RevisionCreated", text)
            if why := payloadlog.ignored(revision.template.document):
                yield Event("PayloadLoggerIgnored", why, warning=True)
        if revision.ready and not (was and was.ready):
            text = "Revision becomes ready upon all resources being ready"
            yield Event("RevisionReady", text, "Revision", revision.name)
            yield Event("RevisionReady", f"Revision {revision.name} answers")
        if revision.failed and not (was and was.failed):
            text = f'Latest created revision "{revision.name}" has failed'
            yield Event("LatestCreatedFailed", text, "Configuration", name, warning=True)
            serving = describe(after.routed)
            stays = f"traffic stays {serving}" if serving else "nothing serves"
            yield Event(
                "RevisionFailed", f"Revision {revision.name} given up: {revision.failed.strip()}; {stays}", warning=True
            )
    kept = {revision.name for revision in after.revisions}
    for name in [name for name in old if name not in kept]:
        yield Event("RevisionCollected", f"Revision {name} deleted: nothing has led to it for longer than is retained")
    yield from of_route(before, after)


def of_route(before: Knative | None, after: Knative) -> Iterator[Event]:
    name = after.name
    if after.latest_ready and after.latest_ready != (before.latest_ready if before else ""):
        if not (before and before.latest_ready):
            yield Event("ConfigurationReady", "Configuration becomes ready", "Configuration", name)
        text = f'LatestReadyRevisionName updated to "{after.latest_ready}"'
        yield Event("LatestReadyUpdate", text, "Configuration", name)
    routed = before.routed if before else ()
    if after.routed == routed:
        return
    if not routed:
        yield Event("Created", f'Created placeholder service "{name}"', "Route", name)
        yield Event("Created", f'Created Ingress "{name}"', "Route", name)
    old_tags = {tag for found in tags(routed).values() for tag in found}
    for tag in sorted({tag for found in tags(after.routed).values() for tag in found} - old_tags):
        yield Event("Created", f'Created placeholder service "{tag}-{name}"', "Route", name)
    if shares(routed) != shares(after.routed):
        yield _move(routed, after.routed)


def of_status(name: str, before: Document, after: Document) -> Iterator[Event]:
    """KServe's own events about a change of the status."""
    if is_ready(after) and not is_ready(before):
        yield Event("InferenceServiceReady", f"InferenceService [{name}] is Ready")
    ready = conditions.get(after.get("conditions") or [], conditions.READY)
    if is_ready(before) and ready is not None and ready.status == conditions.FALSE:
        failed = [found["type"] for found in after["conditions"] if found["status"] == conditions.FALSE]
        text = f"InferenceService [{name}] is no longer Ready because of: {', '.join(failed)}"
        yield Event("InferenceServiceNotReady", text, warning=True)


def of_servers(
    before: Servers,
    after: Servers,
    resting: frozenset[str] = frozenset(),
    pods: str = "-l serving.knative.dev/revision={revision}",
) -> Iterator[Event]:
    """What happened to the model servers; those of the revisions `resting` are at zero for lack of requests.

    `pods` is what `kubectl logs` finds the pod of a revision by.
    """
    for revision, server in sorted(after.items()):
        was = before.get(revision)
        if server.failure is not None and (was is None or _newer(was, server)):
            lines = server.failure.message.strip().splitlines()
            last = f": {lines[-1][:500]}" if lines else ""
            if server.failure.loading:
                yield Event("StorageInitializerFailed", f"Revision {revision}{last}", warning=True)
            else:
                text = f"Server of revision {revision} ended with exit code {server.failure.exit_code}"
                see = f"; kubectl logs -p {pods.format(revision=revision)}"
                yield Event("BackOff", f"{text}; it is started again{last}{see}", warning=True)
        elif was is not None and server.ready and was.failure is not None and not was.ready:
            yield Event("Recovered", f"Server of revision {revision} answers again")
        if was is not None and server.state == "stopped" and was.state != "stopped":
            why = "nobody asks for it; the next request starts it" if revision in resting else "nothing leads to it"
            yield Event("ScaledToZero", f"Server of revision {revision} stopped: {why}")
        elif was is not None and was.state == "stopped" and server.running and revision in resting:
            yield Event("ScaledFromZero", f"Server of revision {revision} starts: there is a request for it")


def of_gateway(reason: str) -> Event:
    """What keeps the gateway from obeying."""
    return Event("TrafficNotInForce", f"Traffic stays as it was: {reason}; tried again until it works", warning=True)


def describe(routed: Sequence[Target]) -> str:
    """`routed` in words."""
    return ", ".join(f"{revision} {percent} %" for revision, percent in shares(routed).items())


def _move(before: Sequence[Target], after: Sequence[Target]) -> Event:
    """Traffic has moved: rolled out, promoted, rolled back, or split anew."""
    had, has = shares(before), shares(after)
    whole = next((revision for revision, percent in has.items() if percent == 100), "")
    if not whole or not had:
        return Event("TrafficChanged", f"Traffic is now {describe(after)}")
    others = {revision: percent for revision, percent in had.items() if percent and revision != whole}
    lost = ", ".join(f"{revision} (had {percent} %)" for revision, percent in others.items())
    if not any(target.latest and target.revision == whole for target in after):
        return Event("RolledBack", f"All traffic is with {whole} again, none with {lost}")
    if had.get(whole):
        return Event("Promoted", f"{whole} takes all traffic, from {lost}")
    return Event("RolledOut", f"{whole} takes all traffic, from {lost}")


def _content(revision: Revision) -> str:
    """What is in a revision, as far as its template says."""
    annotations = revision.template.document["annotations"]
    version, uri = annotations.get("model-version", ""), annotations.get(STORAGE_URI_ANNOTATION, "")
    said = [f"model version {version}" if version else "", f"from {uri}" if uri else ""]
    found = " ".join(part for part in said if part)
    return f" ({found})" if found else ""


def _newer(was: Server, server: Server) -> bool:
    return was.failure != server.failure or was.restarts != server.restarts
