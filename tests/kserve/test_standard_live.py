"""The recorded steps of KServe 0.20 in Standard mode, done to a running sandbox: every one ends as it was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kserve.rig import Document, Namespace, Sandbox
from tests.kserve.standard_replay import LAB, flat, inference_service
from tests.waiting import wait_for

pytestmark = pytest.mark.destructive
_RECORDINGS: dict[str, Any] = json.loads(Path(__file__).with_name("standard_recordings.json").read_text("utf-8"))
# Its ConfigMap would be everybody's; test_standard_recordings.py replays it.
_NAMES = sorted(set(_RECORDINGS) - {"annotation-disallowed-list"})
_PORTS = [{"containerPort": 8080}]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path_factory.mktemp("live"), release="0.20.0")
    container = LAB.spec["containers"][0] | {"image": "localhost/lab:1", "ports": _PORTS}
    running.post(
        "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes",
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterServingRuntime",
            "metadata": {"name": LAB.name},
            "spec": LAB.spec | {"containers": [container]},
        },
    )
    yield running
    running.stop()


def _object(step: dict[str, Any], sandbox: Sandbox) -> Document:
    """The recorded InferenceService, with models that are there and all that the CRD asks for."""
    for version in "1234":
        sandbox.model(version)
    text = json.dumps(inference_service(step, {})).replace("s3://models/m/", f"{sandbox.models}/")
    found: Document = json.loads(text)
    metadata = {key: found["metadata"][key] for key in ("name", "annotations", "labels")}
    for predictor in (found["spec"]["predictor"], *(one["predictor"] for one in found["spec"].get("canary", []))):
        for container in predictor.get("containers", []):
            container |= {"image": "localhost/python:3", "ports": _PORTS}
        if "model" in predictor:
            predictor["model"]["name"] = ""
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    return kind | {"metadata": metadata, "spec": found["spec"]}


def _put(ns: Namespace, wanted: Document) -> None:
    """Replace the object, asking again while the controller's writes come between the reading and the writing."""

    def put() -> bool:
        known = ns.get()["metadata"]
        wanted["metadata"] |= {key: known[key] for key in ("resourceVersion", "finalizers")}
        answer = ns.sandbox.api.put(f"{ns.path}/m", json=wanted)
        assert not answer.is_error or answer.status_code == 409, answer.text
        return not answer.is_error

    wait_for(put, "a PUT with no other write between")


def _comparable(status: dict[str, str]) -> dict[str, str]:
    """Hosts by their first label, the address by its last part: the domain is another here."""
    found = {key: text.partition(".")[0] if key.endswith("url") else text for key, text in status.items()}
    return found | ({"address": found["address"].rpartition("/")[2]} if "address" in found else {})


def _says(wanted: dict[str, str], status: Document) -> bool:
    """Whether the status is as recorded. A crash is seen at once here, so its trace may outlive what was recorded."""
    told = _comparable(flat(status))
    if "failure" not in wanted:
        told.pop("failure", None)
    return told == wanted


@pytest.mark.parametrize("name", _NAMES)
def test_every_step_ends_as_it_was_recorded(stage: Sandbox, name: str) -> None:
    ns = stage.namespace(name)
    recorded: dict[str, str] = {}
    for position, step in enumerate(_RECORDINGS[name]["steps"]):
        for change in step["states"]:
            recorded = {key: value for key, value in (recorded | change).items() if value is not None}
        wanted, body = _comparable(recorded), _object(step, stage)
        if position:
            _put(ns, body)
        else:
            stage.post(ns.path, body)
        ns.wait(f"{step['step']}: {wanted}", partial(_says, wanted))
    ns.delete()
