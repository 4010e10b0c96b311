"""Every view at three sizes, as text, beside what it looked like when somebody looked at it and found it good.

KANARY_UPDATE_PICTURES=1 writes them anew: look at the difference before you keep it.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from tests.core.fake_kfp import FakeKfp, run_json, serving, task_json
from tests.tui import rig
from tests.tui.cluster import FakePrometheus, Namespace
from tests.tui.drift import Column, FakeDrift, Watched
from tests.tui.rig import loaded, picture, sees, until

PICTURES = Path(__file__).parent / "pictures"
ERROR = "DataError: the data break their schema\ncolumn 'age': expected at least 0; broken in 1 row: 5 ('-20')"


@pytest.fixture
def fake() -> Iterator[FakeKfp]:
    ended = {"finished_at": "2026-11-20T07:01:05Z"}
    broken = [
        task_json("ingest"),
        task_json("validate", "FAILED", error={"message": ERROR}, task_id="v"),
        task_json("gates-passed", "SKIPPED", task_id="g", type="CONDITION"),
        task_json("deploy", "SKIPPED", parent_task_id="g", pod_name=""),
    ]
    runs = [
        run_json("aaaaaaaa-0000-4000-8000-000000000000", "nightly 2026-11-20", tasks=[task_json("train")], **ended),
        run_json("bbbbbbbb-0000-4000-8000-000000000000", "on broken data", "FAILED", tasks=broken, **ended),
        run_json("cccccccc-0000-4000-8000-000000000000", "a name that is much too long for " * 3, "CANCELED", **ended),
    ]
    for number, run in enumerate(runs):
        run["created_at"] = f"2026-11-20T07:00:0{9 - number}Z"
    with serving(FakeKfp(runs=runs, logs={"pod-validate": "reading 569 rows\nDataError\n"})) as server:
        yield server


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_every_view_looks_as_it_did_when_somebody_looked(
    size: tuple[int, int], space: Namespace, metrics: FakePrometheus, fake: FakeKfp, utc: None, tmp_path: Path
) -> None:
    space.put("churn", 20)
    space.remember("churn")
    space.put("calm")
    space.put("crashing", 10, 0, ready=False, failure="cannot load model.safetensors")
    metrics.rates = {
        "churn-predictor-00001": (80.0, 0.0, 2.0, 12.0),
        "churn-predictor-00002": (20.0, 0.5, 3.0, 48.0),
        "calm-predictor-00001": (5.0, 0.0, 1.0, 4.0),
    }
    metrics.drift = FakeDrift(watched(space.name))
    given = {"kubeconfig": str(space.server.kubeconfig), "kfp_endpoint": fake.url, "prometheus_url": metrics.url}
    app = rig.monitor(tmp_path, given)
    app.hub.scope = type(app.hub.scope)(space.name, False, 0.2)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, loaded(pilot))
        await pilot.press("j")
        await looks(pilot, "runs", size)
        await pilot.press("enter")
        await sees(pilot, "reading 569 rows")
        await looks(pilot, "run", size)
        await pilot.press("escape", "2")
        await until(pilot, loaded(pilot, "services-table"))
        await pilot.press("j")
        await looks(pilot, "services", size)
        await pilot.press("enter")
        await sees(pilot, "requests/s 80.0 20.0")
        await looks(pilot, "service", size)
        await pilot.press("R")
        await sees(pilot, "Roll back churn?")
        await looks(pilot, "rollback", size)
        await pilot.press("escape", "escape", "3")
        await until(pilot, lambda: app.hub.drift.value is not None and app.hub.drift.value.past is not None)
        await looks(pilot, "drift", size)
        await pilot.press("enter")
        await sees(pilot, "from 78")
        await looks(pilot, "column", size)
        await pilot.press("escape", "question_mark")
        await looks(pilot, "help", size)


def watched(namespace: str) -> list[Watched]:
    """A model that drifts, its canary of which too little was seen, and one that is calm."""
    step = 24 * 60  # seconds of one place in a picture of a day: between its edges nothing changes
    edges = (18.0, 24.0, 30.0, 36.0, 42.0, 48.0, 54.0, 60.0, 66.0, 72.0, 78.0)
    names = ["below 18", *(f"{low:g} to {low + 6:g}" for low in edges[:-1]), "from 78"]
    before = (0.01, 0.08, 0.14, 0.18, 0.17, 0.14, 0.11, 0.08, 0.05, 0.03, 0.005, 0.005)
    bins = tuple(zip(names, before, reversed(before), strict=True))

    def since(steps: int, p_value: float, way: float = 0.4) -> Callable[[float], float]:
        return lambda ago: p_value if ago <= steps * step else way if ago > 2 * steps * step else 0.01

    numbers = {
        "coverage_ratio": 0.98, "window_rows": 1000, "windows_total": 61, "open_window_rows": 211, "window_outliers": 4,
        "seconds_since_last_event": 3, "accuracy{bound=value}": 0.874, "accuracy{bound=low}": 0.843,
        "accuracy{bound=high}": 0.9, "accuracy_rows": 500, "accuracy_baseline": 0.931, "labelled_rows_total": 2210,
    }  # fmt: skip
    stable = [
        Column("age", 3e-12, score=0.41, course=since(9, 3e-12), bins=bins),
        Column("P(up)", 5e-9, "prediction", score=0.2, course=since(4, 5e-9)),
        Column("plan", 0.0021, test="chi2", score=21.0),
        Column("tenure", 0.22, score=0.03),
        Column("label", 0.4, "prediction", "chi2", 0.9),
        Column("all features", 1e-6, "multivariate", "mmd", 0.01, since(9, 1e-6)),
    ]
    few = {"coverage_ratio": 0.31, "window_rows": 210, "windows_total": 2}
    few["canary{stable=churn-predictor-00001,cause=world}"] = 1
    canary = [Column("age", 0.03), Column("plan", 0.2, test="chi2")]
    return [
        Watched(namespace, "churn", "churn-predictor-00001", "v1", stable, "drift", numbers=numbers),
        Watched(namespace, "churn", "churn-predictor-00002", "v2", canary, "unknown", numbers=few),
        Watched(namespace, "calm", "calm-predictor-00001", "v1", [Column("price", 0.3)], numbers={"windows_total": 3}),
    ]


async def looks(pilot: Pilot[None], name: str, size: tuple[int, int]) -> None:
    """Waits until the picture is the one that is kept, but for what the clock and the test's own names make of it."""
    path = PICTURES / f"{name}-{size[0]}x{size[1]}.txt"
    if os.environ.get("KANARY_UPDATE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        before, since = "", time.monotonic()
        while time.monotonic() - since < 2.5:
            await pilot.pause(0.1)
            now = scrubbed(picture(pilot))
            before, since = (now, since) if now == before else (now, time.monotonic())
        path.write_text(before + "\n", encoding="utf-8")
        return
    kept = path.read_text(encoding="utf-8").rstrip("\n")
    deadline = time.monotonic() + 40
    while (now := scrubbed(picture(pilot))) != kept:
        await pilot.pause(0.1)
        difference = "\n".join(difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", lineterm=""))
        assert time.monotonic() < deadline, f"{path.name} looks different:\n{difference}"


def scrubbed(shown: str) -> str:
    """Without ages, intervals, ports and namespaces of this run; every line without blanks at its end."""
    lines = shown.splitlines()
    lines[0] = re.sub(r"^(\s*kanary).*", r"\1  WHERE AND HOW OLD", lines[0])
    text = "\n".join(lines)
    text = re.sub(r"m\d+-\d+\b", "NAMESPACE", text)
    text = re.sub(r"(?<=out for )[^│\n]*", "AGE", text)
    text = re.sub(r"(\d+m )?\d+(\.\d)?s? ?s?, \d+ points", "AGE, POINTS", text)
    # It narrows with every point that is shown.
    text = re.sub(r"[·│├─┼●┤┊]{9,} \+\d\.\d % to \+\d\.\d %", "INTERVAL", text)
    text = re.sub(r" +\d+(\.\d)? s(?= )", "   AGE", text)
    text = re.sub(r" +\d+[dhm] \d\d[hms](?!\S)", "   AGE", text)
    return "\n".join(re.sub(r"\s+$", "", line) for line in text.splitlines())
