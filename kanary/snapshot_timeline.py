"""One timeline of runs, releases, operators' acts, drift, alerts and Kubernetes' events: what happened before it broke.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kanary import release
from kanary.kfp_types import Run
from kanary.release import Document
from kanary.snapshot_alerts import DRIFT, Stretch
from kanary.snapshot_services import Service, moment
from kanary.text import duration

RUN, RELEASE, ACT, EVENT = "run", "release", "act", "event"
NORMAL, GOOD, WARNING, BAD = "normal", "good", "warning", "bad"
_ENDS = {"SUCCEEDED": GOOD, "SKIPPED": GOOD, "FAILED": BAD, "CANCELED": WARNING}
_VERDICTS = {release.ROLLED_BACK: WARNING, release.FAILED: BAD, release.PROMOTED: GOOD}
# Kinds whose events are of a service: Kubernetes' own, KServe's and Knative's.
_SERVING = ("InferenceService", "Revision", "Configuration", "Route", "Service", "Deployment", "Pod")


@dataclass(frozen=True)
class Entry:
    """One thing that happened. `subject`: namespace/service or the run's name; `ref`: what Enter opens."""

    key: str
    when: datetime
    kind: str
    subject: str
    text: str
    weight: str = NORMAL
    who: str = ""
    ref: str = ""


def timeline(
    runs: Iterable[Run],
    services: Mapping[str, Service],
    events: Mapping[str, Document],
    stretches: Iterable[Stretch] = (),
    everywhere: bool = False,
) -> list[Entry]:
    """All entries, newest first; alerts that name no namespace where they are about a service, or `everywhere`."""
    owners = {f"{s.status.namespace}/{name}": s.key for s in services.values() for name in _names(s)}
    found = [*_of_runs(runs), *_of_services(services.values()), *_of_events(events, owners)]
    found += [entry for stretch in stretches for entry in _of_stretch(stretch, owners, everywhere)]
    return sorted(found, key=lambda entry: (entry.when, entry.key), reverse=True)


def of_service(entries: Iterable[Entry], key: str) -> list[Entry]:
    """What is about one service."""
    return [entry for entry in entries if entry.subject == key]


def _of_runs(runs: Iterable[Run]) -> Iterable[Entry]:
    for run in runs:
        if run.created_at is not None:
            yield Entry(f"run/{run.run_id}/0", run.created_at, RUN, run.name, "started", ref=run.run_id)
        if run.finished_at is not None and run.final:
            text = run.state.lower() + (f": {run.error}" if run.error and run.state == "FAILED" else "")
            weight = _ENDS.get(run.state, NORMAL)
            yield Entry(f"run/{run.run_id}/1", run.finished_at, RUN, run.name, text, weight, ref=run.run_id)


def _of_services(services: Iterable[Service]) -> Iterable[Entry]:
    for service in services:
        key = service.key
        for index, entry in enumerate(service.state.history):
            if (when := moment(entry.when)) is not None:
                verdict = "" if entry.verdict == release.CANARY else f", {entry.verdict} since"
                text = f"release of {entry.version or entry.digest}{verdict}" + (f": {entry.why}" if entry.why else "")
                weight = _VERDICTS.get(entry.verdict, NORMAL)
                yield Entry(f"release/{key}/{index}/{entry.when}", when, RELEASE, key, text, weight, entry.who, key)
        for denial in service.state.denied:
            if (when := moment(denial.when)) is not None:
                text = f"{denial.version or denial.digest} denied" + (f": {denial.why}" if denial.why else "")
                yield Entry(f"denied/{key}/{denial.digest}", when, ACT, key, text, WARNING, denial.who, key)
        intent = service.state.intent
        if intent is not None and intent.action != release.DEPLOY and (when := moment(intent.when)) is not None:
            share = f" to {intent.percent} %" if intent.action == release.SET_TRAFFIC else ""
            text = f"{intent.action}{share} of {intent.version or intent.digest}: {intent.phase}"
            text += f" ({intent.why})" if intent.why else ""
            weight = WARNING if intent.action == release.ROLLBACK else NORMAL
            yield Entry(f"act/{key}/{intent.when}", when, ACT, key, text, weight, intent.who, key)


def _of_stretch(stretch: Stretch, owners: Mapping[str, str], everywhere: bool) -> Iterable[Entry]:
    """When it began, and when it was over."""
    labels = stretch.labels
    name = labels.get("alertname") or "an alert"
    subject = _subject(labels, owners)
    if not subject and not labels.get("namespace") and not everywhere:
        return
    if not subject:
        subject = "/".join(filter(None, (labels.get("namespace"), labels.get("service") or name)))
    if stretch.kind == DRIFT:
        columns = f"{stretch.most} column{'' if stretch.most == 1 else 's'}"
        begun = f"drift detected in {columns} of {labels.get('version') or labels.get('revision') or '?'}"
        over, weight = "no drift any more", WARNING
    else:
        weight = BAD if labels.get("severity") in ("critical", "page", "error") else WARNING
        weight = NORMAL if labels.get("severity") in ("info", "none") else weight
        begun, over = f"{name} fires", f"{name} is over"
    begun += "" if stretch.exact else ", or since before"
    begun += f": {stretch.says}" if stretch.says else ""
    yield Entry(f"{stretch.key}/0", stretch.start, stretch.kind, subject, begun, weight, ref=subject)
    if stretch.end is not None:
        took = duration((stretch.end - stretch.start).total_seconds())
        yield Entry(f"{stretch.key}/1", stretch.end, stretch.kind, subject, f"{over}, after {took}", GOOD, ref=subject)


def _subject(labels: Mapping[str, str], owners: Mapping[str, str]) -> str:
    """The service that labels name, one of its revisions or pods; empty where they name none, or one of several."""
    known = set(owners.values())
    namespaces = [labels["namespace"]] if labels.get("namespace") else {key.partition("/")[0] for key in known}
    for label in _ABOUT:
        if labels.get(label):
            about = {_owner(f"{namespace}/{labels[label]}", owners) for namespace in namespaces} & known
            if len(about) == 1:
                return about.pop()
    return ""


def _of_events(events: Mapping[str, Document], owners: Mapping[str, str]) -> Iterable[Entry]:
    for key, event in events.items():
        about: Mapping[str, Any] = event.get("involvedObject") or {}
        when = next((found for field in _TIMES if (found := moment(event.get(field)))), None)
        if when is None or about.get("kind") not in _SERVING:
            continue
        named = f"{about.get('namespace') or ''}/{about.get('name') or ''}"
        subject = named if about.get("kind") == "InferenceService" else _owner(named, owners)
        count = event.get("count")
        times = f" (×{count})" if isinstance(count, int) and count > 1 else ""
        text = f"{event.get('reason') or ''}: {event.get('message') or ''}{times}"
        weight = WARNING if event.get("type") == "Warning" else NORMAL
        yield Entry(f"event/{key}", when, EVENT, subject, text, weight, ref=subject)


def _owner(named: str, owners: Mapping[str, str]) -> str:
    """The service of an object: a pod's or a deployment's name begins with its revision's."""
    name = named
    while name:
        if name in owners:
            return owners[name]
        name = name.rpartition("-")[0]
    return named


# Labels of alerts and drift that may name a service, one of its revisions or pods.
_ABOUT = ("inferenceservice", "service", "exported_service", "revision", "revision_name", "deployment", "pod")
_TIMES = ("lastTimestamp", "eventTime", "firstTimestamp", "deprecatedLastTimestamp")


def _names(service: Service) -> Iterable[str]:
    """The names of Kubernetes' objects that belong to a service."""
    name = service.status.name
    yield from (name, f"{name}-predictor", f"{name}-transformer")
    yield from (revision.name for revision in service.status.revisions)
    yield from (entry.revision for entry in service.state.history if entry.revision)
