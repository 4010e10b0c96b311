"""Which runtime serves a model, what its container becomes, and what of it makes a revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import InvalidSpec
from sandbox.kserve.config import Config
from sandbox.kserve.decide import Asked
from sandbox.kserve.knative import Document
from sandbox.kserve.manifests import load
from sandbox.kserve.predictor import wish
from sandbox.kserve.runtimes import NoRuntime, Runtime, choose, container, fill, runtimes
from tests.kserve.replay import URLS

_FORMAT = {"name": "torch", "version": "2", "autoSelect": True, "priority": 1}


def runtime(name: str, cluster: bool = False, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Runtime:
    values = {"supportedModelFormats": [_FORMAT], "containers": [{"name": "kserve-container", "command": ["python"]}]}
    return Runtime(name, values | spec, {}, created, cluster)


def model(**changes: Any) -> Document:
    return {"modelFormat": {"name": "torch"}, "storageUri": "/models/1"} | changes


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        ([runtime("cluster", cluster=True), runtime("own")], "own"),
        ([runtime("old"), runtime("new", created="2026-02-01T00:00:00Z")], "new"),
        ([runtime("b"), runtime("a")], "a"),
        ([runtime("a"), runtime("high", supportedModelFormats=[_FORMAT | {"priority": 9}])], "high"),
        ([runtime("a", protocolVersions=["v2", "v1"]), runtime("b", protocolVersions=["v1"])], "a"),
        ([runtime("a", protocolVersions=["v2"]), runtime("b", protocolVersions=["v1"])], "b"),
        ([runtime("a", disabled=True), runtime("b")], "b"),
        ([runtime("a", multiModel=True), runtime("b")], "b"),
        ([runtime("a", supportedModelFormats=[_FORMAT | {"autoSelect": False}]), runtime("b")], "b"),
    ],
)
def test_the_runtime_is_chosen_as_kserve_does(available: list[Runtime], chosen: str) -> None:
    assert choose(model(), available).name == chosen


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modelFormat": {"name": "other"}}, "NoSupportingRuntime"),
        ({"modelFormat": {"name": "torch", "version": "1"}}, "NoSupportingRuntime"),
        ({"runtime": "missing"}, "RuntimeNotRecognized"),
        ({"runtime": "off"}, "RuntimeDisabled"),
        ({"runtime": "on", "protocolVersion": "v2"}, "NoSupportingRuntime"),
        ({"runtime": "on", "modelFormat": {"name": "other"}}, "NoSupportingRuntime"),
    ],
)
def test_a_model_that_no_runtime_serves_is_refused_with_kserves_reason(changes: Document, reason: str) -> None:
    available = [runtime("off", disabled=True), runtime("on", protocolVersions=["v1"])]
    with pytest.raises(NoRuntime) as refused:
        choose(model(**changes), available)
    assert refused.value.failure == reason


def test_a_named_runtime_needs_no_auto_select() -> None:
    manual = runtime("manual", supportedModelFormats=[{"name": "torch"}])
    assert choose(model(runtime="manual"), [manual]).name == "manual"


def test_the_models_container_overrides_the_runtimes_and_adds_arguments() -> None:
    base = {
        "name": "kserve-container",
        "image": "server:1",
        "command": ["python"],
        "args": ["--a"],
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }
    own = model(
        args=["--b"],
        env=[{"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
        resources={"limits": {"cpu": "2"}},
        runtimeVersion="2",
    )
    merged = container(runtime("r", containers=[base]), own)
    assert merged["args"] == ["--a", "--b"]
    assert [(entry["name"], entry["value"]) for entry in merged["env"]] == [("A", "1"), ("B", "2"), ("C", "3")]
    assert merged["resources"] == {"limits": {"cpu": "2", "memory": "1Gi"}}
    assert merged["image"] == "server:2"
    assert "storageUri" not in merged


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("--model_name={{.Name}}", "--model_name=m"),
        ("{{ .Namespace }}/{{ .Name }}", "ns/m"),
        ("{{.Labels.team}}", 'a "quoted" one'),
        ('{{index .Annotations "a.b/c"}}', "x"),
        ("{{.Labels.none}}", "<no value>"),
    ],
)
def test_placeholders_are_filled_from_the_metadata(text: str, filled: str) -> None:
    metadata = {"name": "m", "namespace": "ns", "labels": {"team": 'a "quoted" one'}, "annotations": {"a.b/c": "x"}}
    assert fill({"args": [text]}, metadata) == {"args": [filled]}


def test_any_other_placeholder_is_an_error() -> None:
    with pytest.raises(ValueError, match="Spec"):
        fill({"args": ["{{.Spec.x}}"]}, {"name": "m"})


def service(predictor: Document, **metadata: Any) -> Document:
    return {"metadata": {"name": "m", "namespace": "ns"} | metadata, "spec": {"predictor": predictor}}


def wished(predictor: Document, **metadata: Any) -> Asked:
    document = {
        "metadata": {"name": "r", "annotations": {"kanary.dev/preload": "torch, kserve"}},
        "spec": runtime("r").spec,
    }
    return wish(service(predictor, **metadata), runtimes([], [document]), Config(), URLS).components["predictor"]


def digest(predictor: Document, **metadata: Any) -> str:
    found = wished(predictor, **metadata)
    assert found.template is not None, found.problem
    return found.template.digest


def test_what_a_template_is_made_of_makes_a_revision_and_the_percentage_does_not() -> None:
    base = digest({"model": model()})
    same = [
        digest({"model": model(), "canaryTrafficPercent": 10}),
        digest({"model": model()}, annotations={"kubectl.kubernetes.io/last-applied-configuration": "x"}),
        digest({"model": model()}, annotations={"modelFormat": "torch"}),
    ]
    other = [
        digest({"model": model(storageUri="/models/2")}),
        digest({"model": model(args=["--x"])}),
        digest({"model": model(), "minReplicas": 2}),
        digest({"model": model(), "timeout": 5}),
        digest({"model": model(), "serviceAccountName": "s"}),
        digest({"model": model(), "annotations": {"a": "of the predictor"}}),
        digest({"model": model()}, annotations={"a": "b"}),
        digest({"model": model()}, labels={"a": "b"}),
    ]
    assert set(same) == {base}
    assert len({base, *other}) == len(other) + 1


def test_the_runtimes_annotation_says_what_servers_are_forked_from() -> None:
    found = wished({"model": model()}).template
    assert found is not None
    assert found.preload == ("torch", "kserve")


def test_a_frameworks_own_field_is_a_model_of_that_format() -> None:
    found = wished({"pytorch": {"storageUri": "/models/1"}})
    assert found.problem is not None
    assert found.problem.event.endswith("model type: {pytorch <nil>}")


@pytest.mark.parametrize(
    ("predictor", "words"),
    [
        ({"containers": [{"name": "kserve-container", "image": "x"}]}, "has no command"),
        ({"model": model(), "containers": [{"name": "agent"}]}, "one container"),
        ({"model": model(storage={"key": "k"})}, "storageUri"),
        ({"model": model(env=[{"name": "A", "valueFrom": {}}])}, "valueFrom"),
        ({"model": model(), "workerSpec": {"x": 1}}, "workerSpec"),
    ],
)
def test_what_is_not_emulated_is_refused_by_name(predictor: Document, words: str) -> None:
    problem = wished(predictor).problem
    assert problem is not None
    assert problem.reason == "NotEmulated"
    assert words in problem.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no YAML"),
        ("kind: Pod", "applies"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {}", "metadata.name"),
    ],
)
def test_what_makes_no_manifest_is_refused_with_the_file(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidSpec, match=words) as refused:
        load(file)
    assert refused.value.where == str(file)
