from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from kanary import policy
from tests.core.fake_kfp import FakeKfp, run_json, serving
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace, prometheus
from tests.tui.drift import Column, FakeDrift, Watched
from tests.tui.rig import SIZE, column, flat, loaded, picture, sees, table, text, until
from tui.app import Monitor
from tui.drift_column import ColumnScreen
from tui.main import MainScreen
from tui.run import RunScreen

TABLE = "drift-table"
REVISION, CANARY = "churn-predictor-00001", "churn-predictor-00002"
BINS = (("below 18", 0.25, 0.05), ("18 to 60", 0.5, 0.35), ("from 60", 0.25, 0.6))
NUMBERS = {
    "coverage_ratio": 0.98, "window_rows": 1000, "windows_total": 61, "open_window_rows": 211, "window_outliers": 4,
    "seconds_since_last_event": 3, "accuracy{bound=value}": 0.874, "accuracy{bound=low}": 0.843,
    "accuracy{bound=high}": 0.9, "accuracy_rows": 500, "accuracy_baseline": 0.931, "online_detections{test=fet}": 2,
}  # fmt: skip


def churn(*more: Column) -> Watched:
    columns = [
        Column("tenure", 0.4),
        Column("[red]age[/]\x1b[31m", 3e-12, score=0.41, bins=BINS, course=lambda ago: 3e-12 if ago < 1200 else 0.4),
        Column("plan", 0.002, test="chi2"),
        Column("P(up)", 0.3, "prediction"),
        Column("all features", 1e-6, "multivariate", "mmd"),
    ]
    return Watched("ns", "churn", REVISION, "v1", [*columns, *more], "drift", numbers=NUMBERS)


@pytest.fixture
def detector() -> FakeDrift:
    few = {
        "coverage_ratio": 0.31,
        "window_rows": 210,
        "windows_total": 2,
        f"canary{{stable={REVISION},cause=model}}": 1,
    }
    return FakeDrift([churn(), Watched("ns", "churn", CANARY, "v2", [Column("age", 0.9)], "unknown", numbers=few)])


@pytest.fixture
def fake_prometheus(detector: FakeDrift) -> Iterator[FakePrometheus]:
    with prometheus(FakePrometheus(drift=detector)) as fake:
        yield fake


@pytest.fixture
def make(fake_prometheus: FakePrometheus, tmp_path: Path) -> Callable[..., Monitor]:
    """A monitor of the Prometheus; neither Kubernetes nor Kubeflow Pipelines answer."""

    def made(**flags: Any) -> Monitor:
        given = {"prometheus_url": fake_prometheus.url, "kfp_endpoint": "http://127.0.0.1:9", "namespace": "ns"}
        return rig.monitor(tmp_path, given | flags)

    return made


def key(name: str, kind: str = "feature", revision: str = REVISION, version: str = "v1") -> str:
    return f"ns/churn/{revision}/{version}/{kind}/{name}"


async def test_what_drifts_comes_first_then_what_nobody_can_tell_and_the_model_is_told_below(
    make: Callable[..., Monitor],
) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, loaded(pilot, TABLE))
        await sees(pilot, "last 24 h")
        names = ["[red]age[/]", "all features", "age", "plan", "answer: P(up)", "tenure"]
        assert column(pilot, TABLE) == names
        assert [text(table(pilot, TABLE), one, "sign") for one in table(pilot, TABLE).keys] == list("✗✗?✓✓✓")
        shown = flat(pilot)
        assert "churn drifts" in shown
        assert "✗ drift: 2 of 5" in shown
        assert "coverage 98 % 1000 rows 4 outliers (0.4 %) 3 s ago 211 wait" in shown
        assert "✓ P(up) p 0.30 ✗ all features p 1e-6" in shown
        assert "✗ 87.4 % (84.3 to 90.0 % of 500 labelled rows, 93.1 % at first) online tests: 2 alarms" in shown
        heat = text(table(pilot, TABLE), table(pilot, TABLE).keys[0], "heat60")
        assert set(heat[:57]) == {"·"}
        assert heat[-1] == "█"


async def test_too_little_coverage_is_unknown_with_its_reason_and_the_canary_is_told(
    make: Callable[..., Monitor], detector: FakeDrift
) -> None:
    detector.models = detector.models[1:]
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, loaded(pilot, TABLE))
        await sees(pilot, "last 24 h")
        shown = flat(pilot)
        assert "? unknown: 31 % of the traffic seen, 50 % needed" in shown
        assert "drift of 1 model unknown" in shown
        assert "no drift" not in shown
        assert f"against {REVISION}: its answers differ on the same rows: it is the model" in shown
        assert set(text(table(pilot, TABLE), table(pilot, TABLE).keys[0], "heat60")) == {"?"}


async def test_what_is_missing_is_said_and_what_to_do(
    make: Callable[..., Monitor], detector: FakeDrift, tmp_path: Path
) -> None:
    async with rig.monitor(tmp_path, {"kfp_endpoint": "http://127.0.0.1:9"}).run_test(size=SIZE) as pilot:
        await pilot.press("3")
        await sees(pilot, "No Prometheus is set")
        assert "Name one with --prometheus" in flat(pilot)
    detector.models, own, detector.own = [], detector.own, {}
    async with make().run_test(size=SIZE) as pilot:
        await pilot.press("3")
        await sees(pilot, "No drift detector tells this Prometheus")
        assert "kanary up --drift" in flat(pilot)
        detector.own = own
        await pilot.press("r")
        await sees(pilot, "A drift detector runs")
        assert "spec.predictor.logger" in flat(pilot)
        detector.models = [Watched("ns", "new", "new-1", "v1", [], "unknown", numbers={"open_window_rows": 37.0})]
        await pilot.press("r")
        await sees(pilot, "no window was checked yet, 37 rows wait")
        assert column(pilot, TABLE) == ["nothing checked yet"]
        assert table(pilot, TABLE).has_focus  # it was hidden until now


async def test_the_last_picture_stays_with_its_age_when_prometheus_is_gone(
    make: Callable[..., Monitor], fake_prometheus: FakePrometheus
) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, loaded(pilot, TABLE))
        await sees(pilot, "last 24 h")
        fake_prometheus.override = PlainTextResponse("<html>login</html>", 200)
        await pilot.press("r")
        await sees(pilot, "not JSON")
        assert "prom ✗" in picture(pilot)
        assert table(pilot, TABLE).row_count == 6
        assert "█" in text(table(pilot, TABLE), table(pilot, TABLE).keys[0], "heat")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, ColumnScreen))
        await sees(pilot, "✗ drift")
        fake_prometheus.override = None
        await pilot.press("r")
        await sees(pilot, "18 to 60")
        await until(pilot, lambda: "not JSON" not in picture(pilot))


async def test_span_order_filter_and_hold_are_a_key_each(make: Callable[..., Monitor], detector: FakeDrift) -> None:
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("3")
        await sees(pilot, "last 24 h")
        await pilot.press("t")
        await sees(pilot, "by worst, last 7 days")
        await pilot.press("t")
        await sees(pilot, "by worst, last 15 min")
        await pilot.press("s")
        await sees(pilot, "by model")
        assert column(pilot, TABLE, "model")[-1].endswith("v2")
        await pilot.press("s", "slash", *"plan", "enter")
        await sees(pilot, "filter: plan")
        assert column(pilot, TABLE) == ["plan"]
        await pilot.press("escape", "slash", *"!drift", "enter")
        await until(pilot, lambda: column(pilot, TABLE) == ["age"])  # neither drift nor no drift
        await pilot.press("escape", "space")
        await sees(pilot, "HELD")
        detector.models = [churn(Column("zone", 1e-20))]
        await pilot.press("r")
        await until(pilot, lambda: len((pilot.app.hub.drift.value or detector).models) == 1)  # type: ignore[attr-defined]
        assert "zone" not in "".join(column(pilot, TABLE))
        await pilot.press("space")
        await until(pilot, lambda: "zone" in "".join(column(pilot, TABLE)))


async def test_a_column_shows_how_it_is_spread_and_the_next_is_a_key_away(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("3")
        await sees(pilot, "last 24 h")
        await pilot.press("enter")
        await sees(pilot, "18 to 60")
        shown = flat(pilot)
        assert "[red]age[/] feature of churn v1" in shown
        assert "✗ drift, for " in shown
        assert "p-value 3e-12 drift from 1e-4 distance 0.41 Kolmogorov-Smirnov 1000 rows" in shown
        lines = {line.split()[0]: line for line in picture(pilot).splitlines() if "→" in line and "%" in line}
        assert "▓" in lines["from"]
        assert "25.0 →  60.0 %" in lines["from"]
        assert "░" in lines["below"]
        assert "▓" not in lines["below"]
        await pilot.press("n")
        await sees(pilot, "All features together have no distribution of their own")
        await pilot.press("n", "n")
        await sees(pilot, "The detector tells no distribution of this column.")
        assert "plan feature of churn v1" in flat(pilot)
        assert "chi-squared" in flat(pilot)
        await pilot.press("p", "p", "p", "p")
        await sees(pilot, "18 to 60")
        await pilot.press("t")
        await sees(pilot, "last 7 days")
        await pilot.press("c", "question_mark")
        await sees(pilot, "view 3: what drifts, since when")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, MainScreen))


async def test_a_column_that_is_not_told_any_more_says_so(make: Callable[..., Monitor], detector: FakeDrift) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("enter")
        await sees(pilot, "18 to 60")
        detector.models = detector.models[1:]
        await pilot.press("r")
        await sees(pilot, "Nothing is told of this column any more")


async def test_from_what_drifts_to_the_retraining_it_caused(make: Callable[..., Monitor]) -> None:
    name = policy.run_name("churn", policy.key_of(policy.Evidence("ns", "churn", "v1")))
    ended = {"created_at": "2026-11-20T07:00:00Z", "finished_at": "2026-11-20T07:10:00Z"}
    caused = run_json("aaaaaaaa-0000-4000-8000-000000000000", name, description="2 drift: [b]age[/b]", **ended)
    with serving(FakeKfp(runs=[caused])) as kfp:
        async with make(kfp_endpoint=kfp.url).run_test(size=(120, 30), notifications=True) as pilot:
            await pilot.press("3")
            await until(pilot, loaded(pilot, TABLE))
            await sees(pilot, "✓ SUCCEEDED")
            assert ": 2 drift: [b]age[/b]" in picture(pilot)
            await pilot.press("o")
            await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
            await sees(pilot, name)
            await pilot.press("escape", "j", "j")
            await sees(pilot, "no run for it among those read")
            await pilot.press("o")
            await sees(pilot, "has not retrained this model")


async def test_the_cursor_stays_with_its_column_among_three_hundred(
    make: Callable[..., Monitor], detector: FakeDrift
) -> None:
    def columns(worst: int) -> list[Column]:
        return [Column(f"f{number:03}", 1e-9 if number == worst else 0.9 - number / 1000) for number in range(300)]

    detector.models = [Watched("ns", "wide", "wide-1", "v1", columns(7), "drift", numbers={"windows_total": 3.0})]
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: loaded(pilot, TABLE)() and table(pilot, TABLE).row_count == 300)
        await pilot.press("G", "k", "k")
        shown = table(pilot, TABLE)
        here, line = shown.selected, shown.cursor_row - round(shown.scroll_y)
        detector.models[0].columns = columns(250)
        await pilot.press("r")
        await until(pilot, lambda: column(pilot, TABLE)[0] == "f250")
        assert shown.selected == here
        assert shown.cursor_row - round(shown.scroll_y) == line
        assert "Drift (300)" in picture(pilot)


async def test_a_revision_that_serves_no_more_is_left_out(
    make: Callable[..., Monitor], detector: FakeDrift, space: Namespace
) -> None:
    for model in detector.models:
        model.namespace = space.name
    space.put("churn")
    given = {"kubeconfig": str(space.server.kubeconfig), "namespace": space.name}
    async with make(**given).run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: loaded(pilot, TABLE)() and table(pilot, TABLE).row_count == 5)
        await sees(pilot, f"{REVISION} (stable)")
        assert "v2" not in "".join(column(pilot, TABLE, "model"))
