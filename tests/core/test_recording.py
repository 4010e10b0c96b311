from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kanary import config, recording
from kanary import recording_items as items
from kanary import recording_secrets as secrets
from kanary.errors import InputError, KanaryError
from kanary.kfp_pods import NODE_NAME
from kanary.kfp_types import Artifact, Run, TaskDetail, Values
from kanary.recorder import Recorder
from kanary.recording import Full, Writer, read
from kanary.recording_types import plain, restored
from kanary.replay import SPEEDS, ReplayHub
from kanary.rollout import profiles
from kanary.snapshot import Snapshot, failed, succeeded
from kanary.snapshot_alerts import Alerts, Stretch
from kanary.snapshot_connections import Connections
from kanary.snapshot_course import Grid, Past
from kanary.snapshot_drift import Drift, Finding, Model, course_of
from kanary.snapshot_hub import ALERTS, DRIFT, EVENTS, METRICS, RIGHTS, RUNS, SERVICES, Hub, Scope
from kanary.snapshot_metrics import Course, Metrics, Point
from kanary.snapshot_rights import Rights
from kanary.snapshot_runs import Runs
from kanary.snapshot_services import joined
from tests.core.test_snapshot_services import route, standard

BEGAN = 1_795_900_000.0
MOMENT = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
INPUTS = Values({"epochs": 3, "api_key": "abc"}, {"data": (Artifact("data", "s3://b/d"),)})
TASK = TaskDetail("t", "train", "RUNNING", started_at=MOMENT, pod_name="pod-1", inputs=INPUTS)
RUN = Run("r1", "nightly", "RUNNING", created_at=MOMENT, parameters={"lr": 0.1, "names": ["a"]}, tasks=(TASK,))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A recording of four lines: two of runs, two of metrics."""
    path = tmp_path / "incident.jsonl.gz"
    writer = Writer(path, BEGAN, limit=10**6)
    writer.write(
        {"at": BEGAN + 1, "source": RUNS, "told": {"at": BEGAN}, "set": {"": {"total": 1}, "run/r1": plain(RUN)}}
    )
    writer.write(
        {"at": BEGAN + 2, "source": METRICS, "told": {"at": BEGAN}, "set": {"course/ns/a": [[1, 2, 0, 0.1, 0.2]]}}
    )
    writer.write({"at": BEGAN + 4, "source": METRICS, "tail": {"course/ns/a": [0, [[2, 3, None, None, None]]]}})
    writer.sync()
    writer.write({"at": BEGAN + 9, "source": RUNS, "gone": ["run/r1"]})
    writer.close()
    return path


def pack(path: Path, *lines: Any, head: Any = None) -> Path:
    first = {recording.HEAD: recording.FORMAT, "began": BEGAN} if head is None else head
    text = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in (first, *lines)
    )
    path.write_bytes(gzip.compress(text, mtime=0))
    return path


def hub_of(path: Path, tmp_path: Path) -> ReplayHub:
    return ReplayHub(read(path), config.load({}, {"HOME": str(tmp_path)}, tmp_path), clock=lambda: 0.0)


# ---- the file


def test_what_was_written_is_read_and_each_moment_is_as_it_was(made: Path) -> None:
    found = read(made)
    assert (found.began, found.cut) == (BEGAN, "")
    assert (found.start, found.end) == (BEGAN + 1, BEGAN + 9)
    assert [list(found.state(count)) for count in range(5)] == [
        [],
        [RUNS],
        [RUNS, METRICS],
        [RUNS, METRICS],
        [RUNS, METRICS],
    ]
    assert found.state(2)[METRICS][1]["course/ns/a"] == [[1, 2, 0, 0.1, 0.2]]
    assert found.state(3)[METRICS][1]["course/ns/a"] == [[1, 2, 0, 0.1, 0.2], [2, 3, None, None, None]]
    assert "run/r1" in found.state(3)[RUNS][1]
    assert "run/r1" not in found.state(4)[RUNS][1]
    assert os.stat(made).st_mode & 0o077 == 0
    assert gzip.decompress(made.read_bytes()).count(b"\n") == 5  # zcat shows it


def test_cut_anywhere_in_its_last_line_the_rest_is_read_and_it_says_so(made: Path, tmp_path: Path) -> None:
    whole = made.read_bytes()
    # Until the sync before the last line nothing may be lost.
    unpacker, text, synced = zlib.decompressobj(31), b"", 0
    while b'"tail"' not in text or not text.endswith(b"\n"):
        text += unpacker.decompress(whole[synced : synced + 1])
        synced += 1
    cut = tmp_path / "cut.jsonl.gz"
    lines = set()
    for size in range(synced, len(whole)):
        cut.write_bytes(whole[:size])
        found = read(cut)
        lines.add(len(found.lines))
        assert found.cut == "it was cut off"
    assert lines == {3, 4}


def test_a_kill_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    path = tmp_path / "killed.jsonl.gz"
    writer = Writer(path, BEGAN, limit=10**6)
    for number in range(50):
        writer.write({"at": BEGAN + number, "source": RUNS, "set": {"": {"total": number}}})
    writer.sync()
    found = read(path)
    assert len(found.lines) == 50
    assert found.cut == "it was cut off"
    writer.close()
    assert read(path).cut == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no recording: it is empty"),
        (b"hello", "is no recording: it is not packed with gzip"),
        (gzip.compress(b"hello\n", mtime=0), "is no recording of Kanary's"),
        (gzip.compress(b'{"kanary-recording": true}\n', mtime=0), "is no recording of Kanary's"),
        (
            gzip.compress(b'{"kanary-recording": 7, "kanary": "9.0"}\n', mtime=0),
            r"newer Kanary \(9.0\): its format is 7",
        ),
        (gzip.compress(b'{"kanary-recording": 1, "began": 1}\n', mtime=0), "Nothing is in"),
        (gzip.compress(b"[" * 100_000 + b"\n", mtime=0), "is no recording of Kanary's"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_reason(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read(path)
    assert error.value.hint


def test_a_file_that_is_not_there_and_one_that_is_are_told(tmp_path: Path, made: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none")
    with pytest.raises(InputError, match="is there already") as error:
        Writer(made, BEGAN, limit=10**6)
    assert "--force" in error.value.hint
    with pytest.raises(InputError, match="cannot be written"):
        Writer(tmp_path / "no" / "folder", BEGAN, limit=10**6)
    Writer(made, BEGAN, limit=10**6, force=True).close()
    with pytest.raises(InputError, match="Nothing is in"):
        read(made)


@pytest.mark.parametrize(
    "line",
    [
        b"not json", b"[]", b'{"at": 1}', b'{"at": NaN, "source": "runs"}', b'{"at": 1e300, "source": "runs"}',
        b'{"at": true, "source": "runs"}', b'{"at": 1, "source": 3}', b'{"at": 1, "source": "runs", "set": []}',
        b'{"at": 1, "source": "runs", "gone": [[]]}', b'{"at": 1, "source": "runs", "tail": {"a": [1]}}',
        b'{"at": 1, "source": "runs", "told": 1}', b"\xff\xfe", b"{" * 50_000,
    ],
)  # fmt: skip
def test_a_damaged_line_ends_the_recording_and_not_its_reader(line: bytes, tmp_path: Path) -> None:
    good = {"at": BEGAN, "source": RUNS, "set": {"": {"total": 5}}}
    found = read(pack(tmp_path / "x", good, line, good))
    assert len(found.lines) == 1
    assert found.cut == "line 3 is damaged"


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_TEXT", 1 << 18)
    monkeypatch.setattr(recording, "MAX_LINE", 1 << 16)
    good = {"at": BEGAN, "source": RUNS, "set": {"": {"total": 5}}}
    assert read(pack(tmp_path / "long", good, b" " * (1 << 17))).cut == "a line is longer than 0 MB"
    assert read(pack(tmp_path / "large", *[good] * 6000)).cut == "it is larger than 0 MB, unpacked"


def test_a_recording_does_not_grow_beyond_what_was_allowed(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x", BEGAN, limit=5000)

    def fill() -> None:
        for _ in range(100):
            writer.write({"at": BEGAN, "source": RUNS, "set": {"": os.urandom(100).hex()}})
            writer.sync()

    with pytest.raises(Full, match=r"has reached 0\.005 MB"):
        fill()
    writer.close()
    assert (tmp_path / "x").stat().st_size < 5500


# ---- values


def test_snapshots_come_back_as_they_were() -> None:
    run = replace(RUN, tasks=(replace(TASK, inputs=Values()),))
    assert restored(Run, json.loads(json.dumps(plain(run)))) == run
    model = Model("ns", "churn", "churn-1", "v/1", "drift", threshold=1e-4, rows=7, online={"fet": 2})
    past = Past(Grid(100.0, 5.0), 300.0, {"k": [[1, "0.5"]]}, {}, {model.key: [[1, "1e-4"]]}, {})
    key = f"{model.key}/feature/a/b"
    finding = Finding(model, "a/b", "feature", "ks", 1e-9, 0.4, True, course_of(past, key, model, 1e-9, True))
    drift = Drift({model.key: model}, {key: finding}, 1, True, 1.0, 0.5, past)
    point = Point(5.0, 2.0, None, 0.5, 0.25)
    stretch = Stretch("alert", {"alertname": "Slow"}, MOMENT, MOMENT, 2, "it is slow", False)
    values: tuple[tuple[Any, Any, Any], ...] = (
        (items.parts_of_runs, items.runs, Runs({"r1": run}, total=9)),
        (items.parts_of_drift, items.drift, drift),
        (items.parts_of_drift, items.drift, Drift()),
        (items.parts_of_metrics, items.metrics, Metrics({"ns/a": Course((point, point))}, profiles.ALL[0], 30.0, 5.0)),
        (items.parts_of_alerts, items.alerts, Alerts((stretch, replace(stretch, kind="drift")))),
        (items.parts_of_rights, items.rights, Rights("ada", {"act": ("patch this",)})),
    )
    for parts, back, value in values:
        written = json.loads(json.dumps({key: make(origin) for key, origin, make in parts(value)}))
        assert back(written) == value
    now = items.snapshot(
        None, json.loads(json.dumps(items.told(failed(succeeded(1, 5.0), ("no", "try"), 9.0, 2.0), 100.0)))
    )
    assert now == Snapshot(None, 105.0, "no", "try", 1, 111.0)


def test_what_grew_at_its_end_is_not_written_again() -> None:
    assert items.tail([1, 2, 3], [2, 3, 4, 5]) == [1, [4, 5]]
    assert items.tail("a line\n" + "b" * 64, "b" * 64 + "\nc") == [7, "\nc"]
    assert items.tail("one\n", "one\ntwo\n") == [0, "two\n"]
    assert items.tail([1, 2], [7]) is None
    assert items.tail([1], "1") is None


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (RUNS, {"run/x": {"run_id": 5}}), (RUNS, {"run/x": []}), (RUNS, {"run/x": {"run_id": "x"}}),
        (RUNS, {"run/x": plain(RUN) | {"created_at": "never"}}), (RUNS, {"run/x": plain(RUN) | {"tasks": [1]}}),
        (METRICS, {"course/a": [["x", 1, 1, 1, 1]]}), (METRICS, {"course/a": {"b": 1}}), (METRICS, {"": 3}),
        (DRIFT, {"": {"past": [0, 0, 0]}}), (DRIFT, {"finding/a": {"model": []}, "": {}, "model/m": {"rows": "many"}}),
        (DRIFT, {"": {"past": [1, 1, 1]}, "p_values/a": "x"}), (SERVICES, {"service/ns/a": 5}),
        (EVENTS, {"event/a": 5}),
        (SERVICES, {"service/ns/a": {"metadata": [1]}}), (ALERTS, {"stretch/0": {}}), (RIGHTS, {"": {"user": 1}}),
    ],
)  # fmt: skip
def test_values_of_another_type_are_told_and_what_was_known_stays(source: str, value: Any, tmp_path: Path) -> None:
    good = {"at": BEGAN, "source": RUNS, "set": {"run/r1": plain(RUN)}}
    hub = hub_of(pack(tmp_path / "x", good, {"at": BEGAN + 5, "source": source, "set": value}), tmp_path)
    hub._show()
    hub.seek(hub.recording.end)
    hub._show()
    assert hub.snapshot(source).error.startswith("The recording does not hold what it should here")
    assert hub.runs.value is not None
    assert set(hub.runs.value.by_id) == {"r1"}


def test_services_are_read_from_what_kubernetes_told_as_they_are_live() -> None:
    document = {"metadata": {"name": "churn", "namespace": "ns", "resourceVersion": "7"}, "spec": {"predictor": {}}}
    history = [{"version": "v1", "storage_uri": "s3://a", "digest": "d", "predictor": {}}]
    config_map = {
        "metadata": {"name": "kanary-churn", "resourceVersion": "8"},
        "data": {"epoch": "3", "history": json.dumps(history)},
    }
    documents, maps = {"ns/churn": document}, {"ns/kanary-churn": config_map}
    written = {key: make(origin) for key, origin, make in items.parts_of_cluster(documents, maps, {}, {})}
    live = joined(Snapshot(documents), Snapshot(maps), {})
    assert items.services(json.loads(json.dumps(written)), {}) == live
    assert live["ns/churn"].state.history[0].version == "v1"


def test_in_standard_mode_route_and_pods_come_back_too() -> None:
    documents: dict[str, Any] = {"ns/m": standard()}
    routes: dict[str, Any] = {"ns/m-predictor": route(80, 20)}
    waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "no memory"}}
    pod = {
        "metadata": {"name": "p", "labels": {"app": "isvc.m-r2-predictor"}},
        "spec": {"containers": [{"env": [{"name": "A", "value": "hunter2"}]}]},
        "status": {"containerStatuses": [{"name": "kserve-container", "state": waits}]},
    }
    parts = items.parts_of_cluster(documents, {}, routes, {"ns/p": pod})
    written = json.dumps({key: make(origin) for key, origin, make in parts})
    live = joined(Snapshot(documents), Snapshot({}), {}, routes, {"ns/p": pod})["ns/m"]
    again = items.services(json.loads(written), {})["ns/m"]
    assert again.status == live.status
    assert again.status.split == {"m-predictor": 80, "m-r2-predictor": 20}
    assert [one["status"] for one in again.beside["kanary.pods"]] == [pod["status"]]
    assert "hunter2" not in written


async def test_logs_of_pods_that_the_server_does_not_name_are_recorded(tmp_path: Path) -> None:
    class Asked:
        async def run_pods(self, run_id: str) -> list[dict[str, Any]]:
            node = {"annotations": {NODE_NAME: "nightly-x.root.train.executor"}}
            return [{"metadata": {"name": "train-1", "namespace": "ns"} | node, "spec": {"secret": "hunter2"}}]

        async def pod_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
            async def pieces() -> AsyncIterator[str]:
                yield f"{namespace}/{pod} says token=hunter2\n"

            return pieces()

    run = replace(RUN, state="SUCCEEDED", tasks=(replace(TASK, state="SUCCEEDED", pod_name=""),))
    settings = config.load({}, {"HOME": str(tmp_path)}, tmp_path)
    hub = Hub(Connections(settings), Scope("ns"))
    writer = Writer(tmp_path / "x", BEGAN, limit=10**6)
    recorder = Recorder(hub, writer, logs=True)
    hub._details = Asked()  # type: ignore[assignment]
    hub._tell(RUNS, succeeded(Runs({"r1": run}), 1.0))
    await recorder._task_logs()
    writer.close()
    again = hub_of(tmp_path / "x", tmp_path)
    again.seek(again.recording.end)
    again._show()
    (found,) = await again.details.run_pods("r1")
    assert found["metadata"]["annotations"] == {NODE_NAME: "nightly-x.root.train.executor"}
    said = [piece async for piece in await again.details.pod_log("ns", "train-1", follow=False)]
    assert said == [f"ns/train-1 says token={secrets.LEFT_OUT}\n"]
    assert "hunter2" not in gzip.decompress((tmp_path / "x").read_bytes()).decode()


# ---- the clock


def test_a_replay_has_a_clock_of_its_own_that_is_held_stepped_and_made_faster(made: Path, tmp_path: Path) -> None:
    now = 50.0
    hub = ReplayHub(read(made), config.load({}, {"HOME": str(tmp_path)}, tmp_path), clock=lambda: now)
    changed: list[str] = []
    hub.on_change = changed.append
    hub._show()
    assert changed == [RUNS]
    assert hub.now() == datetime.fromtimestamp(BEGAN + 1, UTC)
    now += 2
    assert hub.position == BEGAN + 3
    hub._show()
    assert changed == [RUNS, METRICS]
    hub.faster(2)
    assert hub.speed == 5.0
    now += 1
    assert hub.position == BEGAN + 8
    hub.pause()
    now += 100
    assert hub.position == BEGAN + 8
    positions = []
    for by in (1, 1, -1, -1, -1, -1, 1, 1, 1):
        hub.step(by)
        positions.append(hub.position - BEGAN)
    assert positions == [9, 9, 4, 2, 1, 1, 2, 4, 9]
    hub._show()
    assert hub.runs.value is not None
    assert not hub.runs.value.by_id
    hub.go_on()  # from the end: from the start
    assert hub.position == BEGAN + 1
    hub._show()
    assert set(hub.runs.value.by_id) == {"r1"}
    hub.faster(-99)
    assert hub.speed == SPEEDS[0]
    now += 1000
    assert (hub.position, hub.at_end) == (BEGAN + 9, True)


async def test_a_replay_asks_nobody(made: Path, tmp_path: Path) -> None:
    hub = hub_of(made, tmp_path)
    for ask in (hub.connections.kfp, hub.connections.kubernetes, hub.connections.prometheus):
        with pytest.raises(KanaryError, match="This is a recording"):
            await ask()
    assert hub.readonly
    assert hub.recorded
