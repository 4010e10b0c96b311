from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Button, Input

from tests.core.fake_kfp import FakeKfp, run_json, serving, task_json
from tests.tui import rig
from tests.tui.rig import SIZE, column, flat, loaded, picture, sees, table, until
from tui.app import Monitor
from tui.dialog import Dialog
from tui.log_view import LogView
from tui.main import MainScreen
from tui.run import RunScreen
from tui.submit import SubmitScreen

LIVE = "aaaaaaaa-0000-4000-8000-000000000000"
BROKEN = "bbbbbbbb-0000-4000-8000-000000000000"
PARAMETERS = {"epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 3}, "name": {"parameterType": "STRING"}}
SPEC = {
    "pipelineInfo": {"name": "training-pipeline"},
    "root": {"dag": {}, "inputDefinitions": {"parameters": PARAMETERS}},
    "schemaVersion": "2.1.0",
}


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    train = task_json("train", "RUNNING")
    values = {
        "inputs": {"parameters": [{"parameter_key": "epochs", "value": 3}]},
        "outputs": {
            "artifacts": [
                {
                    "artifact_key": "metrics",
                    "artifacts": [
                        {"name": "metrics", "type": "system.Metrics", "uri": "s3://m", "metadata": {"auc": 0.98765}}
                    ],
                }
            ]
        },
    }
    runs = [
        run_json(LIVE, "live run", "RUNNING", tasks=[train | values]),
        run_json(BROKEN, "broken run", "FAILED", pipeline_spec=SPEC, created_at="2026-11-20T07:00:00Z",
                 runtime_config={"parameters": {"epochs": 7, "name": "[b]x[/b]"}}),
    ]  # fmt: skip
    with serving(FakeKfp(runs=runs, logs={"pod-train": "".join(f"line {n}\n" for n in range(200))})) as server:
        yield server


@pytest.fixture
def make(fake: FakeKfp, tmp_path: Path) -> Callable[..., Monitor]:
    return lambda **flags: rig.monitor(tmp_path, {"kfp_endpoint": fake.url} | flags)


async def test_terminating_asks_first_with_cancel_chosen_and_then_does_it(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("T")
        await sees(pilot, "Terminate this run?")
        assert "live run" in picture(pilot)
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, MainScreen)
        assert not fake.paths("POST")
        await pilot.press("T", "right", "enter")
        await until(pilot, lambda: fake.run(LIVE)["state"] == "CANCELING")
        await until(pilot, lambda: isinstance(pilot.app.screen, MainScreen) and "CANCELING" in picture(pilot))
        await sees(pilot, "live run is being ended")


async def test_retrying_and_archiving_go_to_the_run_under_the_cursor(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("R")
        await sees(pilot, "it is RUNNING")
        assert isinstance(pilot.app.screen, MainScreen)
        await pilot.press("j", "R", "right", "enter")
        await until(pilot, lambda: fake.run(BROKEN)["state"] == "RUNNING")
        await until(pilot, lambda: isinstance(pilot.app.screen, MainScreen))
        assert table(pilot).selected == BROKEN
        await pilot.press("A", "right", "enter")
        await until(pilot, lambda: fake.run(BROKEN)["storage_state"] == "ARCHIVED")


async def test_archived_runs_are_shown_when_asked_for_also_by_name_and_are_put_back(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    fake.run(BROKEN)["storage_state"] = "ARCHIVED"
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        assert column(pilot) == ["live run"]
        await pilot.press("a")
        await until(pilot, lambda: len(column(pilot)) == 2)
        await sees(pilot, "archived runs are shown too")
        await pilot.press("colon", *"archived")
        await sees(pilot, "Runs: Archived  (a)")
        await pilot.press("down", "enter")
        await until(pilot, lambda: column(pilot) == ["live run"])
        await pilot.press("a")
        await until(pilot, lambda: len(column(pilot)) == 2)
        await pilot.press("pagedown")
        assert table(pilot).selected == BROKEN
        await pilot.press("A", "right", "left", "enter")  # Cancel
        assert isinstance(pilot.app.screen, MainScreen)
        await pilot.press("A", "right", "enter")
        await until(pilot, lambda: fake.run(BROKEN)["storage_state"] == "AVAILABLE")
        await pilot.press("pageup")
        assert table(pilot).selected == LIVE


async def test_an_act_works_in_an_opened_run_too_and_shows_there(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await pilot.press("T", "right", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and "CANCELING" in picture(pilot))


async def test_an_act_that_the_server_refuses_says_why_and_changes_nothing(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("T")
        fake.stop()
        await pilot.press("right", "enter")
        await until(pilot, lambda: "✗ Kubeflow Pipelines at" in flat(pilot))
        assert isinstance(pilot.app.screen, Dialog)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)


async def test_a_read_only_monitor_asks_nothing_and_sends_nothing(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    async with make(readonly="true").run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        for key in "TRCAS":
            await pilot.press(key)
            await sees(pilot, "is refused")
            assert isinstance(pilot.app.screen, MainScreen)
        assert not fake.paths("POST")


async def test_a_clone_starts_the_same_pipeline_with_its_parameters_as_they_are_typed(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("j", "C")
        await until(pilot, lambda: len(pilot.app.screen.query("#parameters Input")) == 2)
        epochs, name = pilot.app.screen.query("#parameters Input").results(Input)
        assert (epochs.value, name.value) == ("7", "[b]x[/b]")
        epochs.value = "many"
        # Not by a click: the line that says what is wrong moves the button, and the click would miss it.
        pilot.app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: "epochs=many is no NUMBER_INTEGER" in flat(pilot))
        epochs.value = "9"
        # Not by a click: the line that says what is wrong moves the button, and the click would miss it.
        pilot.app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: len(fake.runs) == 3)
        body = next(asked.body for asked in fake.asked if asked.method == "POST" and asked.path.endswith("/runs"))
        assert body["runtime_config"]["parameters"] == {"epochs": 9, "name": "[b]x[/b]"}
        assert body["pipeline_spec"] == SPEC
        assert body["display_name"] == "broken run again"
        await until(pilot, lambda: "broken run again" in column(pilot))


async def test_a_run_is_started_from_a_file_with_what_its_pipeline_asks_for(
    make: Callable[..., Monitor], fake: FakeKfp, tmp_path: Path
) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(json.dumps(SPEC), encoding="utf-8")
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("S")
        assert isinstance(pilot.app.screen, SubmitScreen)
        await pilot.press(*"nowhere.yaml", "enter")
        await until(pilot, lambda: "nowhere.yaml cannot be read" in flat(pilot))
        pilot.app.screen.query_one("#file", Input).value = str(path)
        await pilot.press("enter")
        await until(pilot, lambda: len(pilot.app.screen.query("#parameters Input")) == 2)
        epochs, name = pilot.app.screen.query("#parameters Input").results(Input)
        assert epochs.value == "3"
        # Not by a click: the line that says what is wrong moves the button, and the click would miss it.
        pilot.app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: "needs a value for name" in flat(pilot))
        name.value = "iris"
        # Not by a click: the line that says what is wrong moves the button, and the click would miss it.
        pilot.app.screen.query_one("#go", Button).press()
        await until(pilot, lambda: len(fake.runs) == 3)
        body = next(asked.body for asked in fake.asked if asked.method == "POST" and asked.path.endswith("/runs"))
        assert body["runtime_config"]["parameters"] == {"epochs": 3, "name": "iris"}
        await pilot.press("S", "escape")
        assert isinstance(pilot.app.screen, MainScreen)


# ---- what an opened run tells


async def test_metrics_stand_at_the_top_and_inputs_and_outputs_in_their_pane(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await sees(pilot, "auc 0.9877")
        await pilot.press("tab")
        await sees(pilot, "INPUTS of train")
        assert "epochs  3" in picture(pilot)
        await sees(pilot, "metrics  Metrics  s3://m")
        await pilot.press("tab")
        await sees(pilot, "PARAMETERS of the run")


async def test_a_log_is_searched_wrapped_and_saved(
    make: Callable[..., Monitor], fake: FakeKfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake.logs["pod-train"] += "x" * 300 + " needle\n"
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        view = pilot.app.screen.query_one(LogView)
        await until(pilot, lambda: view.line_count == 201)
        await pilot.press("enter", "g", "slash", *"line 1", "enter")
        await sees(pilot, "/line 1: 1 of 111")
        await pilot.press("n")
        await sees(pilot, "/line 1: 2 of 111")
        await pilot.press("N", "N")
        await sees(pilot, "/line 1: 111 of 111")
        assert "not followed" in picture(pilot)
        await pilot.press("escape", "w", "G")
        await sees(pilot, "needle")
        assert "wrapped" in picture(pilot)
        await pilot.press("s")
        await until(pilot, lambda: bool(list(tmp_path.glob("kanary-train-*.log"))))
        saved = next(tmp_path.glob("kanary-train-*.log")).read_text(encoding="utf-8")
        assert saved == fake.logs["pod-train"]


async def test_scrolling_back_stops_following_and_new_lines_do_not_move_the_picture(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        view = pilot.app.screen.query_one(LogView)
        await until(pilot, lambda: view.line_count == 200)
        await pilot.press("enter", "g")
        top = view.scroll_y
        fake.logs["pod-train"] += "one more\n"
        await until(pilot, lambda: view.line_count == 201)
        assert view.scroll_y == top
        await pilot.press("f")
        await sees(pilot, "one more")


async def test_tasks_stand_in_their_tree_and_those_of_one_name_are_numbered(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    def task(name: str, parent: str, number: int, kind: str = "RUNTIME", state: str = "SUCCEEDED") -> dict[str, Any]:
        started = f"2026-11-21T07:00:{number:02d}Z"
        more = {"task_id": f"t{number}", "parent_task_id": parent, "type": kind, "start_time": started}
        return task_json(name, state, **more)

    fake.run(LIVE)["run_details"]["task_details"] = [
        task("root", "", 0, "DAG"),
        task("each-fold", "t0", 1, "LOOP"),
        task("train", "t1", 2),
        task("train", "t1", 3, state="FAILED"),
        task("good-enough", "t0", 4, "CONDITION", "SKIPPED"),
        task("deploy", "t4", 5, state="SKIPPED"),
    ]
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: table(pilot, "tasks").row_count == 6)
        assert column(pilot, "tasks", "task") == [
            "root",
            "├ each-fold for each",
            "│ ├ train #1",
            "│ └ train #2",
            "└ good-enough if",
            "  └ deploy",
        ]
