from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kanary import release
from kanary.kfp_types import Run
from kanary.snapshot import Snapshot
from kanary.snapshot_home import BAD, GOOD, home
from kanary.snapshot_services import CANARY, FAILING, READY, UNREADABLE, joined, moment, read_service, splits_by_route
from kanary.snapshot_timeline import timeline
from tests.tui.cluster import remembered, status

Json = dict[str, Any]


def document(name: str = "m", percent: int | None = None, **more: Any) -> Json:
    spec: Json = {"annotations": {"model-version": "v2", "model-digest": "sha256:2"}}
    spec |= {} if percent is None else {"canaryTrafficPercent": percent}
    metadata = {"name": name, "namespace": "ns", "resourceVersion": "5", "creationTimestamp": "2026-11-20T00:00:00Z"}
    return {"metadata": metadata, "spec": {"predictor": spec}, "status": status(name, percent, **more)}


def config_map(name: str = "m") -> Json:
    made = release.document(remembered(name), name, "ns")
    made["metadata"]["resourceVersion"] = "7"
    return made


def test_what_a_service_is_in_says_what_needs_a_person() -> None:
    assert read_service(document(), None).situation == READY
    out = read_service(document(percent=20), config_map())
    assert (out.situation, out.key) == (CANARY, "ns/m")
    assert out.canary_since == moment("2026-11-20T02:00:00Z")
    assert read_service(document(percent=20, ready=False, failure="no memory"), None).situation == FAILING


@pytest.mark.parametrize(
    "damage",
    [
        {"status": {"components": {"predictor": {"traffic": "everything"}}}},
        {"status": {"components": [1, 2]}},
        {"status": {"conditions": "Ready"}},
        {"spec": {"predictor": 3}},
    ],
)
def test_a_broken_object_is_said_and_hides_no_other(damage: Json) -> None:
    service = read_service(document() | damage, None)
    assert service.problem
    assert service.situation == UNREADABLE
    documents: Snapshot[Mapping[str, Json]] = Snapshot({"ns/bad": document("bad") | damage, "ns/m": document()}, 1.0)
    found = joined(documents, Snapshot(), {})
    assert [found[key].situation for key in ("ns/bad", "ns/m")] == [UNREADABLE, READY]


def standard(canary: str = "r2", percent: int = 20) -> Json:
    """A service in Standard mode with a canary."""
    made = document()
    made["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": "Standard"}
    made["spec"]["canary"] = [{"trafficPercent": percent, "predictor": {"name": canary, "model": {}}}]
    made["status"] = {
        "deploymentMode": "Standard",
        "components": {"predictor": {"url": "http://m-predictor"}},
        "canaryStatuses": [{"name": canary, "ready": True, "trafficPercent": percent}],
        "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "PredictorReady")],
    }
    return made


def route(stable: int, canary: int) -> Json:
    backends = [{"name": "m-predictor", "weight": stable}, {"name": "m-r2-predictor", "weight": canary}]
    return {"spec": {"rules": [{"backendRefs": backends}]}}


def test_in_standard_mode_the_route_says_where_the_traffic_goes() -> None:
    documents: Snapshot[Mapping[str, Json]] = Snapshot({"ns/m": standard()}, 1.0)
    assert splits_by_route(standard())
    assert not splits_by_route(document(percent=20))
    before = joined(documents, Snapshot(), {})
    assert (before["ns/m"].status.requested, before["ns/m"].status.effective) == (20, 0)  # nothing leads there yet
    routes = {"ns/m-predictor": route(80, 20), "ns/m": route(100, 0)}
    now = joined(documents, Snapshot(), before, routes)
    assert now["ns/m"].status.split == {"m-predictor": 80, "m-r2-predictor": 20}
    assert joined(documents, Snapshot(), now, routes)["ns/m"] is now["ns/m"]
    later = joined(documents, Snapshot(), now, routes | {"ns/m-predictor": route(50, 50)})
    assert later["ns/m"].status.effective == 50
    # A release that names the route after the service.
    assert joined(documents, Snapshot(), {}, {"ns/m": route(70, 30)})["ns/m"].status.effective == 30


def test_a_damaged_release_state_is_said_beside_the_status() -> None:
    broken = config_map()
    broken["data"]["history"] = "{"
    service = read_service(document(percent=20), broken)
    assert "damaged" in service.problem
    assert service.situation == CANARY


def test_services_that_have_not_changed_are_the_very_same_objects() -> None:
    documents: Snapshot[Mapping[str, Json]] = Snapshot({"ns/m": document(), "ns/n": document("n")}, 1.0)
    maps: Snapshot[Mapping[str, Json]] = Snapshot({"ns/kanary-m": config_map()}, 1.0)
    first = joined(documents, maps, {})
    assert documents.value is not None
    changed: Snapshot[Mapping[str, Json]] = Snapshot({**documents.value, "ns/n": document("n", 10)}, 2.0)
    second = joined(changed, maps, first)
    assert second["ns/m"] is first["ns/m"]
    assert second["ns/n"] is not first["ns/n"]


def test_the_home_line_names_the_worst_first_and_nothing_that_is_not_known() -> None:
    ended = moment("2026-11-20T00:00:00Z")
    later = moment("2026-11-20T01:00:00Z")
    runs = [
        Run("1", "a", "FAILED", pipeline_name="p", created_at=ended, finished_at=ended),
        Run("2", "b", "SUCCEEDED", pipeline_name="q", created_at=ended, finished_at=ended),
        Run("3", "c", "RUNNING", pipeline_name="q", created_at=ended),
    ]
    services = {"ns/m": read_service(document(percent=20), None)}
    assert [item.text for item in home(runs, services)] == ["1 pipeline failing", "1 run going", "1 canary out"]
    mended = [*runs, Run("4", "d", "SUCCEEDED", pipeline_name="p", created_at=later, finished_at=later)]
    assert home(mended, None)[0].weight != BAD
    assert home([], {"ns/m": read_service(document(), None)})[0].weight == GOOD
    assert home(None, None) == ()


def test_an_event_of_a_pod_stands_with_its_service() -> None:
    services = {"ns/m": read_service(document(percent=20), config_map())}

    def event(kind: str, name: str, **more: Any) -> Json:
        about = {"kind": kind, "name": name, "namespace": "ns"}
        return {"involvedObject": about, "reason": "R", "message": "M", "lastTimestamp": "2026-11-20T00:00:00Z"} | more

    events = {
        "1": event("Pod", "m-predictor-00002-deployment-77-x"),
        "2": event("Revision", "m-predictor-00001", count=4),
        "3": event("Pod", "other-0"),
        "4": event("Node", "m-predictor-00001"),
        "5": event("Pod", "m-predictor-00002-x", lastTimestamp=None),
    }
    found = {entry.key: entry for entry in timeline((), services, events) if entry.kind == "event"}
    assert {key: entry.subject for key, entry in found.items()} == {
        "event/1": "ns/m",
        "event/2": "ns/m",
        "event/3": "ns/other-0",
    }
    assert found["event/2"].text == "R: M (×4)"
