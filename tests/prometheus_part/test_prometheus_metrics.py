"""A real Prometheus behind a real Envoy: labels, counters and the documented queries."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kanary import snapshot_metrics
from kanary.rollout import profiles
from kanary.rollout.profiles import Where
from sandbox.gateway.description import Service
from sandbox.gateway.gateway import Gateway
from sandbox.prometheus import config
from sandbox.prometheus.config import Target
from sandbox.prometheus.find import HOW_TO_INSTALL, find
from tests.gateway.conftest import upstream
from tests.gateway.rig import DEADLINE_S, Client, Envoy, Patient, Upstream, free_ports, listening, until

__all__ = ["upstream"]

HOST = "m.default.localhost"
QUERIES = re.findall(
    r"```promql\n(.*?)```",
    (Path(config.__file__).parent / "README.md").read_text(encoding="utf-8"),
    flags=re.DOTALL,
)
Start = Callable[[str], Upstream]


@dataclass(frozen=True)
class Prometheus:
    port: int
    envoy: Envoy

    def query(self, text: str) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
            document = json.load(answer)
        result = document["data"]["result"]
        assert isinstance(result, list)
        return result

    def value(self, text: str) -> float:
        """The one value of a query; -1 while there is none."""
        found = self.query(text)
        assert len(found) <= 1
        return float(found[0]["value"][1]) if found else -1.0


@pytest.fixture(scope="module")
def binary() -> Path:
    found = find(deadline_s=60)
    if found is None:
        pytest.skip(HOW_TO_INSTALL)
    return found.binary


@pytest.fixture(scope="module")
def prometheus(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus and the Envoy that it scrapes; one for all tests, because its first scrape comes after 5 s."""
    envoy = Envoy(tmp_path_factory.mktemp("home"))
    (port,) = free_ports(1)
    command = config.prepare(envoy.home, binary, port, envoy.admin_port, scrape_interval_s=0.2)
    log = envoy.home / "logs" / "prometheus.log"
    try:
        with (
            log.open("wb") as sink,
            subprocess.Popen(command, stdout=sink, stderr=sink, start_new_session=True) as process,
        ):
            try:
                until(lambda: config.ready(port), "Prometheus is ready")
                yield Prometheus(port, envoy)
            finally:
                process.terminate()
    finally:
        envoy.stop()
    assert not listening(port)


@pytest.fixture
def gateway(prometheus: Prometheus) -> Iterator[Gateway]:
    writer = Patient(prometheus.envoy.home)
    yield writer
    writer.close()


@pytest.fixture
def client(prometheus: Prometheus) -> Iterator[Client]:
    connection = Client(prometheus.envoy.port)
    yield connection
    connection.close()


def test_requests_are_counted_by_namespace_service_and_revision(
    prometheus: Prometheus, gateway: Gateway, upstream: Start
) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "counted", (stable.revision(50), canary.revision(50)))]).in_force
    canary.kill()
    # All at once: the gateway tries for seconds to reach a server that is gone.
    with ThreadPoolExecutor(100) as asking:
        statuses = list(asking.map(lambda _: status(prometheus.envoy, "counted.default.localhost"), range(100)))
    failed = statuses.count(503)
    assert 0 < failed < 100
    where = 'namespace="default",service="counted",revision="m-00002"'
    until(lambda: prometheus.value(f"envoy_cluster_upstream_rq_completed{{{where}}}") == failed, "the canary's count")
    assert prometheus.value(f'envoy_cluster_upstream_rq_xx{{{where},envoy_response_code_class="5"}}') == failed
    assert prometheus.value(f"envoy_cluster_upstream_rq_total{{{where}}}") == 0
    total = 'sum(envoy_cluster_upstream_rq_completed{namespace="default",service="counted"})'
    assert prometheus.value(total) == 100


def status(envoy: Envoy, host: str) -> int:
    """The status of one request on a connection of its own."""
    client = Client(envoy.port)
    try:
        return client.get(host=host).status
    finally:
        client.close()


def test_every_documented_query_has_an_answer(
    prometheus: Prometheus, gateway: Gateway, upstream: Start, client: Client
) -> None:
    stable, canary = upstream("m-00001"), upstream("m-00002")
    assert gateway.apply([Service("default", "m", (stable.revision(50), canary.revision(50)))]).in_force
    assert len(QUERIES) == 7

    def all_answered() -> bool:
        client.get(host=HOST)
        found = [prometheus.query(query) for query in QUERIES]
        return all(found) and {row["metric"]["revision"] for row in found[0]} == {"m-00001", "m-00002"}

    until(all_answered, "an answer to every query")


def test_model_servers_are_scraped_from_the_targets_file(prometheus: Prometheus, upstream: Start) -> None:
    first, second = upstream("m-00001"), upstream("m-00002")
    for server in (first, second):
        server.body = b'kanary_predictions_total{service="m",version="v1"} 3\n'
    config.write_targets(prometheus.envoy.home, [Target("default", "m", "m-00001", first.port)])
    sample = 'kanary_predictions_total{namespace="default",service="m",revision="m-00001",version="v1"}'
    until(lambda: prometheus.value(sample) == 3, "a sample of the first server")
    assert first.heads[-1][":first"] == "GET /metrics HTTP/1.1"
    config.write_targets(prometheus.envoy.home, [Target("default", "m", "m-00002", second.port)])
    until(lambda: prometheus.value('up{revision="m-00002"}') == 1, "the second server is up")
    until(lambda: not prometheus.query('up{revision="m-00001"}'), "the first server is forgotten")


def test_preparing_again_keeps_the_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_targets(tmp_path, [Target("default", "m", "m-00001", 1)])
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as it was a moment ago
    config.prepare(tmp_path, Path("/x/prometheus"), 9999, 9998)
    kept = json.loads(config.targets_file(tmp_path).read_text(encoding="utf-8"))
    assert kept[0]["labels"]["revision"] == "m-00001"


def test_prometheus_listens_on_the_loopback_only(tmp_path: Path) -> None:
    command = config.prepare(tmp_path, Path("/x/prometheus"), 9999, 9998)
    assert command[0] == "/x/prometheus"
    assert "--web.listen-address=127.0.0.1:9999" in command


def test_every_query_of_every_profile_is_understood(prometheus: Prometheus) -> None:
    """Of proxies that do not run here, too: an answer, though an empty one, and no parse error."""
    selectors = {"cluster": 'a"b'}
    where = Where("default", "m", ("m-1", "m-2"), selectors)
    for profile in profiles.ALL:
        asked = [profiles.filled(profile.probe, where), *profile.queries(where).values()]
        asked += [profiles.filled(profile.active, where)] if profile.active else []
        if profile.wide is not None:
            asked.append(f"max({profiles.spanned(profile.wide.probe, selectors, 60)})")
            asked += snapshot_metrics.queries(profile, 30, selectors) if profile.wide.requests else ()
        for query in asked:
            prometheus.query(query)
