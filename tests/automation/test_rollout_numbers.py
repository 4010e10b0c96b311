"""From Prometheus' answers to both arms' counters: profiles, instances that start anew, tokens, what is refused.

Answers for proxies that do not run here are written after their documentation, which kanary.rollout.profiles names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from kanary.errors import ApiError, ConfigError, InputError, Unreachable
from kanary.rollout import observe, planning, profiles, tally
from kanary.rollout import policy as policies
from kanary.rollout.observe import Arms, Unobservable
from kanary.rollout.profiles import Where
from kanary.rollout.prometheus import Prometheus, Sample
from kanary.rollout.tally import Raw, Tally
from tests.automation.answering import prometheus_like

ARMS = Arms("m-predictor-00002", "m-predictor-00001", "v2", "v1")
WHERE = Where("models", "m", (ARMS.canary, ARMS.stable), {})
AT = 1_800_000_000.0
Answers = dict[str, list[tuple[dict[str, str], float]]]


@dataclass
class Recorded:
    """Answers by what a query must contain; the most specific wins. Other queries find nothing."""

    answers: Answers
    asked: list[tuple[str, float]] = field(default_factory=list)

    def instant(self, query: str, at: float) -> tuple[Sample, ...]:
        self.asked.append((query, at))
        found = [part for part in self.answers if all(word in query for word in part.split(" & "))]
        best = max(found, key=len, default="")
        return tuple(Sample(labels, value) for labels, value in self.answers.get(best, []))


def arm(label: str, canary: float, stable: float, **more: str) -> list[tuple[dict[str, str], float]]:
    return [
        ({label: ARMS.canary, "instance": "a", **more}, canary),
        ({label: ARMS.stable, "instance": "a", **more}, stable),
    ]


def buckets(label: str, edges: dict[str, float]) -> list[tuple[dict[str, str], float]]:
    return [entry for le, value in edges.items() for entry in arm(label, value, 2 * value, le=le)]


SANDBOX: Answers = {
    "upstream_rq_completed": arm("revision", 100, 300),
    'upstream_rq_xx & class="5"': arm("revision", 7, 1),
    "upstream_rq_retry_success": arm("revision", 3, 0),
    "upstream_rq_retry{": arm("revision", 40, 0),
    "upstream_rq_time_bucket": buckets("revision", {"5": 10, "10": 60, "+Inf": 93}),
    "timestamp(envoy_cluster_upstream_rq_completed & revision": arm("revision", AT - 1, AT - 1),
    "kanary_predictions_total": [
        ({"revision": ARMS.canary, "version": "v2", "class": "iris", "instance": "s2"}, 50),
        ({"revision": ARMS.stable, "version": "v1", "class": "rose", "instance": "s1"}, 250),
    ],
}
ISTIO: Answers = {
    'istio_requests_total & reporter="source"': arm("destination_service_name", 100, 300),
    'istio_requests_total & response_code=~"5.."': arm("destination_service_name", 7, 1),
    "istio_request_duration_milliseconds_bucket": buckets("destination_service_name", {"5": 10, "10": 60, "+Inf": 93}),
    'timestamp(istio_requests_total & reporter="source"': arm("destination_service_name", AT - 9, AT - 4),
    # A PodMonitor without honorLabels, and no label for the revision: told apart by the model's version.
    "kanary_predictions_total": [
        ({"version": "v2", "class": "iris", "instance": "s2"}, 50),
        ({"version": "v1", "class": "rose", "instance": "s1"}, 250),
    ],
}
KNATIVE: Answers = {
    "revision_app_request_count": arm("revision_name", 100, 300),
    'revision_app_request_count & response_code_class="5xx"': arm("revision_name", 7, 1),
    "revision_app_request_latencies_bucket": buckets("revision_name", {"5": 10, "10": 60, "+Inf": 93}),
}
OTEL: Answers = {
    "kn_serving_invocation_duration_seconds_count & target_info": arm("kn_revision_name", 100, 300),
    'kn_serving_invocation_duration_seconds_count & target_info & status_code=~"5.."': arm("kn_revision_name", 7, 1),
    "kn_serving_invocation_duration_seconds_bucket": buckets("kn_revision_name", {"0.005": 10, "0.01": 60, "+Inf": 93}),
}


@pytest.mark.parametrize(
    ("name", "answers"),
    [("sandbox", SANDBOX), ("istio", ISTIO), ("knative", KNATIVE), ("knative-otel", OTEL)],
)
def test_a_profile_is_found_by_the_series_that_are_there(name: str, answers: Any) -> None:
    source = Recorded(answers)
    reading = observe.read(source, WHERE, ARMS, policies.Prometheus(), "", AT)
    assert reading.profile == name
    counted = reading.raw.arms[ARMS.canary]["a"]
    assert (counted["requests"], counted["errors"]) == (100, 7)
    assert {edge: counted[f"le:{edge}"] for edge in ("5", "10", "+Inf")} == {"5": 10, "10": 60, "+Inf": 93}
    assert reading.raw.arms[ARMS.stable]["a"]["requests"] == 300
    assert bool(reading.notes) == name.startswith("knative")
    # One round is of one moment, and raw counters are asked for.
    assert {at for _, at in source.asked} == {AT}
    assert not any("rate(" in query or "increase(" in query for query, _ in source.asked)


def test_a_mesh_counts_where_the_callers_are_and_the_oldest_scrape_is_told() -> None:
    source = Recorded(ISTIO)
    reading = observe.read(source, WHERE, ARMS, policies.Prometheus(), "istio", AT)
    assert (reading.oldest, reading.newest) == (AT - 9, AT - 4)
    for query, _ in source.asked:
        if "istio_" in query:
            assert 'reporter="source"' in query
            assert 'destination_service_namespace="models"' in query


@pytest.mark.parametrize("answers", [SANDBOX, ISTIO])
def test_predictions_by_class_are_told_apart_by_revision_or_version(answers: Any) -> None:
    reading = observe.read(Recorded(answers), WHERE, ARMS, policies.Prometheus(), "", AT)
    assert reading.raw.arms[ARMS.canary]["server s2"] == {"class:iris": 50}
    assert reading.raw.arms[ARMS.stable]["server s1"] == {"class:rose": 250}


def test_versions_of_one_name_do_not_tell_arms_apart() -> None:
    alike = replace(ARMS, stable_version="v2")
    reading = observe.read(Recorded(ISTIO), WHERE, alike, policies.Prometheus(), "", AT)
    assert not any(name.startswith("server") for arm in reading.raw.arms.values() for name in arm)


def test_envoy_gateway_s_one_cluster_is_unobservable_and_says_why() -> None:
    answers: Answers = {"httproute/models/m": [({}, 1.0)]}
    with pytest.raises(Unobservable, match="one cluster of all backends") as refused:
        observe.read(Recorded(answers), WHERE, ARMS, policies.Prometheus(), "", AT)
    assert "rollout.prometheus.queries" in refused.value.hint


def test_without_any_series_it_is_said_what_was_looked_for() -> None:
    with pytest.raises(Unobservable, match="sandbox, istio, knative-otel, knative, gateway-api"):
        observe.read(Recorded({}), WHERE, ARMS, policies.Prometheus(), "", AT)


@pytest.mark.parametrize(("age", "refused"), [(0.4, True), (3.0, False)])
def test_there_is_no_plan_before_there_are_two_scrapes(age: float, refused: bool) -> None:
    class Young(Recorded):
        """Requests are counted since `age` seconds, 100 a second."""

        def instant(self, query: str, at: float) -> tuple[Sample, ...]:
            if at < AT - age:
                return ()
            if "timestamp(" in query:
                return (Sample({}, at),)
            gone = 100 * (at - AT) if "upstream_rq_completed" in query else 0
            return tuple(Sample(one.labels, one.value + gone) for one in super().instant(query, at))

    def look() -> planning.Traffic:
        return planning.traffic(Young(SANDBOX), WHERE, ARMS, policies.parse({}), AT, 300.0)

    if refused:
        with pytest.raises(InputError, match="models/m only once yet") as why:
            look()
        assert "--rate" in why.value.hint
    else:
        seen = look()
        assert 1 <= seen.seconds <= age
        assert seen.requests == pytest.approx(200 * seen.seconds, abs=2)


def test_a_profile_that_was_found_stays() -> None:
    both = SANDBOX | ISTIO
    assert observe.read(Recorded(both), WHERE, ARMS, policies.Prometheus(), "istio", AT).profile == "istio"
    assert observe.read(Recorded(both), WHERE, ARMS, policies.Prometheus(profile="istio"), "", AT).profile == "istio"


def test_queries_of_one_s_own_take_the_place_of_a_profile() -> None:
    queries = {
        "requests": 'sum by (pod, instance) (hits{ns="$namespace", pod=~"$arms"$more})',
        "errors": 'sum by (pod, instance) (misses{pod=~"$arms"$more})',
        "arm": "pod",
    }
    source = Recorded({"hits": arm("pod", 10, 20), "misses": arm("pod", 1, 2)})
    settings = policies.Prometheus(queries=queries)
    where = replace(WHERE, selectors={"cluster": 'p"rod'})
    reading = observe.read(source, where, ARMS, settings, "", AT)
    assert reading.raw.arms[ARMS.canary]["a"] == {"requests": 10, "errors": 1}
    assert source.asked[0][0] == (
        'sum by (pod, instance) (hits{ns="models", pod=~"m-predictor-00002|m-predictor-00001", cluster="p\\"rod"})'
    )


def test_selectors_go_into_every_query_of_every_profile() -> None:
    where = replace(WHERE, selectors={"cluster": "prod"})
    for profile in profiles.ALL:
        for query in (profiles.filled(profile.probe, where), *profile.queries(where).values()):
            assert 'cluster="prod"' in query, query
            assert "$" not in query
    assert profiles.filled(profiles.CLASSES, where).count('cluster="prod"') == 2


def test_names_are_quoted_in_queries() -> None:
    nasty = Where('n"s', "m.x", ("a.b", 'c"d'), {})
    assert profiles.filled('{n="$namespace", r=~"$arms"}', nasty) == '{n="n\\"s", r=~"a\\\\.b|c\\"d"}'


# ---- the tally


def raw(**arms: dict[str, dict[str, int]]) -> Raw:
    return Raw(arms)


def total(counted: Tally, name: str = "requests") -> int:
    return counted.totals["canary"].get(name, 0)


def test_what_stood_there_before_is_not_counted() -> None:
    counted = tally.add(Tally(), raw(canary={"gw": {"requests": 1000}}))
    assert total(counted) == 0
    assert total(tally.add(counted, raw(canary={"gw": {"requests": 1010}}))) == 10


def test_one_of_several_proxies_that_starts_anew_does_not_count_twice() -> None:
    counted = tally.add(Tally(), raw(canary={"a": {"requests": 1000}, "b": {"requests": 500}}))
    counted = tally.add(counted, raw(canary={"a": {"requests": 1010}, "b": {"requests": 7}}))
    assert total(counted) == 17


def test_a_proxy_that_is_missed_once_goes_on_from_where_it_was() -> None:
    counted = tally.add(Tally(), raw(canary={"a": {"requests": 100}, "b": {"requests": 100}}))
    counted = tally.add(counted, raw(canary={"b": {"requests": 110}}))
    counted = tally.add(counted, raw(canary={"a": {"requests": 130}, "b": {"requests": 120}}))
    assert total(counted) == 50


def test_a_series_that_a_known_proxy_had_not_yet_began_at_zero() -> None:
    counted = tally.add(Tally(), raw(stable={"gw": {"requests": 100}}))
    counted = tally.add(counted, raw(stable={"gw": {"requests": 110}}, canary={"gw": {"requests": 5, "errors": 2}}))
    assert (total(counted), total(counted, "errors")) == (5, 2)


def test_a_proxy_that_is_new_is_counted_from_its_first_reading() -> None:
    counted = tally.add(Tally(), raw(canary={"a": {"requests": 100}}))
    counted = tally.add(counted, raw(canary={"a": {"requests": 110}, "b": {"requests": 9000}}))
    assert total(counted) == 10


def test_counters_never_fall_whatever_is_read() -> None:
    counted, before = Tally(), 0
    for number in (5, 3, 0, 12, 12, 1, 100, 99):
        counted = tally.add(counted, raw(canary={"gw": {"requests": number}}))
        assert total(counted) >= before
        before = total(counted)
    assert Tally.from_json(json.loads(json.dumps(counted.to_json()))) == counted


# ---- the server


def test_the_token_is_read_anew_for_every_query_and_the_tenant_goes_along(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n", encoding="utf-8")
    with prometheus_like() as (url, seen):
        settings = policies.Prometheus(url=url, token_file=str(token), tenant="team-a", headers={"X-Extra": "1"})
        with Prometheus(settings) as prometheus:
            assert prometheus.instant("up", 12.5) == (Sample({"a": "b"}, 7.0),)
            token.write_text("two", encoding="utf-8")
            prometheus.instant("up", 13.0)
    assert [request["authorization"] for request in seen] == ["Bearer one", "Bearer two"]
    assert [request["time"] for request in seen] == ["12.500", "13.000"]
    assert (seen[0]["x-scope-orgid"], seen[0]["x-extra"], seen[0]["query"]) == ("team-a", "1", "up")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b'{"data":{}}'),
        (200, b'{"data":{"result":{}}}'),
        (200, b"[]"),
        (422, b"bad query"),
        (503, b""),
    ],
)
def test_half_an_answer_is_none(status: int, body: bytes) -> None:
    with (
        prometheus_like(status, body) as (url, _),
        Prometheus(policies.Prometheus(url=url)) as prometheus,
        pytest.raises(ApiError),
    ):
        prometheus.instant("up", 1.0)


def test_nobody_there_is_unreachable() -> None:
    with Prometheus(policies.Prometheus(url="http://127.0.0.1:1")) as prometheus, pytest.raises(Unreachable):
        prometheus.instant("up", 1.0)


def test_a_missing_address_token_or_ca_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Prometheus to ask"):
        Prometheus(policies.Prometheus())
    with pytest.raises(ConfigError, match=r"ca\.pem is no file"):
        Prometheus(policies.Prometheus(url="https://p", ca_file=str(tmp_path / "ca.pem")))
    missing = policies.Prometheus(url="http://127.0.0.1:1", token_file=str(tmp_path / "token"))
    with Prometheus(missing) as prometheus, pytest.raises(ConfigError, match="token for Prometheus cannot be read"):
        prometheus.instant("up", 1.0)
