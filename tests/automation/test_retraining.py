"""A model that is due is trained again on the data of today, and goes to production by the judge alone: once."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kanary.rollout import record as records
from tests.automation.conftest import NewService
from tests.automation.retraining import Monitoring, compiled
from tests.automation.rig import POLICY
from tests.rollout.rig import NAMESPACE, ROWS, SCHEMA

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]  # a minute and more
# How a canary is judged, others test: what counts here is that it was.
QUICK = POLICY | {
    "margins": {"errors": 0.1, "latency": None, "classes": None},
    "bake": {"seconds": 1, "requests": 40},
    "warm_up": {"seconds": 1},
    "watch": {"seconds": 1},
}
# Old enough at once: what asks for it needs no drift detector here, which CI has not.
DUE = {"drift_features": None, "every_days": 0}


def test_looks_at_once_and_after_retrain_once_and_the_judge_takes_the_new_model_to_production(
    new_service: NewService, tmp_path: Path
) -> None:
    live = new_service()
    data, schema = tmp_path / "today.csv", tmp_path / "schema.json"
    with data.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*ROWS[0], "kind"])
        writer.writeheader()
        writer.writerows(row | {"kind": "rose" if row["length"] > row["width"] else "iris"} for row in ROWS)  # type: ignore[operator]
    schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
    training = {
        "name": "flowers",
        "data_uri": str(data),
        "schema_uri": str(schema),
        "gates": {"accuracy": {"min": 0.3}},
        "epochs": 3,
        "hidden": [8],
        "releases_uri": str(tmp_path / "releases"),
        "service": live.name,
        "namespace": NAMESPACE,
        "rollout_policy": QUICK,
    }
    monitoring = Monitoring(live.service.sandbox, compiled(tmp_path / "pipelines"), live.name, training, DUE)
    with live.service.traffic(60):
        with ThreadPoolExecutor(2) as threads:
            looks = [one.result() for one in [threads.submit(monitoring.look) for _ in range(2)]]
        looks.append(monitoring.look())
        # What gave way to the other look was terminated before it had begun.
        (begun,) = (run for run in monitoring.retrainings() if not run.state.startswith("CANCEL"))
        ended = monitoring.ended(begun)
    assert sorted(action for action, _ in looks) == ["alert", "alert", "retrain"], looks
    assert all("trained" in told for _, told in looks)
    assert "a retraining is running" in looks[2][1]
    assert ended.state == "SUCCEEDED", ended.error
    record = live.record()
    assert record is not None
    assert (record.outcome, record.run_id) == (records.PROMOTED, begun.run_id), record.why
    status = live.service.status()
    assert status.split == {record.canary: 100}
