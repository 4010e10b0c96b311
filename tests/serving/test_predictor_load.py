from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from components.images import image
from kanary.errors import ConfigError, ModelError
from kanary.modelspec import REFERENCE, RELEASE, SPEC, WEIGHTS, file_sha256
from sandbox.kserve import runtimes
from sandbox.kubernetes import schema, validation
from sandbox.modelserver.command import command
from sandbox.modelserver.spec import Spec
from serving.predictor.load import expected_digest, load, locate
from serving.predictor.server import cores, told_threads
from serving.predictor.settings import settings
from tests.serving.predictor_rig import NUMERIC, ROOT, write_model

MANIFESTS = ROOT / "serving" / "manifests"


def test_the_digest_asked_for_is_the_digest_loaded(tmp_path: Path) -> None:
    spec = write_model(tmp_path / "model")
    assert load(tmp_path / "model", digest=spec.digest()).version == spec.version
    with pytest.raises(ModelError, match="not the model expected"):
        load(tmp_path / "model", digest="sha256:" + "0" * 64)


def test_a_release_says_which_model_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    digest = write_model(folder).digest()
    (folder / RELEASE).write_text(json.dumps({"digest": digest}), encoding="utf-8")
    assert expected_digest(folder, "") == digest
    assert load(folder).predictor.spec.digest() == digest
    with pytest.raises(ModelError, match="not the release expected"):
        load(folder, digest="sha256:" + "0" * 64)
    other = write_model(tmp_path / "other", seed=1)
    for name in (SPEC, *other.files):
        (tmp_path / "other" / name).replace(folder / name)
    with pytest.raises(ModelError, match="not the model expected"):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"digest": 3}', "[" * 5000, "null"])
def test_a_release_that_says_nothing_is_not_served(tmp_path: Path, text: str) -> None:
    write_model(tmp_path)
    (tmp_path / RELEASE).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="holds no digest"):
        load(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, REFERENCE])
def test_an_altered_file_is_not_served(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "model")
    path = tmp_path / "model" / name
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ModelError, match=name):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("rows", "why"), [({"height": [1.0]}, "lacks the columns leaves"), ({"height": []}, "holds no row")]
)
def test_reference_rows_that_do_not_fit_are_not_served(tmp_path: Path, rows: dict[str, list[float]], why: str) -> None:
    features = NUMERIC if rows["height"] else NUMERIC[:1]
    spec = write_model(tmp_path, features)
    pq.write_table(pa.table(rows), tmp_path / REFERENCE)
    files = {**spec.files, REFERENCE: file_sha256((tmp_path / REFERENCE).read_bytes())}
    (tmp_path / SPEC).write_text(dataclasses.replace(spec, files=files).to_json(), encoding="utf-8")
    with pytest.raises(ModelError, match=why):
        load(tmp_path)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model\.json"):
        locate(tmp_path)
    write_model(tmp_path / "a")
    write_model(tmp_path / "b")
    with pytest.raises(ModelError, match=r"no model\.json"):
        locate(tmp_path)


def test_the_environment_says_what_the_command_line_does_not() -> None:
    assert settings([], {}).host == "127.0.0.1"
    assert settings([], {"KANARY_HOST": "0.0.0.0"}).host == "0.0.0.0"
    assert settings([], {"KANARY_HOST": "0.0.0.0", "HOST": "127.0.0.1"}).host == "127.0.0.1"
    assert settings(["--host=::1"], {"HOST": "127.0.0.1"}).host == "::1"
    assert settings([], {"KANARY_MODEL_DIGEST": "sha256:1"}).digest == "sha256:1"
    assert settings(["--digest=sha256:2"], {"KANARY_MODEL_DIGEST": "sha256:1"}).digest == "sha256:2"
    assert settings([], {}).max_body_bytes == 10 * 1024 * 1024


def test_what_is_not_offered_is_refused() -> None:
    with pytest.raises(ConfigError):
        settings(["--workers=2"], {})


@pytest.mark.parametrize(
    "option", ["--http_port=70000", "--http_port=-1", "--http_prt=1", "--enable_grpc=perhaps", "--grpc_port=x"]
)
def test_a_wrong_option_is_an_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        settings([option], {})
    assert leaving.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err


def test_the_threads_are_those_told() -> None:
    assert told_threads({"OMP_NUM_THREADS": "3"}) == 3
    for text in ("", "0", "many", "-1", "²"):
        assert told_threads({"OMP_NUM_THREADS": text}) == 0
    assert 1 <= cores() <= 4


@pytest.mark.parametrize("name", ["servingruntime", "clusterservingruntime"])
def test_the_runtime_makes_a_model_format_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = manifests(name)
    for document in documents:
        assert not validation.faults(document, schema.load(f"V1alpha1{document['kind']}", builtin=False))
    available = runtimes.runtimes(documents, []) if name == "servingruntime" else runtimes.runtimes([], documents)
    model = {"modelFormat": {"name": "kanary"}, "storageUri": "file:///releases/plants/1"}
    for wanted in (model, model | {"modelFormat": {"name": "kanary", "version": "1"}, "protocolVersion": "v2"}):
        runtime = runtimes.choose(wanted, available)
        container = runtimes.fill(runtimes.container(runtime, wanted), {"name": "plants", "namespace": "team"})
    assert runtime.name == "kanary-torch"
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    spec = Spec("team/plants-00001", "uid", tuple(container["command"]), tuple(container["args"]), environment)
    ready = command(spec, 4321, Path("/some/model"))
    assert ready.module == "serving.predictor"
    wanted_settings = settings(ready.module_argv, ready.env)
    assert (wanted_settings.model_name, wanted_settings.http_port) == ("plants", 4321)
    assert wanted_settings.model_dir == Path("/some/model")
    assert wanted_settings.host == "127.0.0.1"
    assert settings(container["args"], environment).host == "0.0.0.0"
    for variable in [key for key in os.environ if key.startswith("KANARY_IMAGE")]:
        monkeypatch.delenv(variable)
    assert container["image"] == image("serve")
    assert runtime.preload == ("serving.predictor.preload",)


def test_a_service_that_wants_grpc_gets_the_runtime_that_speaks_it() -> None:
    model = {"modelFormat": {"name": "kanary"}, "storageUri": "file:///plants", "protocolVersion": "grpc-v2"}
    runtime = runtimes.choose(model, runtimes.runtimes([], manifests("clusterservingruntime")))
    container = runtimes.fill(runtimes.container(runtime, model), {"name": "plants", "namespace": "team"})
    assert runtime.name == "kanary-torch-grpc"
    assert container["ports"] == [{"name": "h2c", "containerPort": 8081, "protocol": "TCP"}]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    in_cluster = settings(container["args"], environment)
    assert (in_cluster.enable_grpc, in_cluster.grpc_port, in_cluster.http_port) == (True, 8081, 8080)
    argv = tuple(container["command"]), tuple(container["args"])
    spec = Spec("team/plants-00001", "uid", *argv, environment, port=8081, metrics_port=8080)
    ready = command(spec, 4321, Path("/some/model"), 5432)
    here = settings(ready.module_argv, ready.env)
    assert (here.host, here.grpc_port, here.http_port) == ("127.0.0.1", 4321, 5432)


def test_both_runtimes_are_the_same_but_for_their_kind() -> None:
    namespaced, cluster = manifests("servingruntime"), manifests("clusterservingruntime")
    assert [document.pop("kind") for document in namespaced] == ["ServingRuntime"] * 2
    assert [document.pop("kind") for document in cluster] == ["ClusterServingRuntime"] * 2
    assert namespaced == cluster


def manifests(name: str) -> list[dict[str, Any]]:
    """The runtimes in a file of that name: over HTTP, and over gRPC."""
    return list(yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")))
