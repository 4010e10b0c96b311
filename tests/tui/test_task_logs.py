from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from kanary.kfp_pods import NODE_NAME
from kanary.text import timed
from tests.core import fake_kubernetes
from tests.core.fake_kfp import FakeKfp, run_json, serving, task_json
from tests.core.fake_kubernetes import FakeKubernetes
from tests.tui import rig
from tests.tui.cluster import kubeconfig
from tests.tui.rig import SIZE, loaded, picture, sees, until
from tui.log_pane import stamp
from tui.log_view import LogView

RUN = "aaaaaaaa-0000-4000-8000-000000000000"
POD = {"metadata": {"name": "training-x7-1", "namespace": "kubeflow", "creationTimestamp": "2026-11-21T07:00:01Z",
                    "annotations": {NODE_NAME: "training-x7.root.train.executor"}}}  # fmt: skip
LOG = "2026-11-21T07:00:02.123456789Z epoch 1\n2026-11-21T07:00:03.5Z epoch [b]2[/b]\nwithout a time\n"


@pytest.fixture
def kfp() -> Iterator[FakeKfp]:
    """As real servers answer that name no pods."""
    tasks = [task_json("root", pod_name=""), task_json("train", parent_task_id="task-root", pod_name="")]
    with serving(FakeKfp(runs=[run_json(RUN, tasks=tasks)])) as server:
        yield server


@pytest.fixture
def cluster() -> Iterator[FakeKubernetes]:
    fake = FakeKubernetes(pods=[POD], logs={"training-x7-1": LOG}, denied=frozenset({"list pods"}))
    with fake_kubernetes.serving(fake):
        yield fake


async def open_second_task(pilot: Pilot[None]) -> None:
    await until(pilot, loaded(pilot))
    await pilot.press("enter")
    await until(pilot, loaded(pilot, "tasks"))
    await pilot.press("j")


async def test_a_log_is_read_from_the_pod_with_the_runs_label_where_none_is_named(
    kfp: FakeKfp, cluster: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"kfp_endpoint": kfp.url, "kubeconfig": str(kubeconfig(tmp_path / "kubeconfig", cluster.url))}
    async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
        await open_second_task(pilot)
        await sees(pilot, "epoch [b]2[/b]")
        assert "Log of train (training-x7-1)" in picture(pilot)
        asked = [a for a in cluster.asked if a["path"].endswith("/pods") and "labelSelector" in a]
        # All namespaces, and where that is forbidden the one that is looked at.
        assert [a["path"] for a in asked[:2]] == ["/api/v1/pods", "/api/v1/namespaces/default/pods"]
        assert {a["labelSelector"] for a in asked} == {f"pipeline/runid={RUN}"}
        assert "07:00:02" not in picture(pilot)
        await pilot.press("enter", "t")
        shown = stamp(datetime(2026, 11, 21, 7, 0, 2, 123456, UTC), datetime.now(UTC))
        await sees(pilot, f"{shown:13} epoch 1")
        assert " " * 14 + "without a time" in picture(pilot)
        await pilot.press("s")
        await until(pilot, lambda: bool(list(tmp_path.glob("kanary-train-*.log"))))
        assert f"{shown:13} epoch 1\n" in next(tmp_path.glob("kanary-train-*.log")).read_text(encoding="utf-8")
        await pilot.press("t")
        await until(pilot, lambda: f"{shown:13} epoch 1" not in picture(pilot))


async def test_without_a_pod_it_is_said_whether_one_was_looked_for(
    kfp: FakeKfp, cluster: FakeKubernetes, tmp_path: Path
) -> None:
    cluster.pods = []
    given = {"kfp_endpoint": kfp.url, "kubeconfig": str(kubeconfig(tmp_path / "kubeconfig", cluster.url))}
    async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
        await open_second_task(pilot)
        await sees(pilot, "none with its run's label is there")
        cluster.pods = [POD]
        await pilot.press("r")
        await sees(pilot, "epoch 1")
    given["kubeconfig"] = str(tmp_path / "none")
    async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
        await open_second_task(pilot)
        await sees(pilot, "and none can be looked up")


async def test_lines_of_a_server_without_times_are_told_when_they_came(kfp: FakeKfp, tmp_path: Path) -> None:
    kfp.runs[0] = run_json(RUN, state="RUNNING", tasks=[task_json("train", "RUNNING")])
    kfp.logs["pod-train"] = "early\n"
    async with rig.monitor(tmp_path, {"kfp_endpoint": kfp.url}).run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await sees(pilot, "early")
        await pilot.press("enter", "t")
        await sees(pilot, "the server tells no times")
        view = pilot.app.screen.query_one(LogView)

        def said_more() -> bool:
            kfp.logs["pod-train"] += "late\n"
            return any(view.stamps)

        await until(pilot, said_more)
        assert view.stamps[0] == ""
        await sees(pilot, f"{next(filter(None, view.stamps)):13} late")


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("2026-11-21T07:00:02.123456789Z a b", (datetime(2026, 11, 21, 7, 0, 2, 123456, UTC), "a b")),
        ("2026-11-21T07:00:02Z ", (datetime(2026, 11, 21, 7, 0, 2, tzinfo=UTC), "")),
        ("2026-11-21T07:00:02 no zone", (None, "2026-11-21T07:00:02 no zone")),
        ("2026-11-21Tnonsense-and-more x", (None, "2026-11-21Tnonsense-and-more x")),
        ("plain", (None, "plain")),
        ("", (None, "")),
    ],
)
def test_the_time_before_a_line_is_told_from_the_line(line: str, read: tuple[Any, str]) -> None:
    assert timed(line) == read
