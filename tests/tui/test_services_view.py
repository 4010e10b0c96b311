from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from kanary.kserve.readiness import Readiness
from kanary.rollout import record as records
from kanary.rollout.record import Record
from tests.core.fake_kubernetes import FakeKubernetes, serving
from tests.kubernetes.server import start, stop
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace, kubeconfig, new_namespace, remembered
from tests.tui.rig import SIZE, column, flat, loaded, picture, sees, table, text, until
from tui.app import Monitor
from tui.dialog import Dialog
from tui.main import MainScreen
from tui.promotion import Promotion
from tui.service import ServiceScreen

TABLE = "services-table"


@pytest.fixture
def make(space: Namespace, metrics: FakePrometheus, tmp_path: Path) -> Callable[..., Monitor]:
    """A monitor of the Kubernetes API and of the Prometheus; no Kubeflow Pipelines answers."""

    def made(**flags: Any) -> Monitor:
        given = space.settings | {"prometheus_url": metrics.url, "kfp_endpoint": "http://127.0.0.1:9"} | flags
        return rig.monitor(tmp_path, given)

    return made


def services(space: Namespace) -> Callable[[str, str], str]:
    return lambda name, of: f"{space.name}/{name} {of}"


async def test_services_are_listed_with_what_needs_a_person_first(
    make: Callable[..., Monitor], space: Namespace, metrics: FakePrometheus
) -> None:
    space.put("calm")
    space.put("churn", 20)
    space.remember("churn")
    space.put("broken", 10, 0, ready=False, failure="cannot load [red]model[/]")
    metrics.rates = {"churn-predictor-00001": (8.0, 0.0, 2.0, 12.0), "churn-predictor-00002": (2.0, 0.5, 3.0, 480.0)}
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: loaded(pilot, TABLE)() and column(pilot, TABLE) == ["broken", "churn", "calm"])
        shown, key = table(pilot, TABLE), f"{space.name}/churn"
        assert text(shown, key, "share") == "20 %"
        assert text(shown, key, "newest") == "v2"
        bar = text(shown, key, "traffic")
        assert (bar.count("█"), bar.count("▒")) == (11, 3)
        assert text(shown, f"{space.name}/broken", "share") == "0 of 10 %"
        await until(pilot, lambda: text(shown, key, "requests") == "10.0")
        assert text(shown, key, "errors") == "25 %"
        assert text(shown, key, "p99") == "480 ms"
        assert text(shown, f"{space.name}/calm", "requests") == "–"
        assert "✗ 1 service failing" in picture(pilot)
        assert "2 canaries out" in picture(pilot)


async def test_the_monitor_begins_with_the_view_that_is_asked_for(space: Namespace, tmp_path: Path) -> None:
    space.put("churn")
    given = rig.settings(tmp_path, space.settings | {"kfp_endpoint": "http://127.0.0.1:9"})
    async with Monitor(given, theme="kanary", view="services").run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, loaded(pilot, TABLE))
        assert column(pilot, TABLE) == ["churn"]
        assert pilot.app.focused is table(pilot, TABLE)


async def test_keys_that_are_typed_ahead_reach_what_the_key_before_them_opened(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    space.put("calm")
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("4")
        for key in ("2", "slash", *"cal"):  # c would copy, and / filter what was left
            pilot.app.simulate_key(key)
        await until(pilot, lambda: column(pilot, TABLE) == ["calm"])
        for key in ("m", "enter", "4", "2", "enter"):  # the first Enter ends the filter, and what follows is not in it
            pilot.app.simulate_key(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, ServiceScreen))
        await sees(pilot, f"{space.name}/calm")
        await pilot.press("escape")
        await until(pilot, lambda: "filter: calm" in picture(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: len(column(pilot, TABLE)) == 2)
        for key in ("slash", *"chu", "enter", "4", "2", "enter"):  # in one breath, as a slow line delivers them
            pilot.app.simulate_key(key)
        await until(pilot, lambda: isinstance(pilot.app.screen, ServiceScreen))
        await sees(pilot, f"{space.name}/churn")
        await pilot.press("escape")
        await until(pilot, lambda: picture(pilot).count("filter: chu\n") == 1)


async def test_a_change_is_seen_without_asking(make: Callable[..., Monitor], space: Namespace) -> None:
    space.put("churn", 20)
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        shown = table(pilot, TABLE)
        await sees(pilot, "k8s live")
        space.status("churn", 20, 55)
        await until(pilot, lambda: text(shown, f"{space.name}/churn", "share") == "55 of 20 %")
        space.put("second")
        await until(pilot, lambda: column(pilot, TABLE) == ["churn", "second"])
        space.delete("churn")
        await until(pilot, lambda: column(pilot, TABLE) == ["second"])


async def test_a_canary_in_standard_mode_is_seen_by_its_route(make: Callable[..., Monitor], space: Namespace) -> None:
    space.put_standard("churn", 20, 15)
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        shown, key = table(pilot, TABLE), f"{space.name}/churn"
        assert text(shown, key, "share") == "15 of 20 %"
        space.route("churn", 20)
        await until(pilot, lambda: text(shown, key, "share") == "20 %")
        await pilot.press("enter")
        await until(pilot, lambda: loaded(pilot, "revisions")() and len(column(pilot, "revisions", "share")) == 2)
        assert column(pilot, "revisions", "share") == ["80 %", "20 %"]
        await pilot.press("R")
        await sees(pilot, "predictor 80 %, r2-predictor 20 %")


async def test_what_kanary_remembers_is_seen_as_soon_as_it_is_written(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn")
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("enter")
        await sees(pilot, "no metrics")
        await pilot.press("tab")
        space.remember("churn")
        await sees(pilot, "promoted")
        await sees(pilot, "set-traffic by ada: done")
        assert "why 1" in picture(pilot)


async def test_a_namespace_without_services_says_how_one_comes_there(make: Callable[..., Monitor]) -> None:
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await sees(pilot, "No InferenceServices in this namespace")


async def test_all_namespaces_are_one_flag_away(space: Namespace, tmp_path: Path) -> None:
    other = new_namespace(space.server)
    space.put("here")
    other.put("there")
    app = rig.monitor(tmp_path, space.settings | {"kfp_endpoint": "http://127.0.0.1:9"}, everywhere=True)
    async with app.run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        wanted = {f"{space.name}/here", f"{other.name}/there"}
        await until(pilot, lambda: loaded(pilot, TABLE)() and wanted <= set(column(pilot, TABLE)))
        assert "ns all" in picture(pilot)


# ---- an opened service


async def test_an_opened_service_shows_its_revisions_charts_history_events_and_yaml(
    make: Callable[..., Monitor], space: Namespace, metrics: FakePrometheus
) -> None:
    space.put("churn", 20)
    space.remember("churn")
    space.happened("churn", "TrafficChanged", "Traffic is now [b]20 %[/b]", "Warning")
    metrics.rates = {"churn-predictor-00001": (8.0, 0.0, 2.0, 12.0), "churn-predictor-00002": (2.0, 0.5, 3.0, 480.0)}
    async with make().run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("enter")
        await sees(pilot, "asked 20 %, effective 20 %")
        await sees(pilot, "requests/s 8.0 2.0")
        shown = picture(pilot)
        assert column(pilot, "revisions", "revision") == ["00001", "00002"]
        assert column(pilot, "revisions", "share") == ["80 %", "20 %"]
        assert column(pilot, "revisions", "errors") == ["0 %", "25 %"]
        assert "errors 0 % 25 %" in shown
        assert "p99 12 ms 480 ms" in shown
        await pilot.press("tab")
        await sees(pilot, "why 2")
        await pilot.press("tab")
        await sees(pilot, "TrafficChanged: Traffic is now [b]20 %[/b]")
        assert "v0 denied: it was slow" in picture(pilot)
        await pilot.press("tab")
        await sees(pilot, "no pod of it is running")
        await pilot.press("y")
        await sees(pilot, "canaryTrafficPercent: 20")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)


async def test_a_service_that_is_deleted_while_it_is_looked_at_says_so(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("enter")
        await sees(pilot, "asked 20 %")
        space.delete("churn")
        await sees(pilot, "The service is gone")
        await pilot.press("R")
        await sees(pilot, "no service")
        assert isinstance(pilot.app.screen, ServiceScreen)


# ---- acts


async def test_the_rollback_dialog_shows_before_and_after_and_does_nothing_when_left(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    space.remember("churn")
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        before = space.document("churn")["metadata"]["resourceVersion"]
        await pilot.press("R")
        await sees(pilot, "Roll back churn?")
        shown = picture(pilot)
        for part in (
            "00001 80 %, 00002 20 %",
            "00001 100 %",
            "00002 (v2)  →  00001 (v1)",
            "ready, it serves now",
            "the content of v1",
            "v2: deploy refuses it",
        ):
            assert part in shown, part
        assert pilot.app.focused is not None
        assert pilot.app.focused.id == "cancel"
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, MainScreen)
        await pilot.press("R")
        await sees(pilot, "Roll back churn?")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)
        assert space.document("churn")["metadata"]["resourceVersion"] == before


async def test_the_canarys_share_is_set_and_a_wrong_one_refused(make: Callable[..., Monitor], space: Namespace) -> None:
    space.put("churn", 20)
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("T")
        await sees(pilot, "another share?")
        percent = pilot.app.screen.query_one("#field-percent")
        percent.focus()
        await pilot.pause()
        await pilot.press(*"120", "enter", "enter")
        await sees(pilot, "A whole number from 0 to 99")
        percent.focus()
        await pilot.pause()
        await pilot.press("ctrl+u", *"35")
        await sees(pilot, "00002 35 %")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: space.document("churn")["spec"]["predictor"]["canaryTrafficPercent"] == 35)
        space.status("churn", 35)
        await sees(pilot, "✓ traffic is 00001 65 %, 00002 35 %")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)


async def test_a_promotion_takes_the_percentage_out_of_the_spec(make: Callable[..., Monitor], space: Namespace) -> None:
    space.put("churn", 20)
    space.remember("churn")
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("P")
        await sees(pilot, "00002 100 %")
        assert "00001 (v1)  →  00002 (v2)" in picture(pilot)
        await sees(pilot, "WAY BACK  to v1 by a cold start")
        await sees(pilot, "model: s3://models/1 cannot be checked from here")
        await pilot.press("right", "enter")
        await until(pilot, lambda: "canaryTrafficPercent" not in space.document("churn")["spec"]["predictor"])
        # What was begun goes on, and its end is told, when the dialog is closed meanwhile.
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, MainScreen)
        whole = space.document("churn")["status"] | {}
        whole["components"]["predictor"] |= {
            "latestRolledoutRevision": "churn-predictor-00002",
            "traffic": [{"revisionName": "churn-predictor-00002", "percent": 100, "latestRevision": True}],
        }
        with space.server.client() as client:
            path = f"/apis/serving.kserve.io/v1beta1/namespaces/{space.name}/inferenceservices/churn/status"
            document = space.document("churn") | {"status": whole}
            client.put(path, json=document).raise_for_status()
        await until(pilot, lambda: "traffic is 00002 100 %" in flat(pilot))


async def test_where_there_is_no_way_back_a_promotion_has_to_be_meant(
    make: Callable[..., Monitor], space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, read = threading.Event(), Promotion._readiness

    def slow(self: Promotion) -> Readiness:
        looks.wait(60)
        return read(self)

    monkeypatch.setattr(Promotion, "_readiness", slow)
    space.put("churn", 20)  # and nobody has recorded what is stable
    async with make().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("P")
        await sees(pilot, "WAY BACK  is looked at")
        await pilot.press("right", "enter")
        looks.set()
        await sees(pilot, "There would be no way back: nobody recorded the content")
        assert space.document("churn")["spec"]["predictor"]["canaryTrafficPercent"] == 20
        await pilot.press("escape", "P")
        await sees(pilot, "WAY BACK  none")
        await sees(pilot, "Promote anyway")
        await pilot.press("right", "enter")
        await until(pilot, lambda: "canaryTrafficPercent" not in space.document("churn")["spec"]["predictor"])


@pytest.mark.parametrize(
    ("put", "key", "why"),
    [
        ({}, "P", "has no canary"),
        ({}, "T", "has no canary"),
        ({}, "R", "only release"),
        (
            {"percent": 10, "effective": 0, "ready": False, "failure": "no memory"},
            "P",
            "ModelLoadFailed: no",
        ),
    ],
)
async def test_what_cannot_be_done_now_says_why(
    make: Callable[..., Monitor], space: Namespace, put: dict[str, Any], key: str, why: str
) -> None:
    space.put("churn", **put)
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press(key)
        await until(pilot, lambda: why in flat(pilot))
        assert not isinstance(pilot.app.screen, Dialog)


@pytest.mark.parametrize("flags", [{"readonly": "true"}, {"readonly_contexts": "prod-*, kanary-sand*"}])
async def test_read_only_refuses_every_act_where_it_is_dispatched(
    make: Callable[..., Monitor], space: Namespace, flags: dict[str, Any]
) -> None:
    space.put("churn", 20)
    async with make(**flags).run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await sees(pilot, "READ-ONLY")
        for key, label in (("R", "Roll back"), ("P", "Promote"), ("T", "Traffic")):
            await pilot.press(key)
            await sees(pilot, f"{label} is refused")
        await pilot.press("1", "S")
        await sees(pilot, "Submit is refused")
        assert isinstance(pilot.app.screen, MainScreen)


async def test_a_protected_context_has_the_services_name_typed(make: Callable[..., Monitor], space: Namespace) -> None:
    space.put("churn", 20)
    async with make(protected_contexts="kanary-*").run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await sees(pilot, "PROTECTED")
        await pilot.press("T", "right", "enter")
        await sees(pilot, "Type: churn")
        assert space.document("churn")["spec"]["predictor"]["canaryTrafficPercent"] == 20
        pilot.app.screen.query_one("#field-name").focus()
        await pilot.pause()
        await pilot.press(*"churn", "enter", "enter")
        await sees(pilot, "✓ traffic is")


async def test_a_rollout_tells_how_far_it_is_and_is_paused_and_let_go_on(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    said = {"phase": "baking", "sentence": "The canary [b]errs[/b] no more than stable.", "waits": "enough requests"}
    rollout = Record("r1", "v2", "sha256:2", "churn-predictor-00002", "churn-predictor-00001", {}, who="ada", **said)  # type: ignore[arg-type]
    space.remember("churn", records.put(remembered("churn"), rollout))
    async with make().run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("enter")
        await sees(pilot, "The canary [b]errs[/b] no more than stable.")
        assert "enough requests" in picture(pilot)
        for paused in (True, False):
            await pilot.press("H")
            await sees(pilot, "the rollout of churn?")
            await pilot.press("right", "enter")
            await until(pilot, lambda: isinstance(pilot.app.screen, ServiceScreen))
            await until(pilot, lambda: ("0 %, paused" in picture(pilot)) == paused)  # noqa: B023
        await pilot.press("A")
        await sees(pilot, "Approve: the rollout of churn?")
        await pilot.press("right", "enter")
        await until(pilot, lambda: "✗" in picture(pilot) and isinstance(pilot.app.screen, Dialog))


async def test_a_release_of_the_history_is_gone_back_to_from_its_row(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    space.remember("churn")
    async with make().run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await pilot.press("H")
        await sees(pilot, "No rollout of churn is under way")
        await pilot.press("enter", "tab")
        await sees(pilot, "why 1")
        await pilot.press("enter", "j", "R")
        await sees(pilot, "Roll back churn to v1?")
        assert "the content of v1" in picture(pilot)
        await pilot.press("escape")


# ---- servers that do not do what they should


async def test_a_kubernetes_api_that_goes_away_leaves_the_last_picture_and_is_found_again(
    tmp_path: Path, metrics: FakePrometheus
) -> None:
    server = start(tmp_path / "kubernetes")
    port = server.url.rpartition(":")[2]
    try:
        space = new_namespace(server)
        space.put("churn", 20)
        given = space.settings | {"kfp_endpoint": "http://127.0.0.1:9", "prometheus_url": metrics.url}
        async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
            await pilot.press("2")
            await until(pilot, loaded(pilot, TABLE))
            server.process.kill()
            server.process.wait()
            await until(pilot, lambda: "k8s ✗" in picture(pilot) and "cannot be reached" in flat(pilot))
            assert column(pilot, TABLE) == ["churn"]
            assert pilot.app.screen.query_one("#services").has_class("stale")
            # What cannot be done while it is away says why, in its dialog, and can be closed.
            await pilot.press("T", "right", "enter")
            await until(pilot, lambda: "✗ The Kubernetes API" in flat(pilot))
            await pilot.press("escape")
            server = start(tmp_path / "kubernetes", "--port", port)
            await sees(pilot, "k8s live", 60)
            # Each collection is found again by its own next try.
            await until(pilot, lambda: "cannot be reached" not in flat(pilot), 60)
            space.status("churn", 20, 66)
            await until(pilot, lambda: text(table(pilot, TABLE), f"{space.name}/churn", "share") == "66 of 20 %")
    finally:
        stop(server.process)


async def test_a_token_that_has_expired_is_said_and_the_next_one_used(
    make: Callable[..., Monitor], space: Namespace, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("expired", encoding="utf-8")
    given = kubeconfig(tmp_path / "kubeconfig", space.server.url)
    given.write_text(given.read_text().replace('"token": "t"', f'"tokenFile": "{token}"'), encoding="utf-8")
    space.put("churn", 20)
    async with make(kubeconfig=str(given)).run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: "401" in flat(pilot) and "lacks the credentials or the rights" in flat(pilot))
        token.write_text(space.server.token, encoding="utf-8")
        await pilot.press("r")
        await until(pilot, loaded(pilot, TABLE))
        assert column(pilot, TABLE) == ["churn"]


async def test_a_prometheus_that_is_away_slow_or_talks_nonsense_costs_numbers_only(
    make: Callable[..., Monitor], space: Namespace, metrics: FakePrometheus
) -> None:
    space.put("churn", 20)
    metrics.rates = {"churn-predictor-00002": (2.0, 0.0, 3.0, 48.0)}
    async with make().run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        key = f"{space.name}/churn"
        await until(pilot, lambda: loaded(pilot, TABLE)() and text(table(pilot, TABLE), key, "p99") == "48 ms")
        metrics.override = PlainTextResponse("<html>login</html>", media_type="text/html")
        await until(pilot, lambda: "not JSON" in flat(pilot))
        assert text(table(pilot, TABLE), key, "p99") == "48 ms"
        metrics.override = PlainTextResponse('{"status": "success", "data": {"result": [{"value": [0, "many"]}]}}')
        await pilot.press("r")
        await until(pilot, lambda: "where a number should be" in flat(pilot))
        metrics.override = None
        metrics.held.clear()  # it hangs: keys and the watch go on
        await pilot.press("r")
        space.status("churn", 20, 66)
        await until(pilot, lambda: text(table(pilot, TABLE), key, "share") == "66 of 20 %")
        metrics.rates = {"churn-predictor-00002": (2.0, 0.0, 3.0, 52.0)}
        metrics.held.set()
        await until(pilot, lambda: text(table(pilot, TABLE), key, "p99") == "52 ms", 60)
        metrics.stop()
        await until(pilot, lambda: "prom ✗" in picture(pilot))
        assert column(pilot, TABLE) == ["churn"]


async def test_without_a_prometheus_it_says_which_setting_names_one(
    make: Callable[..., Monitor], space: Namespace
) -> None:
    space.put("churn", 20)
    async with make(prometheus_url="").run_test(size=(120, 30), notifications=True) as pilot:
        await pilot.press("2")
        await until(pilot, loaded(pilot, TABLE))
        await until(pilot, lambda: "no endpoints available" in flat(pilot) and "--prometheus" in flat(pilot))
        assert text(table(pilot, TABLE), f"{space.name}/churn", "share") == "20 %"


async def test_what_the_user_may_not_do_is_said_at_start_and_when_it_is_tried(tmp_path: Path) -> None:
    fake = FakeKubernetes(items=[], denied=frozenset({"patch inferenceservices"}))
    with serving(fake):
        given = {"kubeconfig": str(kubeconfig(tmp_path / "kubeconfig", fake.url)), "kfp_endpoint": "http://127.0.0.1:9"}
        async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
            await until(pilot, lambda: "bob may not change services" in flat(pilot))
            await pilot.press("2")
            await sees(pilot, "No InferenceServices")
            await pilot.press("P")
            await until(pilot, lambda: "bob may not: patch inferenceservices." in flat(pilot))


async def test_a_kubernetes_api_that_is_none_is_said_and_survived(tmp_path: Path) -> None:
    fake = FakeKubernetes(items=[], override=PlainTextResponse("<html>login</html>"))
    with serving(fake):
        given = {"kubeconfig": str(kubeconfig(tmp_path / "kubeconfig", fake.url)), "kfp_endpoint": "http://127.0.0.1:9"}
        async with rig.monitor(tmp_path, given).run_test(size=(120, 30), notifications=True) as pilot:
            await pilot.press("2")
            await until(pilot, lambda: "something that is not JSON" in flat(pilot))
            fake.override = None
            await pilot.press("r")
            await sees(pilot, "k8s live")
