"""A detector that runs: events in, verdicts and metrics out, over restarts, bad input and too much of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.drift.rig import NEEDS_ALIBI, Detector, detecting
from tests.drift.stream import About, exchanges, request, response, rows, wire, write_model
from tests.waiting import wait_for

pytestmark = [NEEDS_ALIBI, pytest.mark.timeout(900)]
WINDOW = ("--window_rows", "200", "--minimum_rows", "50")
STABLE = About()
CANARY = About("v2", "market-predictor-00002")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    reference = rows(4000, seed=1)
    for version in ("v1", "v2"):
        write_model(folder / "market" / version, reference, version)
    return folder


@pytest.fixture(scope="module")
def detector(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
    with detecting(
        tmp_path_factory.mktemp("drift") / "home", releases, *WINDOW, "--labelled_rows", "150", "--labelled_ert", "100"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def strict(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detector]:
    """One that holds few rows and asks for coverage."""
    home = tmp_path_factory.mktemp("strict") / "home"
    with detecting(home, releases, *WINDOW, "--max_rows", "700", "--coverage", "0.5") as made:
        yield made


def test_drift_is_told_by_feature_within_two_windows_and_what_stands_still_is_not(detector: Detector) -> None:
    about = About(service="one", revision="one-00001")
    assert set(detector.send(exchanges(about, rows(400, seed=2), "still"))) == {204}
    still = detector.result(2, about.revision)
    assert still["verdict"] == "no drift"
    assert {one["score"]["test"] for one in still["findings"]} == {"ks", "chi2", "mmd"}
    assert {one["score"]["kind"] for one in still["findings"]} == {"feature", "prediction", "multivariate"}
    detector.send(exchanges(about, rows(400, seed=3, shift={"demand": 1.0}), "moved"))
    moved = detector.result(4, about.revision)
    assert moved["verdict"] == "drift"
    drifting = {one["score"]["name"] for one in moved["findings"] if one["detected"]}
    assert "demand" in drifting
    assert drifting.isdisjoint({"price", "transfer", "weather"})
    named = {"service": "one", "feature": "demand"}
    assert detector.metric("kanary_drift_detected", **named) == 1
    assert detector.metric("kanary_drift_p_value", **named) <= detector.metric("kanary_drift_threshold", **named)
    assert detector.metric("kanary_drift_alarms_total", **named) == 1  # once, not with every window
    assert detector.metric("kanary_drift_verdict", service="one", verdict="drift") == 1
    shares = {
        side: sum(
            value
            for (name, labels), value in detector.metrics().items()
            if name == "kanary_drift_distribution" and {("side", side), *named.items()} <= set(labels)
        )
        for side in ("reference", "current")
    }
    assert shares == {"reference": pytest.approx(1), "current": pytest.approx(1)}
    now = {"side": "current", "bin": "11"} | named  # above nearly all that the model was trained on
    assert detector.metric("kanary_drift_distribution", **now) > 0.03


def test_a_rare_category_that_becomes_common_is_drift(detector: Detector) -> None:
    about = About(service="two", revision="two-00001")
    detector.send(exchanges(about, rows(200, seed=4, shift={"weather": 0.3})))
    found = detector.result(1, about.revision)
    assert "weather" in {one["score"]["name"] for one in found["findings"] if one["detected"]}


def test_an_outlier_is_named_by_its_event(detector: Detector) -> None:
    about = About(service="three", revision="three-00001")
    given = rows(199, seed=5)
    wild = {"price": 60.0, "demand": -40.0, "transfer": 49, "weather": "storm"}
    wild_one = [
        wire(about, "request", "the-wild-one", request(wild)),
        wire(about, "response", "the-wild-one", response(wild)),
    ]
    detector.send([*wild_one, *exchanges(about, [*given, given[0]], "three-")])
    found = detector.result(1, about.revision)
    assert "the-wild-one" in found["outlier_ids"]
    assert found["outliers"] <= 20
    assert detector.metric("kanary_drift_outliers_total", service="three") == found["outliers"]


def test_a_canary_that_answers_otherwise_on_the_same_rows_is_a_matter_of_the_model(detector: Detector) -> None:
    stable, canary = (About(a.version, f"four-{a.revision[-5:]}", "four") for a in (STABLE, CANARY))
    given = rows(400, seed=6)
    events = [
        event
        for number in range(0, 400, 2)
        for event in (
            *exchanges(stable, given[number : number + 1], f"s{number}-"),
            *exchanges(canary, given[number + 1 : number + 2], f"c{number}-", wrong=0.9, seed=number),
        )
    ]
    detector.send(events)
    found = detector.result(1, canary.revision)
    if found["comparison"] is None:  # its first window was checked before stable's was whole
        detector.send(exchanges(canary, rows(200, seed=7), "more", wrong=0.9))
        found = detector.result(2, canary.revision)
    assert found["comparison"]["stable"] == stable.revision
    assert found["comparison"]["cause"] == "model"
    assert detector.metric("kanary_drift_canary", service="four", cause="model") == 1


def test_corrupt_events_are_refused_counted_and_kept_and_the_connection_goes_on(detector: Detector) -> None:
    before = detector.metric("kanary_drift_events_refused_total", reason="body")
    good = rows(1, seed=8)[0]
    about = About(service="five", revision="five-00001")
    sent = [
        wire(about, "request", "a", b"{no json"),
        wire(about, "request", "b", request(good | {"price": "dear"})),
        wire(about, "request", "c", request({"price": 1.0})),
        wire(
            about, "response", "d", b'{"predictions": [{"label": "sideways", "probabilities": {"down": 1, "up": 0}}]}'
        ),
        wire(about, "request", "", request(good)),
        wire(about, "rumour", "e", request(good)),
        wire(About(version="v99"), "request", "f", request(good)),
        wire(about, "request", "g", request(good)),
    ]
    assert detector.send(sent) == [400, 400, 400, 400, 400, 400, 404, 204]
    assert detector.metric("kanary_drift_events_refused_total", reason="body") == before + 1
    kept = [json.loads(line) for line in (detector.home / "quarantine.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in kept[-6:]] == ["body", "values", "columns", "classes", "headers", "type"]


def test_an_event_that_comes_twice_counts_once(detector: Detector) -> None:
    about = About(service="six", revision="six-00001")
    event = wire(about, "request", "same", request(*rows(3, seed=9)))
    assert detector.send([event, event]) == [204, 204]
    assert detector.metric("kanary_drift_open_window_rows", service="six") == 3
    assert detector.metric("kanary_drift_events_repeated_total", service="six") == 1


def test_ground_truth_that_comes_later_gives_an_accuracy_and_turns_an_alarm_on(detector: Detector) -> None:
    about = About(service="seven", revision="seven-00001")
    good, bad = rows(300, seed=10), rows(300, seed=11)
    events = list(exchanges(about, good, "good", wrong=0.1, seed=1))
    events += exchanges(about, bad, "bad", wrong=0.6, seed=2)
    assert set(detector.send(events)) <= {204, 429}
    answered = {
        event.partition(b"Ce-Id: ")[2].partition(b"\r\n")[0].decode(): json.loads(event.partition(b"\r\n\r\n")[2])
        for event in events
        if b"inference.response" in event
    }
    from tests.drift.stream import label

    truth = [{"id": f"good{number}", "label": label(row)} for number, row in enumerate(good)]
    truth += [{"id": f"bad{number}", "label": label(row)} for number, row in enumerate(bad)]
    early = [{"id": "not-yet", "label": "up"}]
    told = detector.post("/v1/feedback", truth + early)
    assert told == {"judged": 600, "waiting": 1, "refused": 0}
    right = sum(answered[one["id"]]["predictions"][0]["label"] == one["label"] for one in truth[450:])
    assert detector.metric("kanary_drift_accuracy", service="seven", bound="value") == pytest.approx(right / 150)
    low, high = (detector.metric("kanary_drift_accuracy", service="seven", bound=bound) for bound in ("low", "high"))
    assert low < right / 150 < high
    assert detector.metric("kanary_drift_accuracy_baseline", service="seven") > 0.8

    def detected() -> bool:
        found = [
            value
            for (name, labels), value in detector.metrics().items()
            if name == "kanary_drift_online_detections" and ("service", "seven") in labels
        ]
        return len(found) == 2 and min(found) >= 1

    wait_for(detected, f"the online tests detect it: {detector.log.read_text()[-1500:]}", 180, every=0.2)
    row = rows(1, seed=12)[0]
    detector.send([wire(about, "response", "not-yet", response(row))])
    assert detector.metric("kanary_drift_labelled_rows_total", service="seven") == 601


def test_killed_it_comes_back_with_its_open_window_and_what_it_had_found(releases: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    events = list(exchanges(STABLE, rows(300, seed=13), "k"))
    with detecting(home, releases, *WINDOW) as first:
        assert set(first.send(events[:500])) == {204}
        before = first.result(1)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
    journal = next((home / "streams").glob("*/window-00000002.jsonl"))
    with journal.open("ab") as file:
        file.write(b'["request","torn')  # as a kill in the middle of a write would leave it
    with detecting(home, releases, *WINDOW) as second:
        assert second.result(1) == before
        assert second.metric("kanary_drift_open_window_rows") == 50
        assert second.metric("kanary_drift_events_total", type="request") == 250
        # What was delivered before the kill and is delivered again counts once.
        assert set(second.send(events[400:])) == {204}
        assert second.metric("kanary_drift_open_window_rows") == 100
        assert second.metric("kanary_drift_events_repeated_total") == 100


def test_too_much_is_told_to_wait_and_a_worker_that_is_killed_is_replaced(strict: Detector) -> None:
    about = About(service="eight", revision="eight-00001")
    (worker,) = psutil.Process(strict.process.pid).children()
    worker.send_signal(signal.SIGSTOP)  # checks stand still
    many = [wire(about, "request", f"m{number}", request(row)) for number, row in enumerate(rows(900, seed=15))]
    statuses = strict.send(many)
    assert statuses.count(204) == 700
    assert set(statuses[700:]) == {429}
    assert strict.metric("kanary_drift_held_rows") == 700
    worker.kill()
    found = strict.result(3, about.revision)
    assert {one["score"]["kind"] for one in found["findings"]} == {"feature", "multivariate"}
    assert strict.metric("kanary_drift_worker_deaths_total") == 1
    assert not psutil.pid_exists(worker.pid)
    assert strict.send(many[700:710]) == [204] * 10


def test_low_coverage_is_unknown_and_never_free_of_drift(strict: Detector) -> None:
    def counters(requests: float) -> None:
        named = {"namespace": STABLE.namespace, "service": STABLE.service, "revision": STABLE.revision}
        strict.post("/v1/requests", [named | {"requests": requests}])

    counters(1000)
    assert set(strict.send(exchanges(STABLE, rows(200, seed=16), "few"))) == {204}
    counters(2000)  # of a thousand requests two hundred have left an event
    found = strict.result(1)
    assert (found["verdict"], found["coverage"]) == ("unknown", pytest.approx(0.2))
    assert strict.metric("kanary_drift_verdict", service="market", verdict="no drift") == 0
    assert strict.metric("kanary_drift_coverage_ratio", service="market") == pytest.approx(0.2)
    assert set(strict.send(exchanges(STABLE, rows(200, seed=17), "enough"))) == {204}
    counters(2200)
    found = strict.result(2)
    assert (found["verdict"], found["coverage"]) == ("no drift", pytest.approx(1.0))


def test_two_detectors_never_share_a_home(detector: Detector, releases: Path) -> None:
    with pytest.raises(AssertionError, match="another detector works in"), detecting(detector.home, releases):
        pass
    assert os.kill(detector.process.pid, 0) is None  # type: ignore[func-returns-value]
