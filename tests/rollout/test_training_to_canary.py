from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rollout.rig import NAMESPACE, Service
from tests.waiting import wait_for

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(900)]  # it trains three times
EXAMPLE = Path(__file__).parents[2] / "examples" / "breast_cancer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipeline, and the example's data."""
    made = tmp_path_factory.mktemp("training")
    for command in (["-m", "pipelines.compile", "--out", str(made)], [str(EXAMPLE / "make_data.py"), str(made)]):
        subprocess.run([sys.executable, "-P", *command], check=True, capture_output=True, timeout=120)
    return made


def train(service: Service, folder: Path, releases: Path, seed: int) -> dict[str, Any]:
    """One run of the compiled pipeline through the stock `kfp` CLI; gives the run once it has ended."""
    url = service.sandbox.endpoints["kfp"]["url"]
    parameters = {
        "name": "breast-cancer",
        "data_uri": folder / "breast_cancer.csv",
        "schema_uri": folder / "schema.json",
        "gates": json.dumps(json.loads((EXAMPLE / "gates.json").read_text(encoding="utf-8"))),
        "epochs": 30,
        "seed": seed,
        "releases_uri": releases,
        "service": service.name,
        "namespace": NAMESPACE,
        "canary_percent": 10,
    }
    kfp = [str(Path(sys.executable).parent / "kfp"), "--output", "json", "run", "create", "-e", "tests"]
    words = [f"{name}={value}" for name, value in parameters.items()]
    environment = service.sandbox.environment(KFP_ENDPOINT=url)
    submit = [*kfp, "-f", str(folder / "training.yaml"), *words]
    done = subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout[done.stdout.index("{") :])["run_id"]

    def finished() -> dict[str, Any]:
        run: dict[str, Any] = httpx.get(f"{url}/apis/v2beta1/runs/{run_id}", timeout=30, trust_env=False).json()
        return run if run["state"] in ("SUCCEEDED", "FAILED", "CANCELED") else {}

    return wait_for(finished, "the training run ends", deadline=250)


def test_the_training_pipeline_takes_a_model_to_a_canary_and_rollback_takes_it_back(
    empty: Service, folder: Path, tmp_path: Path
) -> None:
    service = empty
    first = train(service, folder, tmp_path / "releases", seed=7)
    assert first["state"] == "SUCCEEDED", first.get("error")
    status = service.status()
    assert status.split == {status.stable: 100}
    stable = status.stable

    second = train(service, folder, tmp_path / "releases", seed=8)
    assert second["state"] == "SUCCEEDED", second.get("error")
    status = service.status()
    assert status.split == {stable: 90, status.canary: 10}
    digests = [entry.digest for entry in service.state().history]
    assert len(set(digests)) == 2
    assert [entry.run_id for entry in service.state().history] == [first["run_id"], second["run_id"]]

    data, schema = folder / "breast_cancer.csv", folder / "schema.json"
    rows = ("--data", str(data), "--schema", str(schema))
    sent = service.sandbox.answer("traffic", service.name, *rows, "--rate", "200", "--seconds", "2")
    assert sent["failed"] == 0
    assert set(sent["by_revision"]) == {stable, status.canary}

    assert service.sandbox.answer("rollback", service.name)["outcome"] == "done"
    assert service.state().denied[0].digest == digests[1]
    # The same data, seed and versions give the same digest, which is denied now: its run fails and says who denied it.
    again = train(service, folder, tmp_path / "releases", seed=8)
    assert again["state"] == "FAILED"
    assert "is denied" in again["error"]["message"]
    status = service.status()
    assert status.split == {status.created: 100}
