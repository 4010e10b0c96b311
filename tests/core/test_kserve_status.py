"""Statuses as the real KServe 0.20 wrote them (shared recordings, written shorter here)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kanary.errors import KanaryError
from kanary.kserve.status import ServiceStatus, check_mode, service_status
from kanary.release import Denial, Intent, Release, State

Document = dict[str, Any]
FAILURE = {"reason": "ModelLoadFailed", "exitCode": 3, "message": "cannot load\n"}


def service(percent: int | None, text: str, *, transition: str = "UpToDate", **more: Any) -> Document:
    """`text`: created, ready, rolled out, previous ("-" for none), then traffic as revision:percent and tag or L."""
    names, *traffic = text.split(" | ")
    keys = ("latestCreatedRevision", "latestReadyRevision", "latestRolledoutRevision", "previousRolledoutRevision")
    component: Document = {key: f"m-{n}" for key, n in zip(keys, names.split(), strict=True) if n != "-"}
    component["traffic"] = [entry(part) for part in (traffic[0].split() if traffic else [])]
    conditions = [{"type": "Ready", "status": "True"}, *more.get("conditions", [])]
    status = {
        "deploymentMode": more.get("mode", "Knative"),
        "components": {"predictor": component},
        "conditions": conditions,
        "modelStatus": {"transitionStatus": transition} | more.get("model", {}),
    }
    predictor: Document = {"annotations": {"model-version": "v2", "model-digest": "sha256:2"}}
    predictor |= {} if percent is None else {"canaryTrafficPercent": percent}
    metadata = {"name": "m", "namespace": "ns", "resourceVersion": "9", "creationTimestamp": "t0"}
    return {"metadata": metadata, "spec": {"predictor": predictor}, "status": status}


def entry(part: str) -> Document:
    number, percent, kind = re.fullmatch(r"(\d+):(\d+)(\w*)", part).groups()  # type: ignore[union-attr]
    found: Document = {
        "revisionName": f"m-{number}",
        "percent": int(percent),
        "latestRevision": kind in ("L", "latest"),
    }
    return found | ({"tag": kind, "url": f"http://{kind}"} if kind in ("prev", "latest") else {})


def told(percent: int | None, text: str, **more: Any) -> ServiceStatus:
    return service_status(service(percent, text, **more))


def test_one_ready_revision_takes_everything() -> None:
    found = told(None, "01 01 01 - | 01:100L")
    assert (found.stable, found.canary, found.split, found.notes) == ("m-01", "", {"m-01": 100}, ())


def test_a_canary_in_force() -> None:
    found = told(10, "02 02 01 - | 02:10latest 01:90prev")
    assert (found.stable, found.canary, found.canary_ready) == ("m-01", "m-02", True)
    assert (found.requested, found.effective, found.notes) == (10, 10, ())
    assert found.canary_url == "http://latest"
    assert [(r.role, r.version) for r in found.revisions] == [("stable", ""), ("canary", "v2")]


def test_a_starting_canary_has_no_traffic_though_the_latest_revision_has() -> None:
    found = told(10, "02 01 01 - | 01:10latest 01:90prev", transition="InProgress")
    assert found.split == {"m-01": 100}
    assert (found.canary, found.canary_ready, found.effective) == ("m-02", False, 0)
    assert found.notes == ("10 % requested, 0 % effective: canary not ready",)
    assert found.canary_url == "", "the tag still leads to the old revision"


def test_a_requested_share_that_is_not_in_force_yet_is_told() -> None:
    assert told(50, "02 02 01 - | 02:10L 01:90prev").notes == ("50 % requested, 10 % effective: not in force yet",)


def test_a_failed_canary_says_why() -> None:
    more = {"transition": "BlockedByFailedLoad", "model": {"lastFailureInfo": FAILURE}}
    assert told(10, "02 01 01 - | 01:10L 01:90prev", **more).failure == "ModelLoadFailed: exit code 3: cannot load"


def test_a_stale_failure_of_before_is_none() -> None:
    model = {"lastFailureInfo": FAILURE}
    assert told(None, "04 04 04 01 | 04:100L", model=model).failure == ""
    assert told(10, "05 04 04 01 | 04:10L 04:90prev", transition="InProgress", model=model).failure == ""


def test_a_canary_past_its_progress_deadline_says_why() -> None:
    message = 'Revision "m-02" failed with message: Initial scale was never achieved.'
    failed = {"type": "PredictorConfigurationReady", "status": "False", "reason": "RevisionFailed", "message": message}
    found = told(10, "02 01 01 - | 01:10L 01:90prev", transition="InProgress", conditions=[failed])
    assert found.failure == message


def test_during_a_canary_stable_is_what_was_rolled_out_last_and_not_before() -> None:
    found = told(10, "05 05 04 01 | 05:10L 04:90prev")
    assert (found.stable, found.previous) == ("m-04", "m-01")


def test_a_first_deployment_with_a_percentage_is_no_canary() -> None:
    found = told(30, "01 01 01 - | 01:30L 01:70prev")
    assert (found.canary, found.split) == ("", {"m-01": 100})
    assert "leftover" in found.notes[0]


def test_a_first_revision_that_was_never_ready_is_no_stable() -> None:
    found = told(None, "01 - - -", transition="InProgress")
    assert (found.stable, found.canary, found.created, found.split) == ("", "", "m-01", {})


def test_the_moment_after_a_rollback_of_a_promotion_the_bad_revision_still_has_it_all() -> None:
    found = told(0, "02 02 01 01 | 02:0L 02:100prev")
    assert (found.stable, found.split, found.effective) == ("m-01", {"m-02": 100}, 100)
    assert found.notes == ("0 % requested, 100 % effective: not in force yet",)


def test_a_percentage_that_knative_refuses_is_told() -> None:
    refused = {"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed", "message": "expected 0 <= 400"}
    found = told(400, "02 02 02 - | 02:100L", conditions=[refused])
    assert found.failure == "expected 0 <= 400"
    assert any("traffic is what it was" in note for note in found.notes)


def test_a_new_spec_without_a_percentage_takes_over_once_ready() -> None:
    assert "takes all traffic as soon as" in told(None, "02 01 01 - | 01:100L", transition="InProgress").notes[0]


def test_a_denied_model_that_is_back_is_told() -> None:
    state = State(denied=(Denial("sha256:2", "v2", "ann", "yesterday", "slow"),))
    found = service_status(service(None, "03 03 03 01 | 03:100L"), state)
    assert found.notes == ("v2 is back in the spec, though ann denied it at yesterday: slow",)


def test_versions_come_from_the_history_by_revision() -> None:
    state = State(history=(Release("v1", "s3://1", "sha256:1", {}, revision="m-01"),))
    found = service_status(service(10, "02 02 01 - | 02:10L 01:90prev"), state)
    assert [r.version for r in found.revisions] == ["v1", "v2"]


def test_an_unfinished_rollback_is_told() -> None:
    state = State(intent=Intent("rollback", "ann", "t1"), epoch=2)
    found = service_status(service(0, "02 02 01 - | 02:0L 01:100prev"), state)
    assert "unfinished" in found.notes[-1]
    assert (found.act, found.since, found.epoch) == ("rollback by ann: begun", "t1", 2)


@pytest.mark.parametrize("mode", ["Standard", "RawDeployment"])
def test_standard_mode_is_seen_under_both_of_its_names(mode: str) -> None:
    document = service(None, "- - - -", mode=mode)
    check_mode(document)
    assert service_status(document).mode == "Standard"


def test_a_mode_that_nobody_drives_is_refused() -> None:
    document = service(None, "- - - -", mode="ModelMesh")
    assert service_status(document).notes == ("mode ModelMesh: its traffic is kubectl's to show and to steer",)
    with pytest.raises(KanaryError, match="ns/m runs in KServe's mode ModelMesh"):
        check_mode(document)


def test_serverless_is_knative() -> None:
    document = service(None, "01 01 01 - | 01:100L", mode="Serverless")
    check_mode(document)
    assert service_status(document).mode == "Knative"
