"""Descriptions are checked, and the documents made of them say what they said."""

from __future__ import annotations

import pytest

from sandbox.errors import InvalidSpec
from sandbox.gateway import clusters as gateway_clusters
from sandbox.gateway import routes as gateway_routes
from sandbox.gateway.admin import ClusterState, parse_clusters
from sandbox.gateway.clusters import addresses, clusters
from sandbox.gateway.description import Revision, RevisionKey, Service, check, host, path
from sandbox.gateway.routes import routing

ONE = Revision("m-00001", 9001, weight=100)


@pytest.mark.parametrize(
    ("services", "where"),
    [
        ([Service("default", "M")], "services[default/M].name"),
        ([Service("a/b", "m")], "services[a/b/m].namespace"),
        ([Service("default", "m", hosts=("*",))], "services[default/m].hosts"),
        ([Service("default", "m", hosts=("UPPER.example.com",))], "services[default/m].hosts"),
        ([Service("default", "m", timeout_s=0)], "services[default/m].timeout_s"),
        ([Service("default", "m"), Service("default", "m")], "services[default/m]"),
        ([Service("default", "m", (Revision("m-00001", 9001, weight=90),))], "services[default/m].revisions"),
        ([Service("default", "m", (ONE, ONE))], "services[default/m].revisions"),
        (
            [Service("default", "m", (Revision("m-00001", 9001, weight=-1),))],
            "services[default/m].revisions[m-00001].weight",
        ),
        (
            [Service("default", "m", (Revision("m-00001", 0, weight=100),))],
            "services[default/m].revisions[m-00001].port",
        ),
        ([Service("default", "m", (Revision("m/1", 9001),))], "services[default/m].revisions[m/1]"),
        (
            [Service("default", "m", (Revision("m-00001", 1, "localhost"),))],
            "services[default/m].revisions[m-00001].address",
        ),
        (
            [Service("default", "m", (Revision("a", 9001, tags=("prev",)), Revision("b", 9002, tags=("prev",))))],
            "services[default/m].revisions",
        ),
    ],
)
def test_a_description_that_envoy_would_refuse_is_refused_by_name(services: list[Service], where: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        check(services)
    assert refused.value.where == where


def test_an_empty_service_and_a_revision_without_a_server_are_fine() -> None:
    check([Service("default", "m"), Service("default", "n", (Revision("n-00001", 0, ready=False, weight=100),))])


def test_every_revision_has_one_cluster_and_none_names_another() -> None:
    service = Service("default", "m", (ONE, Revision("m-00002", 9002), Revision("m-00003", 0, ready=False)))
    found = clusters([service])
    assert {name: addresses(cluster) for name, cluster in found.items()} == {
        "default/m/m-00001": ("127.0.0.1:9001",),
        "default/m/m-00002": ("127.0.0.1:9002",),
        "default/m/m-00003": (),
    }
    assert {cluster["type"] for cluster in found.values()} == {"STATIC"}


def test_a_cluster_name_reads_back() -> None:
    key = RevisionKey("default", "m", "m-00001")
    assert RevisionKey.parse(str(key)) == key


def test_the_version_of_routes_follows_what_they_say() -> None:
    def version(weight: int) -> str:
        two = (Revision("a", 9001, weight=100 - weight), Revision("b", 9002, weight=weight))
        return routing([Service("default", "m", two)]).version

    assert version(10) == version(10)
    assert len({version(0), version(10), version(50)}) == 3


def test_a_tag_cannot_take_the_host_of_a_service() -> None:
    tagged = Service("default", "m", (Revision("m-00001", 9001, weight=100, tags=("prev",)),))
    rival = Service("default", "prev-m", (Revision("r-00001", 9002, weight=100),))
    found = routing([tagged, rival])
    assert found.shadowed == ("prev-m.default.localhost",)
    owners = {entry["name"]: entry["routes"][-1]["route"] for entry in found.configuration["virtual_hosts"][:-1]}
    assert owners["prev-m.default.localhost"]["weighted_clusters"]["clusters"][0]["name"] == "default/prev-m/r-00001"


def test_a_host_leads_to_the_first_service_that_asks_for_it() -> None:
    found = routing([Service("b", "m", hosts=("m.example.com",)), Service("a", "m", hosts=("m.example.com",))])
    domains = {entry["name"]: entry["domains"] for entry in found.configuration["virtual_hosts"]}
    assert domains["m.a.localhost"] == ["m.a.localhost", "m.example.com"]
    assert domains["m.b.localhost"] == ["m.b.localhost"]
    assert found.shadowed == ("m.example.com",)


def test_hosts_and_paths_are_spelled_as_documented() -> None:
    assert host("default", "m") == "m.default.localhost"
    assert host("default", "m", "prev") == "prev-m.default.localhost"
    assert path("default", "m") == "/serving/default/m"
    assert path("default", "m", "prev") == "/serving/default/prev-m"


def test_admin_clusters_are_read_with_endpoints_and_requests_in_flight() -> None:
    text = """a/m/1::observability_name::a/m/1
a/m/1::default_priority::max_requests::1024
a/m/1::127.0.0.1:9001::cx_active::3
a/m/1::127.0.0.1:9001::rq_active::2
a/m/1::127.0.0.1:9001::rq_pending_active::1
a/m/2::added_via_api::true
"""
    assert parse_clusters(text) == {"a/m/1": ClusterState(("127.0.0.1:9001",), 3), "a/m/2": ClusterState((), 0)}


def test_nothing_is_kept_of_descriptions_that_are_past() -> None:
    for weight in range(50):
        both = (Revision("m-00001", 9001, weight=100 - weight), Revision("m-00002", 9002, weight=weight, tags=("t",)))
        services = [Service("default", "m", both), Service("default", f"guest-{weight}", (ONE,))]
        made, routed = clusters(services), routing(services)
        assert clusters(services) == made
        assert routing(services) == routed
    assert routing(services).configuration["virtual_hosts"][0] is routed.configuration["virtual_hosts"][0]
    assert (len(gateway_clusters._KEPT), len(gateway_routes._KEPT)) == (3, 3)
