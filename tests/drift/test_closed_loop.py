"""Drift in live traffic: found, named, retrained once, canaried, judged, promoted; beside it a service left alone."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from kanary.rollout import record as records
from tests.automation.retraining import Monitoring, compiled
from tests.automation.rig import POLICY
from tests.drift.market import Market, Watched, synthetic, written
from tests.drift.rig import NEEDS_ALIBI
from tests.rollout.measured import measured_sandbox
from tests.rollout.rig import NAMESPACE, Sandbox, Service
from tests.waiting import wait_for

pytestmark = [NEEDS_ALIBI, pytest.mark.sandbox, pytest.mark.timeout(3600)]
WINDOW, JUDGED, RATE = 400, 2000, 50.0
PATIENCE = 900.0  # of a busy machine
OPTIONS = f"--window_rows {WINDOW} --minimum_rows {WINDOW // 2} --labelled_rows {WINDOW}"
# Both models are right about other rows: that they answer otherwise is what the new one is for.
ROLLOUT = POLICY | {"margins": {"errors": 0.1, "latency": 0.3, "classes": None}}


@dataclass(frozen=True)
class Closed:
    """How the loop went. Accuracies are of JUDGED labelled rows, times in seconds since the drift began."""

    before: float
    drifted: float
    retrained: float
    control: float
    windows: int
    named: tuple[str, ...]
    found_s: float
    decided_s: float
    promoted_s: float
    looks: tuple[tuple[str, str], ...]


def close_the_loop(running: Sandbox, market: Market, folder: Path) -> Closed:
    """v1 is trained on the first era and serves; the second begins; what follows is Kanary's doing."""
    data = written(folder / "market.csv", market.before[:4000])
    schema = folder / "schema.json"
    schema.write_text(json.dumps(market.schema), encoding="utf-8")
    training = {
        "name": "market",
        "data_uri": str(data),
        "schema_uri": str(schema),
        "epochs": 30,
        "gates": {"accuracy": {"min": 0.5}},
        "releases_uri": str(running.home / "releases"),
    }
    served, control = (Watched(Service(running, name), market) for name in ("market", "control"))
    given = training | {"service": served.name, "namespace": NAMESPACE, "rollout_policy": ROLLOUT}
    monitoring = Monitoring(running, compiled(folder / "pipelines"), served.name, given, {})
    first = monitoring.run("training", training)
    assert first.state == "SUCCEEDED", first.error
    (release,) = (running.home / "releases" / "market").iterdir()
    for service in (served, control):
        service.begin(release)
    stable = served.service.status().stable

    quiet = written(folder / "quiet.csv", market.before[4000:-JUDGED])
    with served.traffic(quiet, RATE):
        wait_for(lambda: stable in served.told("accuracy_baseline"), "the first labelled rows are judged", PATIENCE)
        before = served.accuracy(market.before[-JUDGED:])
        # Four requests of that fill a window, sooner than the proxy is counted: of such nobody can tell.
        stands_still(served, stable)
        looked = monitoring.look()
        assert looked[0] == "nothing", looked
    wait_for(lambda: served.told("open_window_rows").get(stable, WINDOW) < WINDOW, "all windows are checked", PATIENCE)

    checked, begun = served.told("windows_total")[stable], time.monotonic()
    moved = written(folder / "moved.csv", market.after[4000:-JUDGED])
    with served.traffic(moved, RATE), control.traffic(moved, RATE / 4):
        # Of one scrape: the number of the window whose check has told of it.
        found = wait_for(
            lambda: running.prometheus(
                f'kanary_drift_windows_total{{service="market"}} and on (service, revision) '
                f'(kanary_drift_detected{{service="market",revision="{stable}",kind="feature"}} == 1)'
            ),
            "Prometheus knows of the drift",
            PATIENCE,
            every=0.1,
        )
        found_s, named = time.monotonic() - begun, served.drifting(stable)
        written(data, market.after[:4000])  # what whoever trains gets today
        looks = [monitoring.look()]
        decided_s = time.monotonic() - begun
        looks += [monitoring.look() for _ in range(4)]
        (retraining,) = monitoring.retrainings()
        drifted = control.accuracy(market.after[-JUDGED:])
        ended = monitoring.ended(retraining)
        promoted_s = time.monotonic() - begun
        assert ended.state == "SUCCEEDED", ended.error
        new = served.service.status().stable
        assert new != stable
        retrained, alone = (service.accuracy(market.after[-JUDGED:]) for service in (served, control))
        stands_still(served, new)
        looks.append(monitoring.look())
    record = records.find(served.service.state())
    assert record is not None
    assert (record.outcome, record.run_id) == (records.PROMOTED, retraining.run_id), record.why
    assert len([step for step in record.steps if step.canary.requests]) >= 1  # it was a canary, and was judged
    assert len(monitoring.retrainings()) == 1
    return Closed(
        before=before,
        drifted=drifted,
        retrained=retrained,
        control=alone,
        windows=int(found[0][1] - checked),
        named=tuple(sorted(named)),
        found_s=found_s,
        decided_s=decided_s,
        promoted_s=promoted_s,
        looks=tuple(looks),
    )


def stands_still(service: Watched, revision: str) -> None:
    """Waits for another window, in which nothing drifts."""
    checked = service.told("windows_total").get(revision, 0)

    def found() -> bool:
        calm = service.told("verdict", verdict="no drift").get(revision) == 1
        return calm and service.told("windows_total")[revision] > checked

    wait_for(found, f"a window of {revision} without drift is checked", PATIENCE, every=0.1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_drift_is_found_named_and_answered_by_one_retraining_that_the_judge_promotes(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KANARY_DRIFT_OPTIONS", OPTIONS)
    with measured_sandbox(tmp_path / "home", "--drift") as running:
        monkeypatch.setenv("KANARY_HOME", str(running.home))
        # It takes its time to import alibi-detect, and no sandbox waits for it.
        wait_for(lambda: "drift" in running.endpoints, "the detector is ready", PATIENCE, every=0.2)
        closed = close_the_loop(running, synthetic(seed), tmp_path)
    print(json.dumps({"seed": seed} | asdict(closed)))
    assert closed.windows <= 2
    assert closed.named == ("demand",)
    assert [action for action, _ in closed.looks] == ["retrain", *["alert"] * 4, "nothing"], closed.looks
    assert "demand" in closed.looks[0][1]
    assert closed.retrained >= closed.before - 0.02
    assert closed.control < closed.before - 0.1
