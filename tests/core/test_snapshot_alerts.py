"""Alerts and drift as Prometheus has seen them, as stretches of time and as entries of the timeline."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kanary.errors import ApiError
from kanary.operations import Request
from kanary.snapshot_alerts import ALERT, DRIFT, SPAN, Alerts, Stretch, refresh
from kanary.snapshot_services import Service, read_service
from kanary.snapshot_timeline import BAD, GOOD, NORMAL, WARNING, timeline
from tests.tui.cluster import status

NOW = 1_800_000_000.0
Json = dict[str, Any]
LATENCY = {"__name__": "ALERTS", "alertstate": "firing", "alertname": "Slow", "namespace": "ns", "severity": "critical"}
MODEL = {"namespace": "ns", "service": "m", "revision": "m-predictor-00001", "version": "v1"}


def series(labels: Json, *minutes: float, value: str = "1") -> Json:
    """Samples so many minutes ago."""
    return {"metric": labels, "values": [[NOW - 60 * ago, value] for ago in minutes]}


def told(
    alerts: list[Json], drift: list[Json], active: Any = (), columns: list[Json] | None = None
) -> tuple[Alerts, list[str]]:
    queries: list[str] = []

    def answer(request: Request) -> Any:
        if request.path == "/api/v1/alerts":
            if isinstance(active, Exception):
                raise active
            return {"data": {"alerts": list(active)}}
        query = request.params["query"]
        if query == "time()":
            return {"data": {"resultType": "scalar", "result": [NOW, str(NOW)]}}
        queries.append(query)
        found = alerts if "ALERTS" in query else drift if query.startswith("count") else columns or []
        return {"data": {"result": found}}

    return call(answer), queries


def call(answer: Callable[[Request], Any]) -> Alerts:
    operation = refresh("ns", {"cluster": "prod"})
    given: Any = None
    error: ApiError | None = None
    while True:
        try:
            request = operation.send(given) if error is None else operation.throw(error)
        except StopIteration as end:
            found: Alerts = end.value
            return found
        given, error = None, None
        try:
            given = answer(request)
        except ApiError as failed:
            error = failed


def ago(minutes: float) -> datetime:
    return datetime.fromtimestamp(NOW - 60 * minutes, UTC)


def test_samples_that_follow_each_other_are_one_stretch_and_the_last_one_may_go_on() -> None:
    found, queries = told([series(LATENCY, 30, 29, 28, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)], [])
    own = {"alertname": "Slow", "namespace": "ns", "severity": "critical"}
    assert found.stretches == (Stretch(ALERT, own, ago(10), None, 1), Stretch(ALERT, own, ago(30), ago(27.5), 1))
    assert all('cluster="prod"' in query for query in queries)
    assert ['namespace=~"ns|"' in query for query in queries] == ["ALERTS" in query for query in queries]
    assert ['namespace="ns"' in query for query in queries] == ["kanary_drift" in query for query in queries]


def test_what_may_have_begun_before_says_so() -> None:
    found, _ = told([series(LATENCY, SPAN / 60, SPAN / 60 - 1)], [])
    later, _ = told([series(LATENCY, SPAN / 60 - 0.5, SPAN / 60 - 1)], [])
    assert not found.stretches[0].exact
    assert found.stretches[0].key == later.stretches[0].key, "it is the same one, though it is seen from later on"


def test_an_alert_that_goes_on_says_what_it_is_about_and_one_without_a_list_does_without() -> None:
    labels = {key: value for key, value in LATENCY.items() if key not in ("__name__", "alertstate")}
    active = [{"labels": labels, "annotations": {"summary": "p99 is 3 s"}, "state": "firing"}]
    assert told([series(LATENCY, 1, 0)], [], active)[0].stretches[0].says == "p99 is 3 s"
    assert told([series(LATENCY, 1, 0)], [], [{"labels": 3}])[0].stretches[0].says == ""
    assert told([series(LATENCY, 1, 0)], [], ApiError("404", "", 404))[0].stretches[0].says == ""


def test_drift_tells_how_many_columns_at_most_and_which_now() -> None:
    columns = [{"metric": MODEL | {"feature": f}, "value": [NOW, "1"]} for f in ("d", "a", "c", "b")]
    columns.append({"metric": MODEL | {"service": "other", "feature": "x"}, "value": [NOW, "1"]})
    found, _ = told([], [series(MODEL, 2, 1, 0, value="4")], (), columns)
    assert found.stretches == (Stretch(DRIFT, MODEL, ago(2), None, 4, "a, b, c and 1 more"),)


@pytest.mark.parametrize("value", ["many", None])
def test_nonsense_is_an_error_of_the_server(value: Any) -> None:
    with pytest.raises(ApiError, match="where a number should be"):
        told([{"metric": LATENCY, "values": [[NOW, value]]}], [])


def service(namespace: str = "ns") -> Service:
    metadata = {"name": "m", "namespace": namespace, "creationTimestamp": "2026-11-20T00:00:00Z"}
    return read_service({"metadata": metadata, "spec": {"predictor": {}}, "status": status("m", None)}, None)


def test_they_stand_in_the_timeline_by_their_service_with_an_end() -> None:
    pod = {"alertname": "Crash", "namespace": "ns", "severity": "warning", "pod": "m-predictor-00001-deployment-5-x"}
    stretches = (
        Stretch(DRIFT, MODEL, ago(9), ago(3), 2),
        Stretch(ALERT, {"alertname": "Slow", "namespace": "ns", "severity": "critical"}, ago(8), says="p99 [red]"),
        Stretch(ALERT, pod, ago(7), exact=False),
        Stretch(ALERT, {"alertname": "Fyi", "namespace": "ns", "severity": "info"}, ago(6)),
    )
    entries = timeline((), {"ns/m": service()}, {}, stretches)
    assert [(e.kind, e.subject, e.text, e.weight) for e in reversed(entries)] == [
        (DRIFT, "ns/m", "drift detected in 2 columns of v1", WARNING),
        (ALERT, "ns/Slow", "Slow fires: p99 [red]", BAD),
        (ALERT, "ns/m", "Crash fires, or since before", WARNING),
        (ALERT, "ns/Fyi", "Fyi fires", NORMAL),
        (DRIFT, "ns/m", "no drift any more, after 6m 00s", GOOD),
    ]
    assert len({entry.key for entry in entries}) == 5


def test_an_alert_without_a_namespace_is_told_where_it_names_one_service_or_everywhere() -> None:
    stretches = (
        Stretch(ALERT, {"alertname": "Slow", "inferenceservice": "m"}, ago(8)),
        Stretch(ALERT, {"alertname": "Disk", "service": "node-exporter"}, ago(7)),
        Stretch(ALERT, {"alertname": "Watchdog"}, ago(6)),
    )
    one, two = {"ns/m": service()}, {"ns/m": service(), "other/m": service("other")}
    assert [e.subject for e in timeline((), one, {}, stretches)] == ["ns/m"]
    assert timeline((), two, {}, stretches) == []  # whose it is nobody can tell
    everywhere = timeline((), two, {}, stretches, everywhere=True)
    assert [e.subject for e in reversed(everywhere)] == ["Slow", "node-exporter", "Watchdog"]
    assert timeline((), {}, {}, stretches) == []
