"""Kubeflow Pipelines and Prometheus behind the API server's service proxy: what is found, and what is said if not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from kanary import config, discovery
from kanary.accounttoken import AccountToken
from kanary.discovery import Found
from kanary.errors import ApiError, KanaryError, Unreachable
from kanary.kubernetes import Act, Together
from kanary.operations import Request
from tests.core.fake_kubernetes import FakeKubernetes, serving
from tests.tui.cluster import kubeconfig

Answer = dict[str, Any] | ApiError
RESULT = {"data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "1"]}]}}
EMPTY: dict[str, Any] = {"data": {"resultType": "vector", "result": []}}


def call(act: Act[Found], answer: Callable[[Request], Answer]) -> Found:
    answers: Any = None
    while True:
        try:
            step = act.send(answers)
        except StopIteration as end:
            found: Found = end.value
            return found
        assert isinstance(step, Together)
        answers = [answer(request) for request in step.requests]


def refusal(status: int, said: str = "") -> ApiError:
    return ApiError(f"The Kubernetes API answered GET /x with {status}: {said}", "", status)


def service(namespace: str, name: str, *ports: tuple[str, int]) -> dict[str, Any]:
    spec = {"ports": [{"name": label, "port": port} for label, port in ports]}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def cluster(services: dict[str, list[dict[str, Any]]], answers: dict[str, Answer]) -> Callable[[Request], Answer]:
    """Services by label selector; answers by a part of the path, others are not there."""

    def answer(request: Request) -> Answer:
        if request.path == "/api/v1/services":
            return {"items": services.get(request.params["labelSelector"], [])}
        return next((found for part, found in answers.items() if part in request.path), refusal(404, "not found"))

    return answer


def test_pipelines_are_found_in_their_usual_place() -> None:
    found = call(discovery.pipelines(), cluster({}, {"/kubeflow/services/ml-pipeline:8888/proxy/": {}}))
    assert found.path == "/api/v1/namespaces/kubeflow/services/ml-pipeline:8888/proxy"
    assert found.place == "kubeflow/ml-pipeline"
    assert "service proxy" in found.said


def test_pipelines_are_found_by_their_label_elsewhere() -> None:
    labelled = [
        service("ml", "ml-pipeline-viewer", ("http", 80)),
        service("ml", "ml-pipeline", ("grpc", 8887), ("http", 8888)),
    ]
    found = call(discovery.pipelines(), cluster({"app=ml-pipeline": labelled}, {"/ml/services/ml-pipeline:8888": {}}))
    assert found.path == "/api/v1/namespaces/ml/services/ml-pipeline:8888/proxy"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"multi_user": True}, "has users of its own, and the API server's proxy passes no login on"),
        (refusal(403, "cannot get services/proxy"), "this user may not use the API server's proxy (cannot get"),
        (refusal(503, "no endpoints available"), "does not answer through the API server's proxy (no endpoints"),
        (refusal(404), "no service kubeflow/ml-pipeline"),
        (Unreachable("The Kubernetes API did not answer in time."), "did not answer in time"),
    ],
)
def test_why_pipelines_cannot_be_used_is_a_sentence(answer: Answer, said: str) -> None:
    found = call(discovery.pipelines(), cluster({}, {"ml-pipeline": answer}))
    assert not found.path
    assert said in found.said


def test_a_prometheus_is_found_by_its_labels_with_the_port_that_speaks_http() -> None:
    services = {
        "app.kubernetes.io/name=prometheus": [service("mon", "prometheus-k8s", ("reloader-web", 8080), ("web", 9090))],
        "operated-prometheus=true": [service("mon", "prometheus-operated", ("web", 9090))],
    }
    found = call(discovery.prometheus(), cluster(services, {"/proxy/api/v1/query": RESULT}))
    assert found.path == "/api/v1/namespaces/mon/services/prometheus-k8s:9090/proxy"
    assert "1 more answer" in found.said


@pytest.mark.parametrize(
    ("port", "named"), [(("https", 9091), "https:prometheus:9091"), (("http", 80), "prometheus:80")]
)
def test_a_prometheus_port_may_be_any(port: tuple[str, int], named: str) -> None:
    services = {"app=prometheus": [service("mon", "prometheus", port)]}
    found = call(discovery.prometheus(), cluster(services, {"": RESULT}))
    assert (found.path, found.place) == (f"/api/v1/namespaces/mon/services/{named}/proxy", "mon/prometheus")


def test_of_several_the_one_that_counts_requests_is_taken() -> None:
    services = {"app.kubernetes.io/name=prometheus": [service(n, "prometheus", ("web", 9090)) for n in ("a", "b")]}

    def answer(request: Request) -> Answer:
        if "count_over_time" in request.params.get("query", ""):
            return RESULT if "/b/" in request.path else EMPTY
        return cluster(services, {"": RESULT})(request)

    assert call(discovery.prometheus(), answer).place == "b/prometheus"


def test_who_may_not_list_services_looks_in_the_usual_places() -> None:
    def answer(request: Request) -> Answer:
        if request.path == "/api/v1/services":
            return refusal(403)
        return RESULT if "/istio-system/services/prometheus:9090/" in request.path else refusal(404)

    assert call(discovery.prometheus(), answer).place == "istio-system/prometheus"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "No Prometheus was found in the cluster"),
        ({"prometheus-server": refusal(403, "cannot get services/proxy")}, "may not use the API server's proxy"),
        ({"prometheus-server": {"not": "a result"}}, "No Prometheus was found"),
    ],
)
def test_why_there_is_no_prometheus_is_a_sentence(answers: dict[str, Answer], said: str) -> None:
    found = call(discovery.prometheus(), cluster({}, answers))
    assert not found.path
    assert said in found.said


def test_a_token_accounts_token_is_asked_for_and_again_before_it_runs_out(tmp_path: Path) -> None:
    now = [datetime(2026, 11, 21, tzinfo=UTC)]

    def given(token: str) -> JSONResponse:
        expires = (now[0] + timedelta(seconds=1000)).isoformat()
        return JSONResponse({"status": {"token": token, "expirationTimestamp": expires}}, 201)

    with serving(FakeKubernetes()) as fake:
        given_flags = {"kubeconfig": str(kubeconfig(tmp_path / "kubeconfig", fake.url)), "readonly": True}
        made = config.load(given_flags | {"token_account": "team-a/editor"}, {"HOME": str(tmp_path)}, tmp_path)
        token = AccountToken(made, lambda: now[0].timestamp())
        fake.override = given("one")
        assert (token(), token()) == ("one", "one")
        assert [asked["path"] for asked in fake.asked] == ["/api/v1/namespaces/team-a/serviceaccounts/editor/token"]
        fake.override = given("two")
        now[0] += timedelta(seconds=799)
        assert token() == "one"
        now[0] += timedelta(seconds=2)
        assert token() == "two"
        fake.override = JSONResponse({"message": "cannot create resource"}, 403)
        now[0] += timedelta(seconds=1001)
        with pytest.raises(KanaryError, match=r"team-a/editor was given.*cannot create") as refused:
            token()
        assert "create serviceaccounts/token" in refused.value.hint
