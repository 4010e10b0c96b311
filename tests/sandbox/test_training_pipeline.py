"""The compiled training pipeline, submitted by the stock `kfp` CLI: what it releases, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.waiting import wait_for

pytestmark = pytest.mark.sandbox
EXAMPLE = Path(__file__).parents[2] / "examples" / "breast_cancer"
GATES = json.loads((EXAMPLE / "gates.json").read_text(encoding="utf-8"))
Submit = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled pipeline, and the example's data, good and broken."""
    made = tmp_path_factory.mktemp("training")
    for command in (
        ["-m", "pipelines.compile", "--out", str(made)],
        [str(EXAMPLE / "make_data.py"), str(made), "--broken"],
    ):
        subprocess.run([sys.executable, "-P", *command], check=True, capture_output=True, timeout=120)
    return made


@pytest.fixture(scope="module")
def submit(url: str, folder: Path) -> Submit:
    """Submits with KFP_ENDPOINT and nothing else, waits for the end; gives the tasks by name, and the run."""

    def run(**changed: Any) -> dict[str, Any]:
        parameters = {
            "name": "breast-cancer",
            "data_uri": folder / "breast_cancer.csv",
            "schema_uri": folder / "schema.json",
            "gates": json.dumps(GATES),
            "epochs": 30,
            **changed,
        }
        kfp = [str(Path(sys.executable).parent / "kfp"), "--output", "json", "run", "create", "-e", "tests"]
        words = [f"{name}={value}" for name, value in parameters.items()]
        done = subprocess.run(
            [*kfp, "-f", str(folder / "training.yaml"), *words],
            env=os.environ | {"KFP_ENDPOINT": url},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        run_id = json.loads(done.stdout[done.stdout.index("{") :])["run_id"]

        def finished() -> dict[str, Any] | None:
            answer: dict[str, Any] = httpx.get(f"{url}/apis/v2beta1/runs/{run_id}", timeout=30).json()
            return answer if answer["state"] in ("SUCCEEDED", "FAILED", "CANCELED") else None

        ended = wait_for(finished, "the training run ends", deadline=250)
        assert ended is not None
        return {"run": ended} | {task["display_name"]: task for task in ended["run_details"]["task_details"]}

    return run


# What deploys, by hand or by a rollout that judges itself, and the conditions it stands under.
DEPLOYING = ("service-given", "condition-branches-3", "by-hand", "deploy", "automatic", "deploy-2", "rollout")


def states(tasks: dict[str, Any]) -> dict[str, str]:
    return {name: task["state"] for name, task in tasks.items() if name != "run"}


def test_good_data_give_a_release_and_the_same_seed_the_same_digest(submit: Submit, tmp_path: Path) -> None:
    first, second, other = (
        submit(releases_uri=tmp_path / name, seed=seed) for name, seed in (("one", 7), ("two", 7), ("three", 8))
    )
    found = states(first)
    assert {found.pop(name) for name in DEPLOYING} == {"SKIPPED"}
    assert set(found.values()) == {"SUCCEEDED"}
    digests = []
    for name in ("one", "two", "three"):
        (release,) = (tmp_path / name).glob("breast-cancer/*/release.json")
        found = json.loads(release.read_text(encoding="utf-8"))
        assert {"model.safetensors", "model.json", "reference.parquet"} <= {
            path.name for path in release.parent.iterdir()
        }
        digests.append(found["digest"])
    assert digests[0] == digests[1] != digests[2]
    assert first["run"]["run_id"] != second["run"]["run_id"] != other["run"]["run_id"]


def test_a_bad_model_is_refused_by_its_gates_and_the_guarded_branch_skipped(submit: Submit, tmp_path: Path) -> None:
    gates = json.dumps(GATES | {"accuracy": {"min": 0.9999}})
    tasks = submit(gates=gates, releases_uri=tmp_path / "releases")
    assert states(tasks) == {
        "preflight": "SUCCEEDED",
        "ingest": "SUCCEEDED",
        "validate": "SUCCEEDED",
        "split": "SUCCEEDED",
        "train": "SUCCEEDED",
        "evaluate": "SUCCEEDED",
        "gates-passed": "SKIPPED",
        "package": "SKIPPED",
    } | dict.fromkeys(DEPLOYING, "SKIPPED")
    assert not (tmp_path / "releases").exists()


def test_broken_data_fail_validation_and_nothing_is_trained(submit: Submit, folder: Path) -> None:
    tasks = submit(data_uri=folder / "breast_cancer_broken.csv")
    assert tasks["run"]["state"] == "FAILED"
    assert states(tasks)["validate"] == "FAILED"
    assert states(tasks)["train"] == "SKIPPED"
    message = tasks["run"]["error"]["message"]
    for told in ("mean_radius", "at least 0", "row: 5", "diagnosis", "unclear"):
        assert told in message


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("gates", {"acuracy": {"min": 0.1}}, "gate 'acuracy': there is no such metric"),
        ("rollout_policy", {"stepps": [5, 100]}, "has no key 'stepps'"),
        ("canary_percent", 120, "canary_percent is 120"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused_before_anything_is_trained(
    submit: Submit, name: str, value: Any, told: str
) -> None:
    tasks = submit(**{name: json.dumps(value)})
    assert tasks["run"]["state"] == "FAILED"
    assert told in tasks["run"]["error"]["message"]
    assert {states(tasks)[step] for step in ("validate", "train", "evaluate", "package")} == {"SKIPPED"}
