"""What `kubectl describe isvc` tells somebody who was not there when it happened."""

from __future__ import annotations

import os
import signal

import pytest

from tests.kserve.rig import Document, Namespace, condition, wait

pytestmark = pytest.mark.sandbox


def told(ns: Namespace) -> list[tuple[str, str, str]]:
    """Type, reason and message of the events about the InferenceService, in the order in which they came."""
    return [(event["type"], event["reason"], event["message"]) for event in _events(ns)]


def counts(ns: Namespace) -> dict[str, int]:
    return {event["message"]: event["count"] for event in _events(ns)}


def _events(ns: Namespace) -> list[Document]:
    found = ns.items(f"/api/v1/namespaces/{ns.name}/events")
    mine = [event for event in found if event["involvedObject"]["kind"] == "InferenceService"]
    return sorted(mine, key=lambda event: int(event["metadata"]["resourceVersion"]))


def expect(ns: Namespace, kind: str, reason: str, *words: str) -> None:
    """Wait until such an event is told."""
    wait(lambda: says(ns, kind, reason, *words), f"{reason}: {words}")


def says(ns: Namespace, kind: str, reason: str, *words: str) -> bool:
    return any(event[:2] == (kind, reason) and all(word in event[2] for word in words) for event in told(ns))


def test_deployment_canary_promotion_and_rollback_can_be_read_from_the_events(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    ns.deploy("two", 10)
    ns.settled({"01": 90, "02": 10})
    ns.percent(None)
    ns.settled({"02": 100})
    ns.percent(0)
    ns.settled({"01": 100})
    for reason, words in (
        ("RevisionCreated", ("m-predictor-00002 created (from /", "/two); its server is starting")),
        ("RevisionReady", ("Revision m-predictor-00001 answers",)),
        ("InferenceServiceReady", ("InferenceService [m] is Ready",)),
        ("TrafficChanged", ("Traffic is now m-predictor-00002 10 %, m-predictor-00001 90 %",)),
        ("Promoted", ("m-predictor-00002 takes all traffic, from m-predictor-00001 (had 90 %)",)),
        ("RolledBack", ("All traffic is with m-predictor-00001 again, none with m-predictor-00002 (had 100 %)",)),
    ):
        expect(ns, "Normal", reason, *words)
    ns.deploy("three", None)
    ns.settled({"03": 100})
    wait(lambda: says(ns, "Normal", "RolledOut", "m-predictor-00003 takes all traffic"), "a rollout without a canary")


def test_a_failing_canary_says_why_and_where_to_look_and_is_counted(ns: Namespace) -> None:
    ns.create("one", annotations={"serving.knative.dev/progress-deadline": "4s"})
    ns.settled({"01": 100})
    ns.deploy("broken", 10)
    words = (
        "m-predictor-00002 ended with exit code 3",
        "cannot load",
        "kubectl logs -p -l serving.knative.dev/revision=",
    )
    wait(lambda: says(ns, "Warning", "BackOff", *words), "the crash")
    wait(lambda: max(count for text, count in counts(ns).items() if "exit code 3" in text) > 1, "it is counted")
    ns.wait("given up", lambda s: condition(s, "Ready")["status"] == "False")
    stays = "traffic stays m-predictor-00001 100 %"
    wait(lambda: says(ns, "Warning", "RevisionFailed", "m-predictor-00002 given up", stays), "it is given up")


def test_an_event_that_has_expired_is_told_anew(ns: Namespace) -> None:
    ns.create("one")
    ns.settled({"01": 100})
    for crash in (1, 2):
        os.kill(ns.servers()["m-predictor-00001"]["pid"], signal.SIGKILL)
        _restarted(ns, crash)
        wait(lambda: ns.servers()["m-predictor-00001"]["ready"], "it is back")
        wait(lambda: says(ns, "Warning", "BackOff", "exit code 137"), "the crash is told")
        path = f"/api/v1/namespaces/{ns.name}/events"
        for event in ns.items(path):
            if event["reason"] == "BackOff":
                ns.sandbox.api.delete(f"{path}/{event['metadata']['name']}").raise_for_status()


def _restarted(ns: Namespace, times: int) -> None:
    wait(lambda: ns.servers()["m-predictor-00001"]["restarts"] == times, "it is restarted")
