"""Hosts that lead to one revision, whatever the weights say: a predictor's own Service in Standard mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sandbox.errors import InvalidSpec
from sandbox.gateway.description import Revision, Service, check
from sandbox.gateway.gateway import Gateway
from sandbox.gateway.routes import routing
from tests.gateway.rig import Client, Upstream


def test_a_revisions_own_host_and_path_reach_it_at_zero_percent(
    gateway: Gateway, upstream: Callable[[str], Upstream], client: Client
) -> None:
    own = ("m-v2-predictor.default.localhost", "m-v2-predictor.default.svc.cluster.local")
    stable = upstream("m-predictor").revision(100)
    canary = replace(upstream("m-v2-predictor").revision(0), hosts=own)
    assert gateway.apply([Service("default", "m", (stable, canary))]).in_force
    for host, path in (*((host, "/") for host in own), ("", "/serving/default/m-v2-predictor/v1/models/m")):
        assert client.get(path, host=host).revision == "m-v2-predictor"
    assert client.get(host="m.default.localhost").revision == "m-predictor"


def test_a_services_host_wins_over_a_revisions() -> None:
    rival = Service("default", "m-predictor", (Revision("r", 9001, weight=100),))
    named = Service("default", "a", (Revision("a", 9002, weight=100, hosts=("m-predictor.default.localhost",)),))
    assert routing([rival, named]).shadowed == ("m-predictor.default.localhost",)


def test_a_host_that_is_none_is_refused() -> None:
    revision = Revision("a", 9002, weight=100, hosts=("No Host",))
    with pytest.raises(InvalidSpec, match="not a lower-case host name"):
        check([Service("default", "a", (revision,))])
