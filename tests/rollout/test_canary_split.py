from __future__ import annotations

import pytest

from components.deploy import smoke
from tests.gateway.rig import binomial_interval
from tests.rollout.conftest import Deploy, Models
from tests.rollout.measured import need_prometheus
from tests.rollout.rig import Service
from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox


def test_a_canary_gets_the_share_that_was_asked_for(service: Service, deployed: Deploy, models: Models) -> None:
    canary = deployed(models.v2, 10)
    assert canary.percent == service.status().effective == 10
    with service.traffic(rate=300, seconds=4) as traffic:
        summary = traffic.wait()
    assert (summary.failed, set(summary.by_status)) == (0, {"200"})
    stable = service.status().stable
    assert set(summary.by_revision) == {stable, canary.revision}
    lowest, highest = binomial_interval(summary.requests, 0.10)
    assert lowest <= summary.by_revision[canary.revision] <= highest
    assert 0 < lowest < highest < summary.requests / 2


def test_prometheus_counts_by_revision_what_the_clients_count(
    service: Service, deployed: Deploy, models: Models
) -> None:
    need_prometheus(service.sandbox)
    canary = deployed(models.v2, 50)
    with service.traffic(rate=200, seconds=2) as traffic:
        counted = traffic.wait().by_revision
    assert set(counted) == {service.status().stable, canary.revision}

    def by_revision(metric: str) -> dict[str, float]:
        query = f'sum by (revision) ({metric}{{service="{service.name}"}})'
        return {labels["revision"]: value for labels, value in service.sandbox.prometheus(query)}

    # Each deployment has sent one smoke test besides.
    sent = {revision: count + 1 for revision, count in counted.items()}
    wait_for(lambda: by_revision("envoy_cluster_upstream_rq_total") == sent, f"the gateway's counters say {sent}")
    rows = {revision: count + smoke.ROWS for revision, count in counted.items()}
    wait_for(lambda: by_revision("kanary_predictions_total") == rows, f"the model servers' counters say {rows}")
    query = f'count by (version) (kanary_predictions_total{{service="{service.name}"}})'
    assert {labels["version"] for labels, _ in service.sandbox.prometheus(query)} == {"v1", "v2"}
