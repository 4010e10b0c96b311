from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from kfp import dsl

from components.package.component import package as package_component
from components.package.release import Origin, publish, write_release
from kanary import modelspec
from kanary.errors import GateError, InputError, MissingExtra, ModelError
from kanary.modelspec import RELEASE, SPEC, WEIGHTS, ModelSpec
from serving.model.predict import Predictor
from tests.components.tables import QUICK, trained

PASSED = [{"metric": "accuracy", "value": 0.95, "expectation": "at least 0.9", "passed": True, "reason": "fine."}]
ORIGIN = Origin(run_name="nightly", run_id="r-1", data_sha256="d" * 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("package"), version="1.0")[0]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model that claims the same version."""
    from dataclasses import replace

    return trained(tmp_path_factory.mktemp("other"), version="1.0", settings=replace(QUICK, seed=1))[0]


def released(model: Path, directory: Path, **metrics: Any) -> ModelSpec:
    return write_release(model, directory, {"accuracy": 0.95, **metrics}, PASSED, ORIGIN)


def test_a_release_is_the_model_and_what_is_known_about_it(model: Path, tmp_path: Path) -> None:
    spec = released(model, tmp_path / "release", auc=float("nan"), store_session={"a": 1}, passed=True)
    release = json.loads((tmp_path / "release" / RELEASE).read_text(encoding="utf-8"))
    assert release == {
        "format": "kanary-release/1",
        "name": "plants",
        "version": "1.0",
        "digest": spec.digest(),
        "data": {"sha256": "d" * 64, "training_sha256": spec.lineage.data_sha256},
        "run": {"id": "r-1", "name": "nightly"},
        "metrics": {"accuracy": 0.95},
        "verdicts": PASSED,
    }
    assert Predictor.load(tmp_path / "release", modelspec.digest(model)).spec == spec


def test_what_did_not_pass_is_not_released(model: Path, tmp_path: Path) -> None:
    refused = {**PASSED[0], "passed": False, "reason": "accuracy is 0.5, below the minimum of 0.9."}
    for verdicts, told in (
        ([*PASSED, refused], "below the minimum"),
        ([], "no verdict"),
        ([{**PASSED[0], "passed": "yes"}], "not released"),
        ([{"metric": "accuracy"}], "not released"),
    ):
        with pytest.raises(GateError, match=told):
            write_release(model, tmp_path / "release", {}, verdicts, ORIGIN)
    assert not (tmp_path / "release").exists()


def test_an_altered_model_is_not_released(model: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    copied.mkdir()
    for file in model.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    (copied / WEIGHTS).write_bytes(b"other")
    with pytest.raises(ModelError, match=WEIGHTS):
        released(copied, tmp_path / "release")
    with pytest.raises(ModelError, match="not sha256:0"):
        write_release(model, tmp_path / "release", {}, PASSED, ORIGIN, expected_digest="sha256:0")
    assert not (tmp_path / "release").exists()


def test_publishing_the_same_again_changes_nothing(model: Path, tmp_path: Path) -> None:
    released(model, tmp_path / "release")
    uri = publish(tmp_path / "release", str(tmp_path / "all releases"))
    target = tmp_path / "all releases" / "plants" / "1.0"
    assert uri == f"file://{target}"
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in target.iterdir()}
    assert set(before) == {SPEC, WEIGHTS, "reference.parquet", RELEASE}
    assert publish(tmp_path / "release", f"file://{tmp_path}/all releases") == uri
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in target.iterdir()} == before
    assert os.listdir(target.parent) == ["1.0"]


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_another_model_under_the_same_version_is_refused(model: Path, other: Path, tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}://{tmp_path}/releases"
    first = released(model, tmp_path / "first")
    released(other, tmp_path / "second")
    where = publish(tmp_path / "first", uri)
    with pytest.raises(ModelError, match="another model under the version"):
        publish(tmp_path / "second", uri)
    filesystem, path = fsspec.core.url_to_fs(where)
    kept = modelspec.parse(filesystem.cat_file(f"{path}/{SPEC}").decode("utf-8"))
    assert kept.digest() == first.digest()


def test_a_damaged_release_is_not_taken_for_the_same(model: Path, tmp_path: Path) -> None:
    released(model, tmp_path / "release")
    publish(tmp_path / "release", str(tmp_path / "releases"))
    (tmp_path / "releases" / "plants" / "1.0" / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelError, match=WEIGHTS):
        publish(tmp_path / "release", str(tmp_path / "releases"))


def test_an_upload_cut_short_is_no_release_and_is_done_again(model: Path, tmp_path: Path) -> None:
    released(model, tmp_path / "release")
    uri = f"memory://{tmp_path}/releases"
    filesystem, root = fsspec.core.url_to_fs(uri)
    filesystem.pipe_file(f"{root}/plants/1.0/{WEIGHTS}", b"half")
    filesystem.pipe_file(f"{root}/plants/1.0/{SPEC}", b"{")
    where = publish(tmp_path / "release", uri)
    assert where == f"memory://{tmp_path}/releases/plants/1.0"
    assert filesystem.cat_file(f"{root}/plants/1.0/{WEIGHTS}") == (model / WEIGHTS).read_bytes()
    names = [entry["name"].rsplit("/", 1)[1] for entry in filesystem.ls(f"{root}/plants/1.0")]
    assert sorted(names) == sorted([SPEC, WEIGHTS, "reference.parquet", RELEASE])


def test_release_json_is_uploaded_last(model: Path, tmp_path: Path) -> None:
    released(model, tmp_path / "release")
    uri = f"memory://{tmp_path}/ordered"
    filesystem, path = fsspec.core.url_to_fs(publish(tmp_path / "release", uri))
    created = {entry["name"].rsplit("/", 1)[1]: entry["created"] for entry in filesystem.ls(path, detail=True)}
    assert max(created, key=lambda name: created[name]) == RELEASE


@pytest.mark.parametrize("uri", ["releases", "../releases", "nowhere://bucket", "minio://mlpipeline/releases"])
def test_a_place_that_cannot_be_is_refused(model: Path, tmp_path: Path, uri: str) -> None:
    released(model, tmp_path / "release")
    with pytest.raises(InputError, match="releases_uri is"):
        publish(tmp_path / "release", uri)


def test_a_place_that_cannot_be_written_is_named(model: Path, tmp_path: Path) -> None:
    released(model, tmp_path / "release")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written to"):
        publish(tmp_path / "release", str(tmp_path / "file"))


def test_a_missing_package_is_named(model: Path, tmp_path: Path) -> None:
    released(model, tmp_path / "release")
    with pytest.raises(MissingExtra, match="adlfs"):
        publish(tmp_path / "release", "abfs://container/releases")


def component(model: Path, folder: Path, releases_uri: str, digest: str | None = None) -> tuple[Any, dsl.Model]:
    release = dsl.Model(uri=str(folder / "release"))
    outputs = package_component.python_func(
        model=dsl.Model(uri=str(model), metadata={"digest": digest} if digest else {}),
        metrics=dsl.Metrics(uri=str(folder / "metrics"), metadata={"accuracy": 0.95}),
        release=release,
        verdicts=PASSED,
        releases_uri=releases_uri,
        run_id="r-2",
    )
    return outputs, release


def test_the_component_releases_and_says_where(model: Path, tmp_path: Path) -> None:
    digest = modelspec.digest(model)
    outputs, release = component(model, tmp_path, str(tmp_path / "releases"), digest)
    assert outputs == ("1.0", digest, f"file://{tmp_path}/releases/plants/1.0")
    assert release.metadata["digest"] == digest
    assert release.metadata["version"] == "1.0"
    modelspec.verify(tmp_path / "releases" / "plants" / "1.0", digest)
    outputs, _ = component(model, tmp_path / "again", "")
    assert outputs[2] == str(tmp_path / "again" / "release")
    with pytest.raises(SystemExit) as left:
        component(model, tmp_path / "third", "", "sha256:1")
    assert isinstance(left.value.__cause__, ModelError)
    assert "not sha256:1" in left.value.__cause__.message


def test_packaging_needs_no_torch(model: Path, tmp_path: Path) -> None:
    """Its image has none: what it imports must not."""
    script = (
        "import sys; from pathlib import Path; from components.package.release import Origin, publish, write_release; "
        f"write_release(Path({str(model)!r}), Path({str(tmp_path / 'r')!r}), {{}}, [{{'passed': True}}], Origin()); "
        f"publish(Path({str(tmp_path / 'r')!r}), {str(tmp_path / 'releases')!r}); "
        "print(sorted({'torch', 'safetensors', 'sklearn', 'kserve'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
