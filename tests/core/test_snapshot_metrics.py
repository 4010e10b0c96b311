from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kanary.errors import ApiError
from kanary.operations import Operation, Request
from kanary.rollout import profiles
from kanary.rollout.profiles import Where
from kanary.snapshot_metrics import Count, Metrics, count, queries, refresh

Json = dict[str, Any]
ENVOY, ISTIO, OTEL, KNATIVE, _ = profiles.ALL


class Server:
    """Answers from a function of the query; its clock is the test's."""

    def __init__(self, values: Mapping[str, float], scrapes: float = 60.0, prefix: str = "rq_completed") -> None:
        self.values, self.scrapes, self.prefix = dict(values), scrapes, prefix
        self.now = 1000.0
        self.asked: list[Request] = []

    def answer(self, request: Request) -> Json:
        self.asked.append(request)
        query = request.params["query"]
        if query == "time()":
            return {"data": {"resultType": "scalar", "result": [self.now, str(self.now)]}}
        if query.startswith("max(count_over_time"):
            there = self.prefix in query
            minutes = 5 if "[300s]" in query else 1
            result = [{"metric": {}, "value": [self.now, str(self.scrapes * minutes)]}] if there else []
            return {"data": {"result": result}}
        failed = any(word in query for word in ('class="5', 'code=~"5'))
        part = "p50" if "(0.5" in query else "p99" if "(0.99" in query else "failed" if failed else ""
        labels = {
            label: value
            for profile in profiles.ALL
            for label, value in ((profile.wide.namespace if profile.wide else "", "ns"), (profile.arm, "m-1"))
        }
        value = str(self.values.get(part, self.values["requests"]))
        if request.path.endswith("query_range"):
            start, step = float(request.params["start"]), float(request.params["step"])
            values = [[start + step * index, value] for index in range(60)]
            return {"data": {"result": [{"metric": labels, "values": values}]}}
        return {"data": {"result": [{"metric": labels, "value": [self.now, value]}]}}


def call(operation: Operation[Any], server: Server) -> Any:
    answer = None
    while True:
        try:
            answer = server.answer(operation.send(answer))
        except StopIteration as end:
            return end.value


VALUES = {"requests": 4.0, "failed": 1.0, "p50": 3.0, "p99": 250.0}


@pytest.mark.parametrize("profile", profiles.ALL[:4], ids=lambda profile: profile.name)
def test_the_profile_is_found_and_the_window_holds_four_scrapes(profile: profiles.Profile) -> None:
    metric = {ENVOY: "rq_completed", ISTIO: "istio_requests", OTEL: "kn_serving", KNATIVE: "revision_app"}[profile]
    found = call(refresh(Metrics(), 2.0), Server(VALUES, scrapes=60.0, prefix=metric))
    assert (found.profile, found.interval, found.window) == (profile, 1.0, 10.0)
    assert list(found.courses) == ["ns/m-1"]
    found = call(refresh(Metrics(), 2.0), Server(VALUES, scrapes=2.0, prefix=metric))
    assert (found.profile, found.interval, found.window) == (profile, 30.0, 120.0)


def test_a_proxy_that_cannot_tell_revisions_apart_is_named_with_the_reason() -> None:
    found = call(refresh(Metrics(), 2.0), Server(VALUES, prefix="httproute/"))
    assert found.profile is None
    assert "Envoy Gateway" in found.note
    assert "cannot be told apart" in found.note


def test_selectors_stand_in_every_query_quoted() -> None:
    for profile in profiles.ALL:
        server = Server(VALUES, prefix={"sandbox": "rq_completed", "istio": "istio_requests"}.get(profile.name, "?"))
        call(refresh(Metrics(), 2.0, {"cluster": 'a"b'}), server)
        asked = [request.params["query"] for request in server.asked if request.params["query"] != "time()"]
        assert asked
        assert all('cluster="a\\"b"' in query for query in asked)


def test_without_metrics_by_revision_it_says_so() -> None:
    found = call(refresh(Metrics(), 2.0), Server(VALUES, prefix="nothing"))
    assert found.profile is None
    assert "no metrics" in found.note


def test_the_course_is_read_once_and_then_goes_on_point_by_point() -> None:
    server = Server(VALUES)
    found = call(refresh(Metrics(), 2.0), server)
    course = found.courses["ns/m-1"]
    assert len(course.points) == 60
    assert (course.now.at, course.now.requests, course.now.errors) == (1000.0, 4.0, 0.25)
    assert (course.now.p50, course.now.p99) == (0.003, 0.25)
    server.now, server.values["requests"] = 1002.0, 8.0
    after = call(refresh(found, 2.0), server).courses["ns/m-1"]
    assert len(after.points) == 60
    assert (after.now.at, after.now.requests, after.now.errors) == (1002.0, 8.0, 0.125)
    assert after.points[-2] == course.now


@pytest.mark.parametrize("moment", [1100.0, 900.0])
def test_after_a_gap_or_a_clock_set_back_the_course_is_read_anew(moment: float) -> None:
    server = Server(VALUES)
    found = call(refresh(Metrics(), 2.0), server)
    server.now = moment
    after = call(refresh(found, 2.0), server)
    assert server.asked[-1].path == "/api/v1/query_range"
    assert after.courses["ns/m-1"].now.at == moment


def test_what_is_no_number_is_no_point() -> None:
    nothing = call(refresh(Metrics(), 2.0), Server(VALUES | {"requests": float("nan")}))
    assert not nothing.courses
    idle = call(refresh(Metrics(), 2.0), Server({"requests": 0.0, "p50": float("nan"), "p99": float("inf")}))
    now = idle.courses["ns/m-1"].now
    assert (now.requests, now.errors, now.p50, now.p99) == (0.0, None, None, None)


@pytest.mark.parametrize("answer", [{}, [], {"data": {"result": 3}}, {"data": {"result": [{"value": [0, "many"]}]}}])
def test_nonsense_is_an_error_of_the_server(answer: Any) -> None:
    operation = refresh(Metrics(), 2.0)
    operation.send(None)
    with pytest.raises(ApiError, match="Prometheus answered"):
        operation.send(answer)


def test_retries_count_as_failures_where_the_proxy_tells_of_them() -> None:
    """By the request, however often it was tried: attempts are up to 32 for one."""
    requests, failed, *_ = queries(ENVOY, 10.0, {})
    assert "envoy_cluster_upstream_rq_completed{" in requests
    assert "envoy_cluster_upstream_rq_retry_success{" in failed
    assert "upstream_rq_retry{" not in failed
    assert 'envoy_response_code_class="5"' in failed


def counted(answers: list[list[tuple[str, float]]]) -> tuple[Count, list[str]]:
    operation = count(ENVOY, Where("ns", "m", ("m-1", "m-2"), {"cluster": "prod"}))
    asked, answer = [], None
    for result in [*answers, []]:
        try:
            asked.append(operation.send(answer).params["query"])
        except StopIteration as end:
            return end.value, asked
        vector = [{"metric": {"instance": who}, "value": [0, str(value)]} for who, value in result]
        answer = {"data": {"result": vector}}
    raise AssertionError("it asks for more")


def test_the_requests_to_some_revisions_are_added_up_over_all_who_count() -> None:
    found, asked = counted([[("a", 3.0), ("b", 4.0)], [("a", 100.0), ("b", 101.0)], [("a", 1.0)]])
    assert found == Count(7.0, 101.0, 1.0)
    assert all('revision=~"m-1|m-2"' in query and 'cluster="prod"' in query for query in asked)
    assert "rate(" not in asked[0]


def test_requests_that_are_counted_no_more_are_none() -> None:
    assert counted([[], [], []])[0] == Count(None)
