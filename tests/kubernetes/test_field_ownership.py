"""managedFields and server-side apply beyond what is recorded: lists with keys, sharing, giving up, forcing."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.kubernetes import fieldset, managed, schema
from sandbox.kubernetes.managed import Application, Claim, Manager
from sandbox.kubernetes.status import ApiError

Body = dict[str, Any]
NODE = schema.load("V1beta1InferenceService", builtin=False)
POD = schema.load("V1Pod", builtin=True)
ANN = Manager("ann", "Apply", "v1")
BOB = Manager("bob", "Apply", "v1")
EVE = Manager("eve", "Update", "v1")


def service(**predictor: Any) -> Body:
    return {"metadata": {}, "spec": {"predictor": predictor}}


def pod(*containers: Body) -> Body:
    return {"metadata": {}, "spec": {"containers": list(containers)}}


def wish(manager: Manager, applied: Body, *, force: bool = False) -> Application:
    return Application(manager, applied, force)


def owned(claims: list[Claim], manager: Manager) -> set[str]:
    return {fieldset.text(path) for claim in claims if claim.manager.same(manager) for path in claim.fields}


def test_fieldsets_survive_their_encoding() -> None:
    fields = fieldset.of_object(pod({"name": "c", "image": "x", "ports": [{"containerPort": 1}]}), POD)
    assert fieldset.decode(fieldset.encode(fields)) == fields
    assert '.spec.containers[name="c"].image' in {fieldset.text(path) for path in fields}


def test_items_of_a_keyed_list_have_owners_of_their_own() -> None:
    first, claims = managed.apply([], {"metadata": {}}, POD, wish(ANN, pod({"name": "a", "image": "1"})))
    second, claims = managed.apply(claims, first, POD, wish(BOB, pod({"name": "b", "image": "2"})))
    assert second["spec"]["containers"] == [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]
    third, claims = managed.apply(claims, second, POD, wish(ANN, pod()))
    assert third["spec"]["containers"] == [{"name": "b", "image": "2"}]
    assert owned(claims, BOB) == {
        '.spec.containers[name="b"]',
        '.spec.containers[name="b"].image',
        '.spec.containers[name="b"].name',
    }


def test_a_field_with_two_owners_stays_until_both_give_it_up() -> None:
    live, claims = managed.apply([], {"metadata": {}}, NODE, wish(ANN, service(minReplicas=1)))
    live, claims = managed.apply(claims, live, NODE, wish(BOB, service(minReplicas=1)))
    live, claims = managed.apply(claims, live, NODE, wish(ANN, service(maxReplicas=3)))
    assert live["spec"]["predictor"] == {"minReplicas": 1, "maxReplicas": 3}
    live, claims = managed.apply(claims, live, NODE, wish(BOB, service()))
    assert live["spec"]["predictor"] == {"maxReplicas": 3}


def test_force_takes_the_field_from_its_owner() -> None:
    live, claims = managed.apply([], {"metadata": {}}, NODE, wish(ANN, service(minReplicas=1, timeout=5)))
    with pytest.raises(ApiError, match=r'conflict with "ann": \.spec\.predictor\.minReplicas'):
        managed.apply(claims, live, NODE, wish(BOB, service(minReplicas=2)))
    live, claims = managed.apply(claims, live, NODE, wish(BOB, service(minReplicas=2), force=True))
    assert live["spec"]["predictor"] == {"minReplicas": 2, "timeout": 5}
    assert owned(claims, ANN) == {".spec.predictor.timeout"}


def test_an_update_owns_what_it_changed_and_no_more() -> None:
    live, claims = managed.apply([], {"metadata": {}}, NODE, wish(ANN, service(minReplicas=1, timeout=5)))
    claims = managed.after_update(claims, live, service(minReplicas=2, timeout=5), NODE, EVE, "now")
    assert owned(claims, EVE) == {".spec.predictor.minReplicas"}
    assert owned(claims, ANN) == {".spec.predictor.timeout"}


def test_the_oldest_updaters_become_one() -> None:
    claims: list[Claim] = []
    body: Body = {"metadata": {"labels": {}}}
    for number in range(14):
        labels = {**body["metadata"]["labels"], f"l{number:02}": "x"}
        after: Body = {"metadata": {"labels": labels}}
        manager = Manager(f"m{number:02}", "Update", "v1")
        claims = managed.after_update(claims, body, after, NODE, manager, f"2026-01-01T00:00:{number:02}Z")
        body = after
    updaters = [entry["manager"] for entry in managed.encode(claims)]
    assert len(updaters) <= managed.MAX_UPDATERS
    assert managed.ANCIENT in updaters
    assert set().union(*(claim.fields for claim in claims)) >= {("f:metadata", "f:labels", "f:l00")}


def test_atomic_lists_are_one_field() -> None:
    spec = {"predictor": {"model": {"args": ["a", "b"]}}}
    fields = {fieldset.text(path) for path in fieldset.of_object({"spec": spec}, NODE)}
    assert fields == {".spec.predictor.model.args"}


@pytest.mark.parametrize(
    ("applied", "why"),
    [
        (service(nosuch=1), ".spec.predictor.nosuch: field not declared in schema"),
        (service(minReplicas="1"), ".spec.predictor.minReplicas: expected numeric (int or float), got string"),
    ],
)
def test_what_cannot_be_typed_is_named(applied: Body, why: str) -> None:
    assert managed.untyped(applied, NODE) == [why]
