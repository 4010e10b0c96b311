from __future__ import annotations

import gzip
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from kanary import release
from kanary.errors import InputError
from kanary.kfp_types import Run, TaskDetail
from kanary.recorder import Recorder
from kanary.recording import Writer, read
from kanary.recording_types import plain
from kanary.replay import ReplayHub
from kanary.snapshot_hub import ALERTS, DRIFT, EVENTS, METRICS, RIGHTS, RUNS, SERVICES, Scope
from tests.core.fake_kfp import FakeKfp, run_json, serving, task_json
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace, remembered, status
from tests.tui.drift import FakeDrift
from tests.tui.rig import SIZE, flat, loaded, picture, sees, table, text, until
from tests.tui.test_pictures import scrubbed, watched
from tui.dialog import Dialog
from tui.replay import Replay
from tui.run import RunScreen
from tui.service import ServiceScreen

ROOT = Path(__file__).resolve().parents[2]
BEGAN = datetime(2026, 11, 20, 7, 0, tzinfo=UTC)
AT = BEGAN.timestamp()
HOSTILE = "[red]night[/]\x1b[31mly\x1b]0;title\x07"


def a_run(state: str, **more: Any) -> dict[str, Any]:
    task = TaskDetail("t", "train", state, started_at=BEGAN, pod_name="p")
    run: dict[str, Any] = plain(Run("r1", HOSTILE, state, created_at=BEGAN, tasks=(task,), **more))
    return run


def recorded(folder: Path) -> Path:
    """A run that ends, and a service whose canary gets more traffic: four changes in a minute."""
    path = folder / "incident.jsonl.gz"
    writer = Writer(path, AT, limit=10**6)

    def write(after: float, source: str, values: Any, **told: Any) -> None:
        writer.write({"at": AT + after, "source": source, "told": {"at": AT + after} | told, "set": values})

    def service(percent: int) -> dict[str, Any]:
        metadata = {"name": "churn", "namespace": "ns", "resourceVersion": str(percent)}
        return {"metadata": metadata, "spec": {"predictor": {}}, "status": status("churn", percent)}

    write(10, "place", {"": {"entered": "prod", "server": "kfp.example", "namespace": "ns", "context": "prod"}})
    write(10, "runs", {"": {"total": 1}, "run/r1": a_run("RUNNING")})
    write(20, "services", {"service/ns/churn": service(10)}, live=True)
    config_map = release.document(remembered("churn"), "churn", "ns")
    write(20, "services", {"map/ns/kanary-churn": config_map["metadata"]}, live=True)
    write(
        20, "services", {f"data/{key}/ns/kanary-churn": value for key, value in config_map["data"].items()}, live=True
    )
    write(30, "runs", {"run/r1": a_run("FAILED", error="out of memory", finished_at=BEGAN + timedelta(seconds=29))})
    write(30, "logs", {"task/r1/t": "epoch 1\nMemoryError \x1b[2J\n"})
    write(70, "services", {"service/ns/churn": service(50)}, live=True)
    writer.close()
    return path


@pytest.fixture
def make(tmp_path: Path, utc: None) -> Callable[..., Replay]:
    def made(path: Path | None = None) -> Replay:
        hub = ReplayHub(read(path or recorded(tmp_path)), rig.settings(tmp_path, {}), paused=True)
        return Replay(hub, "kanary")

    return made


def hub_of(pilot: Pilot[None]) -> ReplayHub:
    app = pilot.app
    assert isinstance(app, Replay)
    assert isinstance(app.hub, ReplayHub)
    return app.hub


@pytest.mark.parametrize("size", [SIZE, (200, 60)])
async def test_a_recording_is_held_stepped_and_played_with_keys_that_are_seen(
    make: Callable[..., Replay], size: tuple[int, int]
) -> None:
    async with make().run_test(size=size, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        assert "REPLAY" in picture(pilot).splitlines()[0]
        assert "ns ns" in picture(pilot).splitlines()[0]
        assert "READ-ONLY" not in picture(pilot)
        assert "2026-11-20 07:00:10" in picture(pilot)
        assert "Space play , back . step - slower + faster < start > end" in flat(pilot)
        assert all(len(line) <= size[0] for line in picture(pilot).splitlines())
        assert text(table(pilot), "r1", "state").startswith("▶ RUNNING")
        # Ages are those of then.
        assert text(table(pilot), "r1", "duration") == "10 s"
        await pilot.press("full_stop", "full_stop")
        await until(pilot, lambda: text(table(pilot), "r1", "state").startswith("✗ FAILED"))
        assert "2026-11-20 07:00:30" in picture(pilot)
        await pilot.press("comma", "comma")
        await until(pilot, lambda: text(table(pilot), "r1", "state").startswith("▶ RUNNING"))
        await pilot.press("greater_than_sign")
        await sees(pilot, "2026-11-20 07:01:10")
        assert "1m 00s of 1m 00s  end" in picture(pilot)
        await until(pilot, lambda: text(table(pilot), "r1", "state").startswith("✗ FAILED"))
        await pilot.press("less_than_sign", *("plus",) * 9)
        await sees(pilot, "‖ ×300")
        await pilot.press("space")
        await until(pilot, lambda: hub_of(pilot).at_end and hub_of(pilot).paused)
        await pilot.press(*("minus",) * 6, "space")
        await sees(pilot, "▶ ×1 ")
        await pilot.press("question_mark")
        await sees(pilot, "hold the recording where it is")


async def test_what_the_file_says_is_text_and_what_is_typed_is_typed(make: Callable[..., Replay]) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await sees(pilot, "[red]night[/]ly")
        assert "\x1b" not in picture(pilot)
        await pilot.press("slash", "a", "space", "full_stop", "plus", "less_than_sign")
        await sees(pilot, "filter: a .+<")
        # While a filter is typed, the last line names no key that would only be written into it.
        assert "/ Filter" not in picture(pilot)
        assert "? Help" not in picture(pilot)
        assert hub_of(pilot).speed == 1.0
        assert hub_of(pilot).position == AT + 10


async def test_acts_are_refused_with_their_reason(make: Callable[..., Replay]) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("greater_than_sign")
        for view, keys in (("1", "STRCA"), ("2", "RPTHA")):
            await pilot.press(view)
            await until(pilot, loaded(pilot, {"1": "runs-table", "2": "services-table"}[view]))
            offered = picture(pilot).splitlines()[-1].split()
            assert {"Open", "Filter"} < {*offered}
            assert not {"Submit", "Retry", "Roll", "Promote"} & {*offered}
            for key in keys:
                pilot.app.clear_notifications()
                await pilot.press(key)
                await sees(pilot, "This is a recording: nothing can be changed.")
                assert not isinstance(pilot.app.screen, Dialog)
        pilot.app.clear_notifications()
        await pilot.press("r")
        await sees(pilot, "there is no server to ask")


async def test_an_opened_run_and_service_follow_the_recording(make: Callable[..., Replay]) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await sees(pilot, "This log is not in the recording")
        await pilot.press("full_stop", "full_stop")
        await sees(pilot, "✗ out of memory")
        await sees(pilot, "MemoryError")
        await pilot.press("comma")
        await until(pilot, lambda: "✗ out of memory" not in picture(pilot) and "MemoryError" not in picture(pilot))
        await pilot.press("escape", "2")
        await until(pilot, loaded(pilot, "services-table"))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ServiceScreen))
        await sees(pilot, "90 %")
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: "90 %" not in picture(pilot) and "  50 %" in picture(pilot))
        await pilot.press("tab")
        await sees(pilot, "why 1")
        await pilot.press("tab", "tab")
        await sees(pilot, "`kanary record --logs` takes them")


async def test_a_recording_that_is_not_whole_says_so(make: Callable[..., Replay], tmp_path: Path) -> None:
    whole = gzip.decompress(recorded(tmp_path).read_bytes())
    cut = tmp_path / "cut"
    cut.write_bytes(gzip.compress(whole[: whole.rindex(b"\n", 0, -1) + 5]))
    async with make(cut).run_test(size=(120, 30), notifications=True) as pilot:
        await sees(pilot, "The recording is not whole")
        await pilot.press("greater_than_sign")
        await sees(pilot, "2026-11-20 07:00:30")
        await sees(pilot, "end: not whole")


def test_the_readme_shows_pictures_that_fetch_nothing() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\]\((docs/\w+\.svg)\)", text))
    assert shown == {f"docs/{name}.svg" for name, _ in screenshots().PICTURES}
    for name in shown:
        svg = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"\w+://[^\"'\s<)]+", svg.partition("<defs>")[0])) == {"http://www.w3.org/2000/svg"}
        assert "@import" not in svg
        assert "url(#" in svg


async def test_a_picture_is_the_same_each_time(utc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = screenshots()
    monkeypatch.setattr(module, "PICTURES", (("services", ("2",)),))
    drawn = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (path,) = await module.draw(ROOT / "docs" / "incident.jsonl.gz", folder)
        drawn.append(path.read_bytes())
    assert drawn[0] == drawn[1]
    assert b"breast-cancer" in drawn[0]


def screenshots() -> Any:
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs" / "screenshots.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- recording


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    ended = {"finished_at": "2026-11-20T07:01:05Z"}
    tasks = [task_json("ingest"), task_json("train", "FAILED", error={"message": "no memory"}, task_id="v")]
    runs = [
        run_json("aaaaaaaa-0000-4000-8000-000000000000", "nightly", "FAILED", tasks=tasks, **ended),
        run_json("bbbbbbbb-0000-4000-8000-000000000000", "on new data", tasks=[task_json("train")], **ended),
    ]
    with serving(FakeKfp(runs=runs, logs={"pod-train": "epoch 1\nMemoryError\n"})) as server:
        yield server


async def test_a_recording_shows_what_the_live_monitor_shows(
    space: Namespace, metrics: FakePrometheus, fake: FakeKfp, utc: None, tmp_path: Path
) -> None:
    space.put("churn", 20)
    space.remember("churn")
    space.put("calm")
    space.happened("churn", "Rolled", "to [red]v2[/]")
    metrics.rates = {"churn-predictor-00001": (80.0, 0.0, 2.0, 12.0), "churn-predictor-00002": (20.0, 0.5, 3.0, 48.0)}
    metrics.drift = FakeDrift(watched(space.name))
    given = {"kubeconfig": str(space.server.kubeconfig), "kfp_endpoint": fake.url, "prometheus_url": metrics.url}
    app, path = rig.monitor(tmp_path, given), tmp_path / "x.jsonl.gz"
    app.hub.scope = Scope(space.name, False, 0.2)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("3")
        await sees(pilot, "last 24 h")
        others = (ALERTS, RIGHTS, EVENTS)
        await until(pilot, lambda: all(app.hub.snapshot(one).value is not None for one in others))
        await pilot.press("2")
        await sees(pilot, "48 ms")
        # From here on nothing new comes: what is recorded is what the pictures show.
        assert app._following is not None
        app._following.cancel()
        live = await pictures(pilot)
        writer = Writer(path, time.time(), limit=10**7)
        recorder = Recorder(app.hub, writer, logs=True)
        recorder._where()
        for name in (RUNS, SERVICES, METRICS, DRIFT, EVENTS, ALERTS, RIGHTS):
            recorder._changed(name)
        for look in (recorder._distributions, recorder._task_logs, recorder._server_logs):
            await look()
        writer.close()
    replayed = ReplayHub(read(path), rig.settings(tmp_path, {}), paused=True)
    replayed.seek(replayed.recording.end)
    async with Replay(replayed, "kanary").run_test(size=(120, 42), notifications=True) as pilot:
        again = await pictures(pilot)
    for name, shown in live.items():
        assert without_header(again[name], 4) == without_header(shown, 2), name


async def pictures(pilot: Pilot[None]) -> dict[str, str]:
    """Every view and opened screen, once all of it is there."""
    found = {}

    async def take(name: str, there: str) -> None:
        await sees(pilot, there)
        await pilot.pause(0.1)
        found[name] = scrubbed(picture(pilot))

    await pilot.press("1")
    await until(pilot, loaded(pilot))
    await take("runs", "on new data")
    await pilot.press("j", "enter")
    await take("run", "MemoryError")
    await pilot.press("escape", "2")
    await until(pilot, loaded(pilot, "services-table"))
    await take("services", "48 ms")
    await pilot.press("enter")
    await take("service", "requests/s 80.0 20.0")
    await pilot.press("tab")
    await take("history", "why 1")
    await pilot.press("tab")
    await take("of service", "Rolled")
    await pilot.press("escape", "3")
    await take("drift", "last 24 h")
    await pilot.press("enter")
    await take("column", "from 78")
    await pilot.press("escape", "4")
    await take("events", "Rolled: to [red]v2[/]")
    return found


def without_header(shown: str, lines: int) -> str:
    """The picture between the header and the keys, which offer no acts in a recording.

    Without the time of day, and without the dots of curves: they move with it.
    """
    kept = [line for line in shown.splitlines()[lines:-1] if not re.search("[\u2800-\u28ff]", line)]
    return re.sub(r"\d\d:\d\d:\d\d", "TIME", "\n".join(kept))


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_is_whole_and_says_what_is_in_it(
    fake: FakeKfp, tmp_path: Path, name: signal.Signals
) -> None:
    path = tmp_path / "x.jsonl.gz"
    command = [sys.executable, "-P", "-m", "kanary", "record", str(path), "--endpoint", fake.url]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    with subprocess.Popen(
        command, env=environ, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as recorder:  # fmt: skip
        deadline = time.monotonic() + 60
        while RUN not in so_far(path):
            assert time.monotonic() < deadline, so_far(path)
            assert recorder.poll() is None
            time.sleep(0.05)
        recorder.send_signal(name)
        said, errors = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, errors
    assert f"kanary replay {path}" in said
    assert "nothing of services is in it" in errors
    found = read(path)
    assert found.cut == ""
    assert RUN in so_far(path)


RUN = "run/aaaaaaaa-0000-4000-8000-000000000000"


def so_far(path: Path) -> Collection[str]:
    """The runs in a recording, as far as it goes."""
    try:
        found = read(path)
    except InputError:
        return ()
    return found.state(len(found.lines)).get("runs", ({}, {}))[1].keys()
