"""The monitor's snapshots as values by key, as a recording holds them, and snapshots made of such values again. Pure.

Kubernetes' objects stand there as the API gave them, but for secrets: services are read from them as they are live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from kanary import recording_secrets as secrets
from kanary.errors import InputError
from kanary.kfp_pods import NODE_NAME
from kanary.kfp_types import Run
from kanary.recording_types import plain, restored
from kanary.rollout import profiles
from kanary.snapshot import Snapshot
from kanary.snapshot_alerts import Alerts, Stretch
from kanary.snapshot_course import Grid, Past
from kanary.snapshot_drift import Bin, Drift, Finding, Model, course_of
from kanary.snapshot_metrics import POINTS, Course, Metrics, Point
from kanary.snapshot_rights import Rights
from kanary.snapshot_runs import Runs
from kanary.snapshot_services import Service, Services, joined

Items = Mapping[str, Any]
Document = Mapping[str, Any]
# A value's key, what it is made of (the same object, or an equal one, makes the same value), and how.
Part = tuple[str, Any, Callable[[Any], Any]]
META = ""
PAST = ("p_values", "detected", "thresholds", "unknown")
_EVENT = ("reason", "message", "type", "count", "lastTimestamp", "eventTime", "firstTimestamp",
          "deprecatedLastTimestamp")  # fmt: skip
_UNSEEN = ("tally", "counting", "evidence", "findings")  # of a rollout: what the judge counts with, nothing shows
_TOLD = ("error", "hint", "failures", "live")


# ---- to values


def told(snapshot: Snapshot[Any], shift: float) -> dict[str, Any]:
    """How a source stands; `shift`: what makes seconds since the epoch of the monotonic clock's."""
    moments = {name: getattr(snapshot, name) for name in ("at", "retry_at")}
    found = {name: round(value + shift, 2) for name, value in moments.items() if value is not None}
    return found | {name: secrets.clean(held) for name in _TOLD if (held := getattr(snapshot, name))}


def parts_of_runs(runs: Runs) -> Iterator[Part]:
    yield META, {"total": runs.total}, secrets.clean
    for run_id, run in runs.by_id.items():
        yield f"run/{run_id}", run, _plain


def parts_of_cluster(
    documents: Mapping[str, Document],
    config_maps: Mapping[str, Document],
    routes: Mapping[str, Document],
    pods: Mapping[str, Document],
) -> Iterator[Part]:
    for key, document in documents.items():
        yield f"service/{key}", document, secrets.clean
    for key, config_map in config_maps.items():
        yield f"map/{key}", config_map.get("metadata") or {}, secrets.clean
        for name, text in (config_map.get("data") or {}).items():
            yield f"data/{name}/{key}", text, _data
    for key, route in routes.items():
        yield f"route/{key}", route, secrets.clean
    for key, found in pods.items():
        yield f"pod/{key}", found, _serving_pod


def parts_of_metrics(metrics: Metrics) -> Iterator[Part]:
    profile = metrics.profile.name if metrics.profile else ""
    head = {"profile": profile, "window": metrics.window, "interval": metrics.interval, "blind": metrics.blind}
    yield META, head, plain
    for key, course in metrics.courses.items():
        yield f"course/{key}", course, _points


def parts_of_drift(drift: Drift) -> Iterator[Part]:
    past = drift.past
    grid = [past.grid.end, past.grid.step, past.span] if past else None
    head = {name: getattr(drift, name) for name in ("total", "detectors", "budget", "spent")}
    yield META, head | {"past": grid}, plain
    for key, model in drift.models.items():
        yield f"model/{key}", model, _plain
    for key, finding in drift.findings.items():
        yield f"finding/{key}", replace(finding, course=None), _finding
    for name in PAST if past else ():
        for key, pairs in getattr(past, name).items():
            yield f"{name}/{key}", pairs, plain


def parts_of_events(events: Mapping[str, Document]) -> Iterator[Part]:
    for key, event in events.items():
        yield f"event/{key}", event, _event


def parts_of_alerts(alerts: Alerts) -> Iterator[Part]:
    for index, stretch in enumerate(reversed(alerts.stretches)):
        yield f"stretch/{index:04d}", stretch, _plain


def parts_of_rights(rights: Rights) -> Iterator[Part]:
    yield META, rights, _plain


def pod(document: Document) -> dict[str, Any]:
    """What of a pod tells whose it is."""
    metadata = document.get("metadata") or {}
    kept = {name: metadata[name] for name in ("name", "namespace", "creationTimestamp") if metadata.get(name)}
    told = metadata.get("labels") or {}
    labels = {key: text for key, text in told.items() if key == "app" or "knative" in key or "kserve" in key}
    node = (metadata.get("annotations") or {}).get(NODE_NAME)
    annotations = {NODE_NAME: secrets.clean_text(node)} if isinstance(node, str) else {}
    return {"metadata": kept | {"labels": labels, "annotations": annotations}}


def tail(before: Any, after: Any) -> list[Any] | None:
    """How a list or a text has grown at its end and lost at its start: [lost, added]; None where it is another."""
    if type(before) is not type(after) or not isinstance(before, list | str) or not before or not after:
        return None
    first = after[:64]
    for lost in _places(before, first):
        kept = len(before) - lost
        if after[:kept] == before[lost:]:
            return [lost, after[kept:]]
    return None


def _places(before: Any, first: Any) -> Iterator[int]:
    """Where in `before` the first part of what comes after may begin, the earliest first."""
    if isinstance(before, str):
        yield 0
        yield from [found] if (found := before.find(first)) > 0 else []
        return
    yield from (index for index, value in enumerate(before) if value == first[0])


def _serving_pod(document: Document) -> dict[str, Any]:
    return pod(document) | {"status": secrets.clean(document.get("status") or {})}


def _plain(value: Any) -> Any:
    return secrets.clean(plain(value))


def _finding(finding: Finding) -> dict[str, Any]:
    found: dict[str, Any] = _plain(finding)
    return found | {"model": finding.model.key}


def _data(text: Any) -> str:
    return secrets.clean_json(str(text), _UNSEEN)


def _points(course: Course) -> list[list[float | None]]:
    return [[round(p.at, 3), *(_short(n) for n in (p.requests, p.errors, p.p50, p.p99))] for p in course.points]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _event(event: Document) -> dict[str, Any]:
    about = event.get("involvedObject") or {}
    named = {name: about[name] for name in ("kind", "namespace", "name") if about.get(name)}
    kept = {name: event[name] for name in _EVENT if event.get(name)}
    found: dict[str, Any] = secrets.clean(kept | {"involvedObject": named})
    return found


# ---- from values


def snapshot(value: Any, stands: Mapping[str, Any]) -> Snapshot[Any]:
    """A snapshot with this value; its times are seconds since the epoch."""
    return replace(restored(Snapshot, {name: stands[name] for name in _STANDS if name in stands}), value=value)


def runs(items: Items) -> Runs:
    by_id = {key.partition("/")[2]: restored(Run, run) for key, run in items.items() if key.startswith("run/")}
    total = _meta(items).get("total")
    return Runs(MappingProxyType(by_id), total=total if isinstance(total, int) else len(by_id))


def services(items: Items, before: Services) -> Services:
    documents: dict[str, dict[str, Any]] = {}
    config_maps: dict[str, dict[str, Any]] = {}
    routes = {key: _mapping(value, key) for key, value in _under("route", items)}
    pods = {key: _mapping(value, key) for key, value in _under("pod", items)}
    for key, value in items.items():
        kind, _, rest = key.partition("/")
        if kind == "service":
            documents[rest] = _mapping(value, key)
        elif kind == "map":
            config_maps[rest] = {"metadata": _mapping(value, key), "data": {}}
    for key, value in items.items():
        kind, _, rest = key.partition("/")
        name, _, owner = rest.partition("/")
        if kind == "data" and owner in config_maps:
            config_maps[owner]["data"][name] = value
    found: dict[str, Service] = joined(Snapshot(documents), Snapshot(config_maps), before, routes, pods)
    return MappingProxyType(found)


def metrics(items: Items) -> Metrics:
    head = _meta(items)
    profile = next((one for one in profiles.ALL if one.name == head.get("profile")), None)
    courses = {
        key.partition("/")[2]: Course(tuple(map(_point, _list(value, key)[-POINTS:])))
        for key, value in items.items()
        if key.startswith("course/") and value
    }
    told = restored(Metrics, {name: head[name] for name in ("window", "interval", "blind") if name in head})
    return replace(told, courses=MappingProxyType(courses), profile=profile)


def drift(items: Items) -> Drift:
    head = _meta(items)
    models = {key: restored(Model, value) for key, value in _under("model", items)}
    past = _past(items, head.get("past"))
    findings = {}
    for key, value in _under("finding", items):
        model = models.get(str(_mapping(value, key).get("model")))
        if model is None:
            continue
        made = restored(Finding, value | {"model": _NO_MODEL})
        course = course_of(past, key, model, made.p_value, made.detected) if past else None
        findings[key] = replace(made, model=model, course=course)
    told = restored(Drift, {name: head[name] for name in ("total", "detectors", "budget", "spent") if name in head})
    return replace(told, models=MappingProxyType(models), findings=MappingProxyType(findings), past=past)


def events(items: Items) -> Mapping[str, dict[str, Any]]:
    return MappingProxyType({key: _mapping(value, key) for key, value in _under("event", items)})


def alerts(items: Items) -> Alerts:
    return Alerts(tuple(restored(Stretch, value) for _, value in sorted(_under("stretch", items), reverse=True)))


def rights(items: Items) -> Rights:
    return restored(Rights, _meta(items))


def bins(value: Any) -> tuple[Bin, ...]:
    """The bins of one column."""
    return tuple(restored(Bin, dict(zip(("values", "reference", "current"), row, strict=False))) for row in value)


def _past(items: Items, grid: Any) -> Past | None:
    if grid is None:
        return None
    if not isinstance(grid, list) or len(grid) != 3 or not all(isinstance(n, int | float) and n > 0 for n in grid):
        raise InputError("The past of drift is not what it should be.")
    pairs = {name: {key: _list(value, key) for key, value in _under(name, items)} for name in PAST}
    return Past(Grid(float(grid[0]), float(grid[1])), float(grid[2]), **pairs)


def _point(row: Any) -> Point:
    if not isinstance(row, list) or len(row) != 5 or row[0] is None or row[1] is None:
        raise InputError("A point of a course is not what it should be.")
    return restored(Point, dict(zip(("at", "requests", "errors", "p50", "p99"), row, strict=True)))


def _under(kind: str, items: Items) -> Iterator[tuple[str, Any]]:
    return ((key[len(kind) + 1 :], value) for key, value in items.items() if key.startswith(f"{kind}/"))


def _meta(items: Items) -> Mapping[str, Any]:
    return _mapping(items.get(META, {}), "the head")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where[:80]} is not what it should be.")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where[:80]} is not what it should be.")
    return value


_STANDS = ("at", "error", "hint", "failures", "retry_at", "live")
_NO_MODEL = dict.fromkeys(("namespace", "service", "revision", "version"), "")
