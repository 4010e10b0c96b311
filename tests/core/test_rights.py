"""The roles of deploy/rbac: enough for what acts and watches (the clusters of these tests enforce them), no more."""

from __future__ import annotations

import pytest

from kanary import kubernetes as k8s
from kanary.operations import Request
from kanary.snapshot_rights import ACT, ASKED, EVENTS, LOGS, LOOK
from tests.core.rights import Right, allowed, needed, rights

ROLES = ("kanary-view", "kanary-edit")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reads_secrets_deletes_or_takes_everything(role: str) -> None:
    assert not [right for right in rights(role) if "*" in right or right.verb.startswith("delete")]
    assert "secrets" not in {right.resource.partition("/")[0] for right in rights(role)}


def test_who_watches_changes_nothing() -> None:
    assert {right.verb for right in rights("kanary-view")} == {"get", "list", "watch"}


@pytest.mark.parametrize(
    ("role", "abilities"), [("kanary-view", (LOOK, LOGS, EVENTS)), ("kanary-edit", (LOOK, ACT, LOGS))]
)
def test_the_monitor_misses_no_right(role: str, abilities: tuple[str, ...]) -> None:
    for ability in abilities:
        for verb, group, resource, sub in ASKED[ability]:
            assert Right(verb, group, f"{resource}/{sub}" if sub else resource) in rights(role)


@pytest.mark.parametrize(
    "request_",
    [
        k8s.read(k8s.inference_services("models")),
        k8s.read(k8s.config_maps("models", "kanary-m")),
        k8s.read(k8s.leases("models", "kanary-m")),
        k8s.read(k8s.revisions("models", "m-00001")),
        k8s.read(k8s.http_routes("models", "m")),
        k8s.read(k8s.deployments("models", "m")),
        k8s.read(k8s.pods("models")),
        k8s.log("models", "m-1"),
        Request("GET", k8s.events("models"), {"watch": "true"}),
    ],
)
def test_who_watches_may_look_at_everything_and_touch_nothing(request_: Request) -> None:
    allowed(request_, "kanary-view")
    with pytest.raises(AssertionError, match="may not"):
        allowed(Request("PATCH", request_.path), "kanary-view")


def test_a_request_needs_the_right_that_the_api_server_asks_for() -> None:
    assert needed(k8s.log("n", "p")) == Right("get", "", "pods/log")
    assert needed(k8s.read(k8s.pods("n"))) == Right("list", "", "pods")
    assert needed(k8s.patch(k8s.inference_services("n", "m"), {})) == Right(
        "patch", "serving.kserve.io", "inferenceservices"
    )
    assert needed(k8s.create(k8s.leases("n"), {})) == Right("create", "coordination.k8s.io", "leases")
