"""How the monitor enters its servers: tokens, tenants, authorities of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kanary import snapshot_metrics
from kanary.api import Client, Server
from kanary.errors import ConfigError, Unreachable
from kanary.operations import Operation, Request
from tests.kubernetes.server import Server as Kubernetes
from tests.tui import rig
from tests.tui.cluster import FakePrometheus
from tests.tui.rig import sees


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
