"""What goes with what: owners and dependents, finalizers, namespaces, old events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.kubernetes import controllers
from sandbox.kubernetes.cluster import EVENT_SECONDS, Cluster
from sandbox.kubernetes.decode import Decoded
from sandbox.kubernetes.deletion import DeleteOptions, delete
from sandbox.kubernetes.options import WriteOptions
from sandbox.kubernetes.registry import EVENTS, Resource, find
from sandbox.kubernetes.storage import Store
from sandbox.kubernetes.writes import Target, create
from tests.kubernetes.server import Server
from tests.waiting import wait_for

Body = dict[str, Any]


@pytest.fixture
def client(kube: Server, namespace: str) -> Any:
    with kube.client() as client:
        client.base_url = f"{kube.url}/api/v1/namespaces/{namespace}/"
        yield client


def make(client: httpx.Client, name: str, owner: Body | None = None, **metadata: Any) -> Body:
    if owner:
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
        metadata["ownerReferences"] = [reference]
    answer = client.post("configmaps", json={"metadata": {"name": name, **metadata}}).raise_for_status()
    return answer.json()["metadata"]  # type: ignore[no-any-return]


def names(client: httpx.Client) -> set[str]:
    return {item["metadata"]["name"] for item in client.get("configmaps").json()["items"]}


def test_dependents_go_with_their_owner_to_the_last(client: httpx.Client) -> None:
    owner = make(client, "owner")
    child = make(client, "child", owner)
    make(client, "grandchild", child)
    make(client, "other")
    client.delete("configmaps/owner").raise_for_status()
    wait_for(lambda: names(client) == {"other"}, "the dependents go")


def test_orphaned_dependents_stay(client: httpx.Client) -> None:
    make(client, "child", make(client, "owner"))
    client.delete("configmaps/owner?propagationPolicy=Orphan").raise_for_status()
    wait_for(lambda: names(client) == {"child"}, "the owner goes")
    assert "ownerReferences" not in client.get("configmaps/child").json()["metadata"]


def test_foreground_deletion_waits_for_the_dependents(client: httpx.Client) -> None:
    make(client, "child", make(client, "owner"), finalizers=["kanary.dev/hold"])
    answer = client.delete("configmaps/owner?propagationPolicy=Foreground").json()
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    wait_for(lambda: "deletionTimestamp" in client.get("configmaps/child").json()["metadata"], "the child is marked")
    assert names(client) == {"owner", "child"}
    release: Body = {"metadata": {"finalizers": None}}
    client.patch("configmaps/child", json=release, headers={"Content-Type": "application/merge-patch+json"})
    wait_for(lambda: names(client) == set(), "both go")


def test_a_dependent_of_an_owner_that_is_gone_goes_too(client: httpx.Client) -> None:
    owner = make(client, "owner")
    client.delete("configmaps/owner").raise_for_status()
    make(client, "late", owner)
    wait_for(lambda: names(client) == set(), "the dependent goes")


def test_a_namespace_waits_for_what_is_held_in_it(client: httpx.Client, kube: Server, namespace: str) -> None:
    make(client, "held", finalizers=["kanary.dev/hold"])
    make(client, "free")
    with kube.client() as outside:
        path = f"/api/v1/namespaces/{namespace}"
        assert outside.delete(path).json()["status"]["phase"] == "Terminating"
        wait_for(lambda: names(client) == {"held"}, "what is free goes")
        refused = client.post("configmaps", json={"metadata": {"name": "new"}})
        assert refused.status_code == 403
        assert "being terminated" in refused.json()["message"]
        release: Body = {"metadata": {"finalizers": []}}
        client.patch("configmaps/held", json=release, headers={"Content-Type": "application/merge-patch+json"})
        wait_for(lambda: outside.get(path).status_code == 404, "the namespace goes")


def test_events_are_kept_for_an_hour(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    store = Store(tmp_path / "state.sqlite")
    cluster = Cluster(store, tmp_path, clock=lambda: now[0])
    controllers.ensure_namespaces(cluster, ("default",))
    options = WriteOptions(dry_run=False, manager="test", validation="Warn")

    def event(name: str) -> None:
        about = {"kind": "Pod", "namespace": "default", "name": "p"}
        body = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "involvedObject": about}
        create(cluster, Target(EVENTS, "default", ""), Decoded(body), options)

    event("old")
    now[0] += EVENT_SECONDS - 1
    event("new")
    controllers.sweep(cluster)
    assert [stored.name for stored in store.objects("events")] == ["new", "old"]
    now[0] += 2
    controllers.sweep(cluster)
    assert [stored.name for stored in store.objects("events")] == ["new"]
    store.close()


class Owned:
    """ConfigMaps of a cluster without a server: several deletions wait for the same look at them."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(Store(folder / "state.sqlite"), folder)
        controllers.ensure_namespaces(self.cluster, ("default",))
        found = find("", "v1", "configmaps")
        assert found is not None
        self.resource: Resource = found

    def make(self, name: str, *owners: Body) -> Body:
        references = [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]} for owner in owners
        ]
        metadata = {"name": name, "namespace": "default", "ownerReferences": references}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        options = WriteOptions(dry_run=False, manager="test", validation="Warn")
        made: Body = create(self.cluster, Target(self.resource, "default", ""), Decoded(body), options).body["metadata"]
        return made

    def delete(self, name: str, policy: str) -> None:
        delete(self.cluster, Target(self.resource, "default", name), DeleteOptions(policy, "", "", dry_run=False))

    def left(self) -> dict[str, list[Body]]:
        found = self.cluster.store.objects(self.resource.id)
        return {one.name: one.body["metadata"].get("ownerReferences", []) for one in found}


@pytest.fixture
def owned(tmp_path: Path) -> Iterator[Owned]:
    made = Owned(tmp_path)
    yield made
    made.cluster.store.close()


def test_an_object_that_goes_with_its_owner_may_be_going_by_itself(owned: Owned) -> None:
    owned.make("child", owned.make("a-parent"))
    owned.delete("child", "Foreground")
    owned.delete("a-parent", "Foreground")
    controllers.sweep(owned.cluster)
    assert owned.left() == {}


def test_an_object_whose_owners_both_leave_it_behind_stays(owned: Owned) -> None:
    owned.make("child", owned.make("one"), owned.make("two"))
    owned.delete("one", "Orphan")
    owned.delete("two", "Orphan")
    controllers.sweep(owned.cluster)
    assert owned.left() == {"child": []}
