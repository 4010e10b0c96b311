"""The payload log of a running predictor: what a sink gets, and that no sink can do a prediction any harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from kanary.errors import ConfigError
from kanary.modelspec import ModelSpec
from serving.predictor.payloads import recorder
from serving.predictor.payloads.counters import Counters
from serving.predictor.payloads.spec import payload_log
from serving.predictor.settings import settings
from tests.gateway.rig import binomial_interval
from tests.serving.payload_rig import Sink, sink
from tests.serving.predictor_rig import ROWS, V1_GOOD, V2_GOOD, Server, lines, serving, write_model
from tests.waiting import wait_for

# On a busy machine events would be as late as they may be.
PROMPTLY = ("--payload_nice=0",)
V1, V2 = "/v1/models/plants:predict", "/v2/models/plants/infer"
OUTCOME = re.compile(r'kanary_payload_events_total\{outcome="(\w+)",service="plants",type="(\w+)".*\} (\S+)')


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def taking() -> Iterator[Sink]:
    with sink() as made:
        yield made


@pytest.fixture(scope="module")
def server(model: Path, taking: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A predictor that logs everything to `taking`."""
    told = {
        "url": taking.url,
        "mode": "all",
        "metadataHeaders": ["X-Tenant", "x-spelt-as-go-never-does"],
        "metadataAnnotations": {"model-version": "v<7>"},
        "inferenceservicename": "plants",
        "namespace": "garden",
        "component": "predictor",
        "endpoint": "",
        "source": "plants-00007-pod",
        "revision": "plants-00007",
    }
    with serving(
        model, tmp_path_factory.mktemp("log") / "log", "--payload_log", json.dumps(told), *PROMPTLY, forked=True
    ) as running:
        yield running


def logging(url: str, **more: Any) -> list[str]:
    return ["--payload_log", json.dumps({"url": url} | more), *PROMPTLY]


def ask(server: Server, number: int = 1, **headers: str) -> None:
    """Predictions, each of which must be answered."""
    with server.connection() as connection:
        for _ in range(number):
            assert connection.exchange("POST", V1, V1_GOOD, headers)[0] == 200


def outcomes(server: Server) -> Counter[tuple[str, str]]:
    """The events so far, by type and outcome, without those that are 0."""
    found = Counter({(kind, outcome): int(float(n)) for outcome, kind, n in OUTCOME.findall(server.get("/metrics")[1])})
    return +found


@pytest.fixture
def before(server: Server, taking: Sink) -> Iterator[Counter[tuple[str, str]]]:
    """The outcomes of `server` before the test, with nothing waiting and `taking` empty, which works again after it."""
    wait_for(
        lambda: re.search(r"kanary_payload_queue_events\{.*\} 0\.0", server.get("/metrics")[1]), "nothing waits", 60
    )
    taking.accepted.clear()
    taking.asked = 0
    yield outcomes(server)
    taking.behaviour = "ok"


def settled(server: Server, before: Counter[tuple[str, str]] | None = None, **expected: int) -> None:
    """Wait until so many more requests than `before` have had these outcomes, and as many responses."""
    wanted = Counter({(kind, name): number for name, number in expected.items() for kind in ("request", "response")})
    wanted += before or Counter()
    wait_for(lambda: outcomes(server) == wanted, f"{wanted}; in the end {outcomes(server)}", 60)


def sender(server: Server) -> psutil.Process:
    """The process that sends."""

    def found() -> psutil.Process | None:
        for child in psutil.Process(server.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                if "serving.predictor.payloads.sender" in child.cmdline():
                    return child
        return None

    process = wait_for(found, "there is a sender")
    assert process is not None
    return process


def test_request_and_response_become_the_events_that_kserve_s_agent_sends(server: Server, taking: Sink) -> None:
    before, started = len(taking.accepted), datetime.now(UTC)
    body = json.dumps(V1_GOOD).encode()
    with server.connection() as connection:
        _, answer, _ = connection.exchange(
            "POST", V1, body, {"ce-id": "from-client", "x-tenant": "a&b", "x-other": "c"}
        )
    request, response = sorted(taking.wait(before + 2)[before:], key=lambda event: event.kind)
    assert (request.body, response.body) == (body, answer)
    for event, kind in ((request, "request"), (response, "response")):
        told = dict(event.headers)
        times = [told.pop("ce-time"), told.pop("ce-recordedtime")]
        assert [datetime.fromisoformat(time) for time in times] == sorted(map(datetime.fromisoformat, times))
        assert started <= datetime.fromisoformat(times[0])
        assert told.pop("host") == f"127.0.0.1:{taking.port}"
        assert event.path == "/events"
        assert told == {
            "user-agent": "kanary-predictor",
            "content-type": "application/json",
            "content-length": str(len(event.body)),
            "ce-specversion": "1.0",
            "ce-id": "from-client",
            "ce-type": f"org.kubeflow.serving.inference.{kind}",
            "ce-source": "plants-00007-pod",
            "ce-inferenceservicename": "plants",
            "ce-namespace": "garden",
            "ce-component": "predictor",
            "ce-endpoint": "",
            "ce-metadata": '{"X-Tenant":["a\\u0026b"]}',
            "ce-annotations": '{"model-version":"v\\u003c7\\u003e"}',
            "ce-revision": "plants-00007",
        }
    first, then = (datetime.fromisoformat(event.headers["ce-time"]) for event in (request, response))
    assert first < then  # as text they are not in order: zeros at the end are left out


def test_without_an_id_both_events_share_a_new_one(server: Server, taking: Sink) -> None:
    before = len(taking.accepted)
    with server.connection() as connection:
        for _ in range(2):
            assert connection.exchange("POST", V2, V2_GOOD)[0] == 200
    ids = Counter(event.id for event in taking.wait(before + 4)[before:])
    assert list(ids.values()) == [2, 2]
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found) for found in ids)


def test_only_what_is_answered_is_logged(server: Server, taking: Sink) -> None:
    before = len(taking.accepted)
    with server.connection() as connection:
        for body, status in (({"instances": []}, 400), (V1_GOOD, 200)):
            assert connection.exchange("POST", V1, body, {"ce-id": str(status)})[0] == status
        connection.exchange("GET", "/v2/models/plants")
        assert connection.exchange("POST", V1, V1_GOOD, {"ce-id": "after"})[0] == 200
    assert [event.id for event in taking.wait(before + 4)[before:]] == ["200", "200", "after", "after"]


def test_a_long_body_is_logged_whole(server: Server, taking: Sink) -> None:
    before = len(taking.accepted)
    body = json.dumps({"instances": ROWS * 5000}).encode()
    assert len(body) > 1_000_000
    with server.connection() as connection:
        assert connection.exchange("POST", V1, body)[0] == 200
    assert {event.body for event in taking.wait(before + 2)[before:]} >= {body}


@pytest.mark.parametrize("mode", ["request", "response"])
def test_a_mode_of_one_type_sends_that_type_only(model: Path, tmp_path: Path, mode: str) -> None:
    with sink() as taking, serving(model, tmp_path / "log", *logging(taking.url, mode=mode), forked=True) as server:
        ask(server, 5)
        taking.wait(5)
        wait_for(lambda: outcomes(server) == {(mode, "sent"): 5}, "five are sent, of one type")
        assert taking.kinds() == {mode: 5}


def test_sensitive_columns_are_null_in_json_and_in_binary(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model")
    mark_sensitive(tmp_path / "model", spec, "height", "colour")
    heights = struct.pack("<3d", *(row["height"] for row in ROWS))
    parameters = {"binary_data_size": len(heights)}
    tensor = {"name": "height", "datatype": "FP64", "shape": [3], "parameters": parameters}
    text = json.dumps({"inputs": [tensor, *V2_GOOD["inputs"][1:]]}).encode()
    asked: list[tuple[str, Any, dict[str, str]]] = [
        (V1, V1_GOOD, {}),
        (V1, {"instances": [list(row.values()) for row in ROWS], "note": "40.25"}, {}),
        (V2, V2_GOOD, {}),
        (V2, text + heights, {"inference-header-content-length": str(len(text))}),
    ]
    with sink() as taking, serving(tmp_path / "model", tmp_path / "log", *logging(taking.url), forked=True) as server:
        with server.connection() as connection:
            for path, body, headers in asked:
                assert connection.exchange("POST", path, body, headers)[0] == 200
        taking.wait(8)
        settled(server, sent=4)
    requests = [event for event in taking.accepted if event.kind == "request"]
    for event in requests:
        assert b"40.25" not in event.body
        assert b'"green"' not in event.body
        assert heights not in event.body
        assert b"12" in event.body  # `leaves` is not sensitive
    hidden = [row | {"height": None, "colour": None} for row in ROWS]
    assert json.loads(requests[0].body) == {"instances": hidden}
    assert json.loads(requests[1].body) == {"instances": [list(row.values()) for row in hidden]}
    assert json.loads(requests[2].body)["inputs"] == json.loads(requests[3].body)["inputs"]


def mark_sensitive(folder: Path, spec: ModelSpec, *names: str) -> None:
    (folder / "model.json").write_text(replace(spec, sensitive=names).to_json(), encoding="utf-8")


def test_sampling_keeps_its_share_and_decides_by_the_id(model: Path, tmp_path: Path) -> None:
    number, share = 500, 0.25
    lowest, highest = binomial_interval(number, share)
    kept: list[set[str]] = []
    for replica in ("first", "second"):
        with (
            sink() as taking,
            serving(model, tmp_path / replica, *logging(taking.url), "--payload_sample=0.25", forked=True) as server,
        ):
            with server.connection() as connection:
                for one in range(number):
                    connection.exchange("POST", V1, {"instances": ROWS[:1]}, {"ce-id": f"{one}"})
            wait_for(lambda: sum(outcomes(server).values()) == 2 * number, "all are counted")
            found = outcomes(server)
            assert found["request", "sent"] + found["request", "sampled_out"] == number
            ids = Counter(event.id for event in taking.wait(2 * found["request", "sent"]))
            assert set(ids.values()) == {2}
            kept.append(set(ids))
    assert lowest <= len(kept[0]) <= highest
    assert kept[0] == kept[1]


def test_sampling_without_ids_keeps_its_share() -> None:
    number, below = 20_000, int(0.1 * 2**64)
    found = sum(recorder.sampled(b"", below) for _ in range(number))
    lowest, highest = binomial_interval(number, 0.1)
    assert lowest <= found <= highest
    assert not any(recorder.sampled(b"%d" % one, 0) for one in range(100))


def test_a_sink_that_is_down_harms_no_prediction_and_gets_its_events_when_it_is_back(
    model: Path, tmp_path: Path
) -> None:
    bound = socket.socket()  # nobody listens there, and nobody else can
    bound.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
    with bound, serving(model, tmp_path / "log", *logging(url), forked=True) as server:
        ask(server, 50)
        wait_for(lambda: any("cannot be reached" in line for line in lines(server.log)), "the log tells of it")
        assert outcomes(server) == {}
        with sink(bound) as taking:
            taking.wait(100)
            settled(server, sent=50)
            wait_for(lambda: "takes events again" in server.log.read_text(encoding="utf-8"), "the log tells of it")
    assert sum("payload log" in line for line in lines(tmp_path / "log")) == 2


@pytest.mark.parametrize("behaviour", ["500", "garbage"])
def test_a_sink_that_fails_gets_events_again_once_it_works(
    server: Server, taking: Sink, before: Counter[tuple[str, str]], behaviour: str
) -> None:
    taking.behaviour = behaviour
    ask(server, 20)
    wait_for(lambda: taking.asked >= 3, "the sink is asked")
    assert taking.accepted == []
    taking.behaviour = "ok"
    settled(server, before, sent=20)
    assert Counter(event.kind for event in taking.accepted) >= Counter(request=20, response=20)


def test_an_event_that_the_sink_always_fails_at_is_dropped(
    server: Server, taking: Sink, before: Counter[tuple[str, str]]
) -> None:
    taking.behaviour = "500"
    ask(server)
    settled(server, before, dropped_failed=1)
    ask(server)
    taking.behaviour = "ok"
    settled(server, before, dropped_failed=1, sent=1)


def test_an_event_that_the_sink_refuses_is_dropped_at_once(
    server: Server, taking: Sink, before: Counter[tuple[str, str]]
) -> None:
    taking.behaviour = "400"
    ask(server, 10)
    settled(server, before, dropped_refused=10)
    assert taking.asked == 20


def test_a_sink_that_keeps_no_connection_gets_every_event(
    server: Server, taking: Sink, before: Counter[tuple[str, str]]
) -> None:
    taking.behaviour = "old"
    ask(server, 50)
    settled(server, before, sent=50)
    assert Counter(event.kind for event in taking.accepted) >= Counter(request=50, response=50)


def test_a_sink_that_says_nothing_bounds_the_queue_and_what_does_not_fit_is_counted(
    model: Path, tmp_path: Path
) -> None:
    body = json.dumps({"instances": ROWS * 5000}).encode()
    with sink(behaviour="silent") as taking, serving(model, tmp_path / "log", *logging(taking.url)) as server:
        with server.connection() as connection:
            for _ in range(40):
                assert connection.exchange("POST", V1, body)[0] == 200
        wait_for(lambda: outcomes(server)["request", "dropped_queue_full"] > 0, "some do not fit")
        waiting = re.search(r"kanary_payload_queue_bytes\{.*\} (\S+)", server.get("/metrics")[1])
        assert waiting is not None
        assert float(waiting[1]) < 64 << 20
        process = sender(server)
        assert process.memory_info().rss < 256 << 20
        ask(server, 10)
        # With a full queue it does not read, and must end all the same.
        os.kill(server.process.pid, signal.SIGKILL)
        wait_for(lambda: has_ended(process), "the sender ends, too", 60)


def test_a_sender_that_dies_is_started_again_and_what_it_had_is_counted(
    server: Server, taking: Sink, before: Counter[tuple[str, str]]
) -> None:
    def since(*wanted: str) -> list[int]:
        """How many events of each type have had one of these outcomes since the test began."""
        now = outcomes(server)
        return [sum(now[kind, one] - before[kind, one] for one in wanted) for kind in ("request", "response")]

    taking.behaviour = "silent"
    ask(server, 10)
    wait_for(lambda: taking.asked > 0, "the sender holds events")
    first = sender(server)
    taking.behaviour = "ok"  # for its successor, which gets what the first had not been handed
    first.kill()
    wait_for(lambda: max(since("dropped_sender_died")) > 0, "what the sender had is counted")
    ask(server, 10)
    wait_for(lambda: since("dropped_sender_died", "sent") == [20, 20], "everything is accounted for")
    assert min(since("sent")) >= 10
    assert sender(server).pid != first.pid


async def test_a_sender_that_cannot_be_started_is_tried_again_after_longer_and_longer_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recorder, "_COMMAND", ("/there/is/no/such/command",))
    log = payload_log('{"url": "http://127.0.0.1:9/"}', 1.0, 0, {})
    assert log is not None
    made = recorder.Recorder(log, Counters("unstartable", "1"), [], [])
    made.start()
    async with asyncio.timeout(60):
        while len(caplog.records) < 4:
            await asyncio.sleep(0.01)
    await made.close()
    times = [record.created for record in caplog.records]
    assert times[3] - times[2] > 0.39


def test_a_predictor_told_to_stop_delivers_what_waits(model: Path, tmp_path: Path) -> None:
    with sink() as taking, serving(model, tmp_path / "log", *logging(taking.url)) as server:
        process = sender(server)
        ask(server)
        settled(server, sent=1)  # it works by now: starting it may take a busy machine as long as it has in the end
        ask(server, 199)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not process.is_running()
    assert taking.kinds() == {"request": 200, "response": 200}


def test_a_predictor_told_to_stop_does_not_wait_for_a_sink_that_is_down(model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "log", *logging("http://127.0.0.1:9/")) as server:
        process = sender(server)
        ask(server, 10)
        wait_for(lambda: any("cannot be reached" in line for line in lines(server.log)), "the sender works")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not process.is_running()
    assert "20 events could not be delivered" in (tmp_path / "log").read_text(encoding="utf-8")


@pytest.mark.parametrize("behaviour", ["ok", "silent"])
def test_a_killed_predictor_leaves_no_sender(model: Path, tmp_path: Path, behaviour: str) -> None:
    with sink(behaviour=behaviour) as taking, serving(model, tmp_path / "log", *logging(taking.url)) as server:
        process = sender(server)
        ask(server, 10)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(30)
        wait_for(lambda: has_ended(process), "the sender ends, too", 60)


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more, reaped by whoever adopted it or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_sender_gives_way_unless_told_otherwise(server: Server, model: Path, tmp_path: Path) -> None:
    assert sender(server).nice() == server_niceness(server)
    with serving(model, tmp_path / "log", "--payload_log", '{"url": "http://127.0.0.1:9/"}', forked=True) as polite:
        lowest = min(19, psutil.Process().nice() + 19)
        wait_for(lambda: sender(polite).nice() == lowest, "the sender gives way")
        assert server_niceness(polite) == psutil.Process().nice()


def server_niceness(server: Server) -> int:
    return int(psutil.Process(server.process.pid).nice())


def test_the_revision_and_the_source_come_from_the_environment_where_nobody_says() -> None:
    environment = {"K_REVISION": "m-00001", "HOSTNAME": "pod-1", "KANARY_PAYLOAD_LOG": '{"url": "http://sink"}'}
    told = settings([], environment).payload_log
    assert told is not None
    assert (told.revision, told.source, told.mode, told.sample) == ("m-00001", "pod-1", "all", 1.0)
    assert settings([], {}).payload_log is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "payload log"),
        ("[]", "an object"),
        ('{"url": "http://a", "sample": 1}', "unknown sample"),
        ("{}", "no http or https URL"),
        ('{"url": "s3://bucket/x"}', "no http or https URL"),
        ('{"url": "http://a:b"}', "no http or https URL"),
        ('{"url": "http://a", "mode": "none"}', "mode"),
        ('{"url": "http://a", "namespace": 3}', "namespace"),
        ('{"url": "http://a", "source": "a\\nb"}', "source"),
        ('{"url": "http://a", "metadataHeaders": "X"}', "metadataHeaders"),
        ('{"url": "http://a", "metadataAnnotations": {"a": 1}}', "metadataAnnotations"),
    ],
)
def test_a_wrong_setting_is_named(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        payload_log(text, 1.0, 19, {})


@pytest.mark.parametrize("share", ["2", "-0.1", "nan", "half"])
def test_a_share_that_is_none_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings([f"--payload_sample={share}"], {})
    assert "from 0 to 1" in capsys.readouterr().err
