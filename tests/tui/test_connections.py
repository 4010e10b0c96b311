"""How the servers are found and entered: discovery, tokens, tenants, authorities of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from kanary import config, snapshot_metrics
from kanary.api import Client, Server
from kanary.commands.connections import connections, connections_text
from kanary.errors import ConfigError, Unreachable
from kanary.operations import Operation, Request
from kanary.rollout import policy as policies
from kanary.rollout.policy import Policy
from kanary.rollout_source import opened, with_settings
from kanary.snapshot_hub import Scope
from tests.core.fake_kfp import FakeKfp, run_json, serving
from tests.kubernetes.server import Server as Kubernetes
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace, kubeconfig
from tests.tui.rig import flat, picture, sees, until
from tui.app import Monitor


async def test_a_prometheus_is_entered_with_token_tenant_and_selectors_and_a_new_token_is_taken_up(
    metrics: FakePrometheus, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("one", encoding="utf-8")
    metrics.rates = {"churn-predictor-00001": (2.0, 0.0, 3.0, 48.0)}
    given = {"prometheus_url": metrics.url, "prometheus_token_file": str(token), "prometheus_tenant": "team-a"}
    given |= {"prometheus_selectors": "cluster=prod", "kfp_endpoint": "http://127.0.0.1:9"}
    app = rig.monitor(tmp_path, given)
    async with app.run_test(size=rig.SIZE) as pilot:
        await sees(pilot, "prom now")
        assert {(heard["authorization"], heard["x-scope-orgid"]) for heard in metrics.heard} == {
            ("Bearer one", "team-a")
        }
        assert all('cluster="prod"' in query for query in metrics.asked if query != "time()")
        token.write_text("two", encoding="utf-8")
        await rig.until(pilot, lambda: metrics.heard[-1]["authorization"] == "Bearer two")
        token.unlink()
        await rig.until(pilot, lambda: "prometheus_token_file" in app.hub.metrics.error)


def version() -> Operation[str]:
    answer = yield Request("GET", "/version")
    return str(answer["gitVersion"])


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(kubernetes_api: Kubernetes, tmp_path: Path) -> None:
    """The API's certificate is from an authority that no system knows."""
    token = tmp_path / "token"
    token.write_text(kubernetes_api.token, encoding="utf-8")
    entered = Server("it", kubernetes_api.url, token_file=token, ca_file=kubernetes_api.home / "kubernetes/tls/ca.crt")
    with Client(entered) as api:
        assert api.call(version()).startswith("v1.")
    with Client(Server("it", kubernetes_api.url, token_file=token)) as api, pytest.raises(Unreachable, match="CERTIF"):
        api.call(version())
    config = rig.settings(tmp_path, {"prometheus_url": "https://p", "prometheus_ca_file": "nowhere.pem"})
    with pytest.raises(ConfigError, match=r"prometheus_ca_file .*nowhere\.pem"):
        Client(snapshot_metrics.server(config))


@pytest.fixture
def proxied(kubernetes_api: Kubernetes, metrics: FakePrometheus) -> Iterator[FakeKfp]:
    """A KFP and the Prometheus behind the API server's service proxy, and known to nobody otherwise."""
    run = run_json("aaaaaaaa-0000-4000-8000-000000000000", "nightly", "SUCCEEDED")
    endpoints = kubernetes_api.home / "endpoints.json"
    with serving(FakeKfp(runs=[run])) as fake:
        found = {"kfp": {"url": fake.url}, "prometheus": {"url": metrics.url}}
        endpoints.write_text(json.dumps(found), encoding="utf-8")
        yield fake
        endpoints.unlink()


async def test_with_a_kubeconfig_only_pipelines_and_prometheus_are_found_through_the_api_server(
    proxied: FakeKfp, space: Namespace, metrics: FakePrometheus, tmp_path: Path
) -> None:
    metrics.rates = {"churn-predictor-00001": (2.0, 0.0, 3.0, 48.0)}
    async with rig.monitor(tmp_path, space.settings).run_test(size=(120, 30)) as pilot:
        await sees(pilot, "nightly")
        assert "kubeflow/ml-pipeline" in picture(pilot)
        await sees(pilot, "prom now")
        assert not {"authorization", "cookie"} & set(proxied.asked[-1].headers)


async def test_pipelines_with_users_of_their_own_are_not_entered_and_it_is_said_how_to(
    proxied: FakeKfp, space: Namespace, tmp_path: Path
) -> None:
    proxied.override = lambda request: JSONResponse({"multi_user": True})
    # Whatever answers at the default address here is not part of the test.
    made = replace(rig.settings(tmp_path, space.settings), kfp_endpoint="http://127.0.0.1:9")
    async with Monitor(made, Scope(space.name, interval=0.2), theme="kanary").run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: "users of its own" in flat(pilot) and "--endpoint" in flat(pilot))
        proxied.override = None  # it is looked for again
        await pilot.press("r")
        await sees(pilot, "nightly")


async def test_a_cluster_whose_credentials_fail_hides_no_pipelines_at_the_default_address(
    proxied: FakeKfp, tmp_path: Path
) -> None:
    entered = kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    document = json.loads(entered.read_text(encoding="utf-8"))
    document["users"][0]["user"] = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such"}}
    entered.write_text(json.dumps(document), encoding="utf-8")
    made = replace(rig.settings(tmp_path, {"kubeconfig": str(entered)}), kfp_endpoint=proxied.url)
    async with Monitor(made, Scope(interval=0.2), theme="kanary").run_test(size=(120, 30)) as pilot:
        await sees(pilot, "nightly")
        await until(pilot, lambda: "no-such" in pilot.app.hub.metrics.error)  # type: ignore[attr-defined]


def test_info_says_where_the_servers_are_how_that_is_known_and_what_each_says(
    proxied: FakeKfp, space: Namespace, metrics: FakePrometheus, tmp_path: Path
) -> None:
    metrics.rates = {"churn-predictor-00001": (2.0, 0.0, 3.0, 48.0)}
    found = connections(rig.settings(tmp_path, space.settings))
    assert {name: entry["ok"] for name, entry in found.items()} == dict.fromkeys(found, True)
    assert "you are " in found["kubernetes"]["says"]
    pipelines = found["kubeflow pipelines"]
    assert pipelines["says"] == "single-user; 1 runs"
    assert pipelines["source"] == "found as kubeflow/ml-pipeline, through the API server's service proxy"
    assert "counted by Envoy" in found["prometheus"]["says"]
    text = connections_text(found)
    assert "kubeflow/services/ml-pipeline:8888/proxy" in text
    assert "passes none on" in text


def test_a_rollout_asks_the_prometheus_that_is_found_where_nobody_names_one(
    proxied: FakeKfp, space: Namespace, metrics: FakePrometheus, tmp_path: Path
) -> None:
    made = rig.settings(tmp_path, space.settings)
    asked = with_settings(policies.parse({"prometheus": {"timeout": 5}}), made).prometheus
    assert asked.url == ""
    with opened(asked, made) as source:
        (sample,) = source.instant("time()", 1700000000.0)
    assert sample.value > 0
    assert not {"authorization", "x-scope-orgid"} & set(metrics.heard[-1])
    named = rig.settings(tmp_path, space.settings | {"prometheus_url": metrics.url})
    assert with_settings(Policy(), named).prometheus.url == metrics.url
    nowhere = rig.settings(tmp_path, {"kubeconfig": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match="No Prometheus is set"), opened(asked, nowhere):
        pass


def test_info_names_logins_and_never_a_secret(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hush", encoding="utf-8")
    given = {"kfp_endpoint": "http://127.0.0.1:9", "token_file": str(token)}
    given |= {"prometheus_url": "http://127.0.0.1:9", "prometheus_token_file": str(token)}
    environ = {"HOME": str(tmp_path), "KANARY_COOKIE": "hush"}
    made = config.load(given | {"kubeconfig": str(tmp_path / "none")}, environ, tmp_path)
    found = connections(made)
    assert found["kubeflow pipelines"]["login"] == f"token in {token}, cookie from environment KANARY_COOKIE"
    assert found["prometheus"]["login"] == f"token in {token}"
    assert not any(entry["ok"] for entry in found.values())
    assert "hush" not in connections_text(found)
