"""The rollout pipeline in the sandbox, submitted with the stock kfp CLI: its outcome, its artifacts, its retry."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from kanary.rollout import record as records
from pipelines import compile as compilation
from tests.automation.conftest import NewService
from tests.automation.rig import POLICY, Live
from tests.rollout.rig import NAMESPACE, Model, Sandbox
from tests.waiting import wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]

WIDE = POLICY | {"margins": {"errors": 0.1, "latency": 0.3, "classes": 0.4}}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    assert compilation.main(["--out", str(folder)]) == 0
    return folder / "rollout.yaml"


def submitted(live: Live, pipeline: Path, model: Model, policy: dict[str, Any]) -> str:
    """The id of a run that takes this release to production."""
    url = live.service.sandbox.endpoints["kfp"]["url"]
    parameters = {
        "release_uri": model.path,
        "service": live.name,
        "namespace": NAMESPACE,
        "policy": json.dumps(policy),
        "digest": model.digest,
    }
    kfp = [str(Path(sys.executable).parent / "kfp"), "--output", "json", "run", "create", "-e", "tests"]
    words = [f"{name}={value}" for name, value in parameters.items()]
    environment = live.service.sandbox.environment(KFP_ENDPOINT=url)
    done = subprocess.run(
        [*kfp, "-f", str(pipeline), *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    run_id: str = json.loads(done.stdout[done.stdout.index("{") :])["run_id"]
    return run_id


def ended(sandbox: Sandbox, run_id: str) -> dict[str, Any]:
    def finished() -> dict[str, Any]:
        url = f"{sandbox.endpoints['kfp']['url']}/apis/v2beta1/runs/{run_id}"
        run: dict[str, Any] = httpx.get(url, timeout=30, trust_env=False).json()
        return run if run["state"] in ("SUCCEEDED", "FAILED", "CANCELED") else {}

    return wait_for(finished, "the run ends", 600, every=0.2)


def artifacts(sandbox: Sandbox, run_id: str) -> list[Path]:
    """The files that the run's rollout step has left."""
    return [
        path for path in sandbox.home.rglob("*") if path.is_file() and run_id in str(path) and "rollout" in str(path)
    ]


def test_a_release_goes_to_production_by_its_pipeline_and_leaves_its_evidence(
    new_service: NewService, pipeline: Path
) -> None:
    live = new_service()
    sandbox = live.service.sandbox
    with live.service.traffic(60):
        run_id = submitted(live, pipeline, live.releases.v2, WIDE)
        run = ended(sandbox, run_id)
    assert run["state"] == "SUCCEEDED", run.get("error")
    record = live.record()
    assert record is not None
    assert (record.outcome, record.run_id) == (records.PROMOTED, run_id), record.why
    assert live.service.predict().headers["kanary-model-version"] == "v2"
    contents = {path: path.read_bytes() for path in artifacts(sandbox, run_id)}
    hashes = {hashlib.sha256(content).hexdigest(): path for path, content in contents.items()}
    evidence = json.loads(hashes[record.sha256].read_bytes())
    assert (evidence["outcome"], evidence["run_id"]) == ("promoted", run_id)
    assert any(content.startswith(b"<!doctype html>") and b"Promoted: " in content for content in contents.values())


def test_a_run_whose_policy_is_wrong_deploys_nothing_and_says_what_is_wrong(live: Live, pipeline: Path) -> None:
    before = live.service.status()
    run = ended(live.service.sandbox, submitted(live, pipeline, live.releases.v2, {"stepps": [5, 100]}))
    assert run["state"] == "FAILED"
    assert "has no key 'stepps'" in run["error"]["message"]
    after = live.service.status()
    assert (after.split, after.canary) == (before.split, "") == ({before.stable: 100}, "")
