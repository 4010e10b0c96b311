from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from textual.widgets import Input

from kanary.errors import Unreachable
from kanary.kfp_types import Run
from kanary.snapshot import Snapshot, back_off, failed, poll, succeeded
from tests.core.fake_kfp import FakeKfp, run_json, serving, task_json
from tests.tui import rig
from tests.tui.rig import SIZE, column, loaded, picture, sees, table, text, until
from tui.actions import ACTIONS, PLACES
from tui.app import Monitor
from tui.header import Header, Place, age_words, where_line
from tui.help import HelpScreen
from tui.log_view import LogView
from tui.look import default_theme
from tui.main import MainScreen
from tui.run import RunScreen
from tui.runs import RunsView, words
from tui.view import matches, visible

ROOT = Path(__file__).parents[2]
LIVE = "aaaaaaaa-0000-4000-8000-000000000000"
BROKEN = "bbbbbbbb-0000-4000-8000-000000000000"


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    live = [
        task_json("root", "RUNNING"),
        task_json("ingest", parent_task_id="task-root"),
        task_json("train", "RUNNING", parent_task_id="task-root"),
    ]
    error = {"message": "gate accuracy: 0.7 < 0.9 [bold]no markup[/]"}
    broken = [
        task_json("root", "FAILED"),
        task_json("ingest", parent_task_id="task-root"),
        task_json("evaluate", "FAILED", parent_task_id="task-root", error=error),
        task_json("deploy", "SKIPPED", parent_task_id="task-root"),
    ]
    runs = [
        run_json(LIVE, "live run", "RUNNING", tasks=live),
        run_json(BROKEN, "broken run", "FAILED", tasks=broken, created_at="2026-11-20T07:00:00Z"),
    ]
    logs = {f"pod-{name}": f"log of {name}\n" for name in ("ingest", "train", "evaluate")}
    with serving(FakeKfp(runs=runs, logs=logs)) as server:
        yield server


@pytest.fixture
def make(fake: FakeKfp, tmp_path: Path) -> Callable[..., Monitor]:
    """A monitor of the fake server, without a Kubernetes API."""
    return lambda **flags: rig.monitor(tmp_path, {"kfp_endpoint": fake.url} | flags)


# ---- the list of runs


async def test_runs_are_listed_newest_first_with_server_and_age(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    async with make(namespace="team-a", readonly="true").run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        assert column(pilot) == ["live run", "broken run"]
        await sees(pilot, "kfp now")
        shown = picture(pilot)
        head = shown.splitlines()[0]
        assert "127.0.0" in head
        assert "ns team-a" in head
        assert "READ-ONLY" in head
        assert "▶ RUNNING" in shown
        assert "✗ FAILED" in shown
        assert "1/2" in shown
        assert fake.asked[0].params["namespace"] == "team-a"


async def test_the_first_picture_waits_for_no_answer(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    asked, release = threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        asked.set()
        assert release.wait(60)
        return None

    fake.override = hold
    try:
        async with make().run_test(size=SIZE, notifications=True) as pilot:
            await until(pilot, asked.is_set)
            await until(pilot, lambda: "Quit" in picture(pilot))
            assert "kfp …" in picture(pilot)
            await pilot.press("question_mark")
            assert isinstance(pilot.app.screen, HelpScreen)
            await pilot.press("escape")
            release.set()
            await until(pilot, loaded(pilot))
    finally:
        release.set()


async def test_changes_come_by_themselves_and_the_cursor_stays_with_its_run(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("j")
        assert table(pilot).selected == BROKEN
        fake.runs.insert(0, run_json("new", "newest", created_at="2026-11-21T08:00:00Z"))
        fake.run(LIVE)["state"] = "SUCCEEDED"
        await until(pilot, lambda: column(pilot) == ["newest", "live run", "broken run"])
        assert table(pilot).selected == BROKEN
        assert text(table(pilot), LIVE, "state") == "✓ SUCCEEDED"
        fake.runs.remove(fake.run(BROKEN))
        await until(pilot, lambda: column(pilot) == ["newest", "live run"])
        assert table(pilot).selected == LIVE


async def test_a_refresh_draws_only_the_lines_that_differ(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        shown = table(pilot)
        drawn: list[int] = []
        draw = shown.render_line

        def spy(y: int) -> Any:
            drawn.append(y)
            return draw(y)

        shown.render_line = spy  # type: ignore[method-assign]
        fake.run(BROKEN)["display_name"] = "still broken"
        await until(pilot, lambda: "still broken" in picture(pilot))
        # The picture asks for every line, too: what counts is that the table asked for one alone.
        assert set(shown._drawn) == {1, 2}
        shown.redraw()
        before = len(drawn)
        shown.redraw()
        await pilot.pause()
        assert len(drawn) == before


async def test_the_cursor_on_the_last_row_fetches_older_runs(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    fake.runs = [run_json(f"{i:08d}", f"run {i}", created_at=f"2026-01-01T{23 - i // 60:02d}:{59 - i % 60:02d}:00Z")
                 for i in range(450)]  # fmt: skip
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: table(pilot).row_count == 50)
        assert "50 of 450" in picture(pilot)
        await pilot.press("G")
        await until(pilot, lambda: table(pilot).row_count == 250)
        await until(pilot, lambda: "250 of 450" in picture(pilot))
        assert table(pilot).selected == "00000049"
        await pilot.press("G")
        await until(pilot, lambda: table(pilot).row_count == 450)
        fake.run("00000449")["state"] = "FAILED"  # the oldest are read again, too
        await pilot.press("G")
        await until(pilot, lambda: text(table(pilot), "00000449", "state") == "✗ FAILED")


async def test_filter_and_its_inversion_show_in_the_title(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("slash", *"BROK")
        await until(pilot, lambda: column(pilot) == ["broken run"])
        assert "Runs (1 of 2), by started  filter: BROK" in picture(pilot)
        assert picture(pilot).splitlines()[-2].strip() == "BROK"
        assert picture(pilot).splitlines()[-1].strip() == "esc Clear filter"
        await pilot.press("enter")
        assert table(pilot).has_focus
        await pilot.press("slash", "home", "exclamation_mark", "enter")
        await until(pilot, lambda: column(pilot) == ["live run"])
        await pilot.press("escape")
        await until(pilot, lambda: len(column(pilot)) == 2)
        assert "Clear filter" not in picture(pilot)
        assert not pilot.app.screen.query_one(RunsView).query_one(Input).display


async def test_a_filter_that_nothing_matches_says_so(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("slash", *"zzz")
        await until(pilot, lambda: "Nothing matches the filter" in picture(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "live run" in picture(pilot))


async def test_an_empty_server_says_how_to_begin(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    fake.runs = []
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "No runs yet" in picture(pilot))
        fake.runs = [run_json(LIVE, "first")]
        await until(pilot, lambda: "first" in picture(pilot))


async def test_sorting_goes_round(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        orders = {}
        for _ in range(4):
            await pilot.press("s")
            await pilot.pause()
            title = picture(pilot).splitlines()[2]
            orders[title.rpartition("by ")[2]] = column(pilot)
        assert orders == {
            "name": ["broken run", "live run"],
            "state": ["broken run", "live run"],
            "duration": ["live run", "broken run"] if live_is_longer() else ["broken run", "live run"],
            "started": ["live run", "broken run"],
        }


def live_is_longer() -> bool:
    """The live run's duration grows with today's date, the broken one's is a day."""
    seconds = (datetime.now(UTC) - datetime(2026, 11, 21, 7, tzinfo=UTC)).total_seconds()
    return seconds > 86400 + 65


async def test_pause_holds_the_picture_while_data_are_collected(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("space")
        assert "HELD" in picture(pilot)
        fake.runs.insert(0, run_json("new", "newest"))
        asked = len(fake.asked)
        await until(pilot, lambda: len(fake.asked) > asked + 2)
        assert "newest" not in column(pilot)
        await pilot.press("space")
        await until(pilot, lambda: "newest" in column(pilot))
        assert "HELD" not in picture(pilot)


async def test_refresh_asks_at_once(fake: FakeKfp, tmp_path: Path) -> None:
    async with rig.monitor(tmp_path, {"kfp_endpoint": fake.url}, interval=3600).run_test(
        size=SIZE, notifications=True
    ) as pilot:
        await until(pilot, loaded(pilot))
        asked = len(fake.asked)
        await pilot.press("r")
        await until(pilot, lambda: len(fake.asked) == asked + 1)


async def test_quit_works_from_the_root_only(make: Callable[..., Monitor]) -> None:
    app = make()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("escape", "enter")
        assert isinstance(app.screen, RunScreen)
        await pilot.press("q")
        assert app.is_running
        assert isinstance(app.screen, RunScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, MainScreen)
        await pilot.press("escape", "escape")
        assert app.is_running
        await pilot.press("q")
        await pilot.pause()
        assert app._exit


# ---- servers that do not do what they should


async def test_a_server_that_goes_away_leaves_the_last_picture_with_age_and_error(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        fake.stop()
        await until(pilot, lambda: "cannot be reached" in picture(pilot))
        assert column(pilot) == ["live run", "broken run"]
        assert pilot.app.screen.query_one(RunsView).has_class("stale")
        assert "next try in" in picture(pilot) or "trying again" in picture(pilot)
        await until(pilot, lambda: "kfp ✗" in picture(pilot))
        fake.run(LIVE)["state"] = "CANCELED"
        fake.start()
        await pilot.press("r")
        await until(pilot, lambda: text(table(pilot), LIVE, "state") == "■ CANCELED")
        assert "cannot be reached" not in picture(pilot)
        assert not pilot.app.screen.query_one(RunsView).has_class("stale")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (PlainTextResponse("<html>", media_type="text/html"), "not JSON"),
        (PlainTextResponse('{"runs": 3}'), "list of runs is none"),
        (PlainTextResponse("[1, 2"), "not JSON"),
        (PlainTextResponse('{"message": "token [red]expired[/]"}', 401), "token [red]expired[/]"),
        (PlainTextResponse("", 500), "500"),
    ],
)
async def test_nonsense_from_the_server_is_said_and_survived(
    make: Callable[..., Monitor], fake: FakeKfp, answer: Response, said: str
) -> None:
    fake.override = lambda request: answer
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, lambda: said in " ".join(picture(pilot).split()))
        fake.override = None
        await pilot.press("r")
        await until(pilot, loaded(pilot))
        assert column(pilot) == ["live run", "broken run"]


async def test_server_text_is_neither_markup_nor_escape(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    nasty = "[red]x[/] \x1b[31m\x1b]0;title\x07\x9b5m\u202e[/nope]"
    fake.runs = [run_json(LIVE, nasty, "[bold]ODD", tasks=[task_json(nasty, "RUNNING", task_id="t", pod_name="p")])]
    fake.logs["p"] = f"{nasty}\n10%\r100%\n"
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        assert "[red]x[/] \ufffd[/nope]" in picture(pilot)
        assert "? [bold]ODD" in picture(pilot)
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await until(pilot, lambda: pilot.app.screen.query_one(LogView).line_count > 1)
        assert list(pilot.app.screen.query_one(LogView).lines)[:2] == ["[red]x[/] \ufffd[/nope]", "100%"]
        assert "\x1b" not in picture(pilot)


# ---- one run


async def test_a_failed_run_says_why_on_its_first_screen_with_that_tasks_log(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("j", "enter")
        await until(pilot, lambda: "log of evaluate" in picture(pilot))
        shown = picture(pilot)
        assert "evaluate: gate accuracy: 0.7 < 0.9 [bold]no markup[/]" in shown
        assert column(pilot, "tasks", "task") == ["root", "├ ingest", "├ evaluate", "└ deploy"]
        assert table(pilot, "tasks").selected == "task-evaluate"
        assert "↷ SKIPPED" in shown
        assert "Log of evaluate" in shown


async def test_a_log_that_cannot_be_read_or_is_empty_says_so_and_goes_on_saying_so(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    fake.logs["pod-ingest"] = ""
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("j", "enter")
        await until(pilot, lambda: "log of evaluate" in picture(pilot))
        for key, note in (("g", "✗ The server cannot read the log"), ("j", "Log of ingest  (empty)")):
            await pilot.press(key)
            await until(pilot, lambda: note in picture(pilot))  # noqa: B023
            asked = len(fake.asked)
            await pilot.press("r")
            await until(pilot, lambda: len(fake.asked) > asked)  # noqa: B023
            assert note in picture(pilot)


async def test_the_log_follows_the_cursor_and_grows(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await pilot.press("G")
        await until(pilot, lambda: "log of train" in picture(pilot))
        fake.logs["pod-train"] += "epoch 2\n"
        await until(pilot, lambda: "epoch 2" in picture(pilot))
        await pilot.press("k")
        await until(pilot, lambda: "log of ingest" in picture(pilot))
        assert "epoch 2" not in picture(pilot)
        await pilot.press("k")
        await until(pilot, lambda: "cannot read the log" in picture(pilot))


async def test_a_server_that_does_not_follow_logs_is_read_again(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    fake.follows = False
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await pilot.press("G")
        await until(pilot, lambda: "log of train" in picture(pilot))
        fake.logs["pod-train"] += "epoch 2\nlast words"
        fake.run(LIVE)["run_details"]["task_details"][2] = task_json("train", parent_task_id="task-root")
        lines = ["log of train", "epoch 2", "last words"]
        await until(pilot, lambda: list(pilot.app.screen.query_one(LogView).lines) == lines)


async def test_a_task_that_has_not_started_says_so(make: Callable[..., Monitor], fake: FakeKfp) -> None:
    fake.runs = [run_json(LIVE, state="RUNNING", tasks=[task_json("train", "PENDING")])]
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "has not started" in picture(pilot))
        fake.run(LIVE)["run_details"]["task_details"] = [task_json("train", "RUNNING")]
        await until(pilot, lambda: "log of train" in picture(pilot))


async def test_escape_goes_from_log_to_tasks_to_runs(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await pilot.press("enter")
        assert pilot.app.screen.query_one(LogView).has_focus
        await pilot.press("f")
        assert "not followed" in picture(pilot)
        await pilot.press("escape")
        assert table(pilot, "tasks").has_focus
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)
        assert table(pilot).has_focus


async def test_a_run_that_is_deleted_while_it_is_looked_at_keeps_its_picture(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        fake.runs.remove(fake.run(LIVE))
        await until(pilot, lambda: "not found" in picture(pilot))
        assert len(column(pilot, "tasks", "task")) == 3


# ---- the frame


async def test_help_lists_every_action(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=(100, 130), notifications=True) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        shown = picture(pilot)
        for action in ACTIONS:
            if action.place != "replay":  # listed where there is a recording
                assert action.help in shown
                assert PLACES[action.place] in shown
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)


def test_every_action_has_one_id_and_no_key_that_terminals_or_shells_take() -> None:
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)
    for action in ACTIONS:
        assert not {"ctrl+d", "ctrl+k", "ctrl+b", "ctrl+s"} & set(action.keys.split(","))
        assert not action.destructive or action.keys.isupper()


async def test_a_key_can_be_remapped_by_its_actions_id(make: Callable[..., Monitor]) -> None:
    app = make()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        app.set_keymap({"app.help": "f1"})
        await pilot.press("f1")
        assert isinstance(app.screen, HelpScreen)


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 60)])
async def test_it_fits_from_small_to_large_and_resizes(make: Callable[..., Monitor], size: tuple[int, int]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.resize_terminal(*size)
        await until(pilot, lambda: len(picture(pilot).splitlines()) <= size[1] and "live run" in picture(pilot))
        assert all(len(line) <= size[0] for line in picture(pilot).splitlines())
        assert table(pilot).max_scroll_x == 0


def test_the_monitor_loads_nothing_heavy(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from kanary import config
from tui.app import Monitor
async def main():
    folder = Path(sys.argv[1])
    cluster = '{"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}], "current-context": "c",'
    (folder / "kubeconfig").write_text(cluster + '"contexts": [{"name": "c", "context": {"cluster": "c"}}]}')
    given = {"kubeconfig": str(folder / "kubeconfig"), "prometheus_url": "http://127.0.0.1:9"}
    app = Monitor(config.load(given, {"HOME": sys.argv[1]}, folder))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        late = {"kanary.api", "kanary.kubernetes_async", "kanary.snapshot_metrics", "kanary.snapshot_watch"}
        while not late <= set(sys.modules):
            await pilot.pause(0.01)
        await pilot.press("2", "4", "1")
asyncio.run(main())
heavy = {"torch", "kfp", "kserve", "alibi_detect", "pandas", "numpy", "kubernetes", "lightkube", "sklearn", "pyarrow",
         "yaml", "prometheus_api_client", "requests", "sandbox", "components", "pipelines", "serving"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.stdout == "[]\n", done.stderr


# ---- the parts that decide


def a_run(name: str, state: str, minute: int) -> Run:
    started = datetime(2026, 11, 21, 7, minute, tzinfo=UTC)
    return Run(f"id-{name}", name, state, created_at=started, finished_at=started.replace(second=59 - minute))


def test_filter_matches_name_state_id_and_pipeline() -> None:
    run = Run("0123-abc", "Train Adult", "FAILED", pipeline_name="training")
    assert all(matches(words(run), text) for text in ("", "!", "adult", "FAIL", "3-a", "training", "!other", "! other"))
    assert not any(matches(words(run), text) for text in ("other", "!adult"))


def test_sorting_by_state_puts_what_is_urgent_first_and_newer_before_older() -> None:
    runs = [
        a_run("a", "SUCCEEDED", 1),
        a_run("b", "FAILED", 2),
        a_run("c", "NEWLY_INVENTED", 3),
        a_run("d", "FAILED", 4),
    ]
    now = datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert [run.name for run in visible(runs, RunsView.LISTING, "", "state", now)] == ["c", "d", "b", "a"]
    assert [run.name for run in visible(runs, RunsView.LISTING, "", "duration", now)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("environ", "theme"),
    [
        ({}, "ansi-dark"),
        ({"TERM": "linux", "COLORFGBG": "0;15"}, "ansi-light"),
        ({"TERM": "xterm-256color"}, "kanary"),
        ({"COLORTERM": "truecolor", "COLORFGBG": "0;15"}, "kanary-light"),
        ({"TEXTUAL_COLOR_SYSTEM": "truecolor"}, "kanary"),  # in a browser, which has no TERM
    ],
)
def test_the_theme_is_one_that_the_terminal_can_show(environ: dict[str, str], theme: str) -> None:
    assert default_theme(environ) == theme


async def test_in_sixteen_colours_the_row_under_the_cursor_is_in_reverse_video_as_a_whole(
    fake: FakeKfp, tmp_path: Path
) -> None:
    app = Monitor(rig.settings(tmp_path, {"kfp_endpoint": fake.url}), theme="ansi-dark")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        row, other = (table(pilot).render_line(line) for line in (1, 2))
        under = [segment.style for segment in row if segment.style]
        assert all(style.reverse and not style.dim for style in under)
        assert len({(style.color, style.bgcolor) for style in under}) == 1
        assert len({segment.style.color for segment in other if segment.style}) > 1


def test_a_failure_keeps_the_last_answer_and_waits_longer_each_time() -> None:
    good = succeeded("data", 10.0)
    bad = failed(failed(good, ("no route", "start it"), 12.0, 1.0), ("still no route", ""), 15.0, 2.0)
    assert (bad.value, bad.at, bad.failures, bad.retry_at, bad.error) == ("data", 10.0, 2, 17.0, "still no route")
    assert [back_off(1.0, n, 0.0) for n in (0, 1, 2, 5, 500)] == [1.0, 2.0, 4.0, 30.0, 30.0]
    assert back_off(1.0, 0, 1.0) == 1.25


async def test_polling_survives_a_fault_of_its_own_and_writes_it_down(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Any] = [ZeroDivisionError("ours"), Unreachable("away", "hint"), 7]
    seen: list[Snapshot[int]] = []
    wake = asyncio.Event()

    async def fetch() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    def show(snapshot: Snapshot[int]) -> None:
        seen.append(snapshot)
        wake.set()
        if snapshot.value == 7:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await poll(fetch, show, wake, lambda value: 3600.0)
    assert [snapshot.error for snapshot in seen] == ["A fault in the monitor; its log has it.", "away", ""]
    assert "ZeroDivisionError" in caplog.text


def test_the_first_line_names_the_server_and_ends_with_the_ages() -> None:
    ages = [("kfp", Snapshot(1, at=100.0)), ("k8s", Snapshot(1, at=100.0, live=True)), ("prom", Snapshot())]
    for mark in ("READ-ONLY", "PROTECTED"):
        place = Place("production · kubeflow.example.com", "team-a", mark == "READ-ONLY", mark == "PROTECTED")
        for width in (78, 118, 198):
            line = "".join(text for text, _ in where_line(place, ages, True, 107.2, width))
            assert len(line) <= width
            assert mark in line
            assert "produc" in line
            assert line.endswith("HELD  kfp 7s    k8s live  prom …   ")
    assert age_words(Snapshot(), 0.0) == "…"
    assert age_words(Snapshot(error="x"), 0.0) == "✗"
    assert age_words(Snapshot(1, at=0.0, error="x"), 3725.0) == "✗1h"


@pytest.mark.parametrize("width", [78, 90, 118])
def test_nothing_in_the_first_line_moves_as_the_data_grow_old(width: int) -> None:
    place = Place("kanary-sandbox · 127.0.0.1:36331", "default")

    def without_ages(after: float, **more: Any) -> str:
        snapshot: Snapshot[int] = Snapshot(1, at=0.0, **more)
        ages = [(name, snapshot) for name in ("kfp", "k8s", "prom")]
        line = "".join(part for part, _ in where_line(place, ages, False, after, width))
        return line.replace(age_words(snapshot, after).ljust(4), "AGE ")

    moments = (0.0, 7.0, 59.4, 59.6, 61.0, 3599.0, 3600.0, 86400.0 * 2, 86400.0 * 400)
    assert len({without_ages(after, error=error) for after in moments for error in ("", "gone")}) == 1
    assert without_ages(0.0, live=True) == without_ages(7.0)


async def test_every_screen_has_the_header(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        assert pilot.app.screen.query_one(Header).region.y == 0
        await pilot.press("enter")
        await pilot.pause()
        assert pilot.app.screen.query_one(Header).region.y == 0


async def test_a_progress_bar_stands_beside_the_title_until_its_line_ends(
    make: Callable[..., Monitor], fake: FakeKfp
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("enter")
        await until(pilot, loaded(pilot, "tasks"))
        await pilot.press("G")
        await until(pilot, lambda: "log of train" in picture(pilot))
        for percent in (10, 50):
            fake.logs["pod-train"] += f"\r{percent}% done"
            await until(pilot, lambda: f"Log of train  {percent}% done" in picture(pilot))  # noqa: B023
        fake.logs["pod-train"] += "\r100% done\r\nnext\n"
        await until(pilot, lambda: "next" in picture(pilot))
        assert list(pilot.app.screen.query_one(LogView).lines) == ["log of train", "100% done", "next"]
        assert "Log of train\n" in picture(pilot)
