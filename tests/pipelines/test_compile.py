"""Compilation: deterministic, accepted by kfp, with images that are built here and no path of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kanary.errors import ConfigError
from pipelines import compile as compilation


def compiled(folder: Path, *options: str) -> dict[str, Any]:
    assert compilation.main(["--out", str(folder), *options]) == 0
    spec: dict[str, Any] = next(iter(yaml.safe_load_all((folder / "training.yaml").read_text(encoding="utf-8"))))
    return spec


def test_the_steps_run_in_images_of_ours(tmp_path: Path) -> None:
    images = set(compilation.images(compiled(tmp_path)))
    assert {image.rpartition("/")[2].partition(":")[0] for image in images} == {"pipeline", "train"}


def test_images_are_pinned_by_the_environment(tmp_path: Path) -> None:
    digest = "registry.example/ml/train@sha256:" + "0" * 64
    command = [sys.executable, "-P", "-m", "pipelines.compile", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env={"KANARY_IMAGE_TRAIN": digest, "PATH": ""}, timeout=60)
    assert digest in set(compilation.images(yaml.safe_load((tmp_path / "training.yaml").read_text(encoding="utf-8"))))


def test_the_training_step_asks_for_the_resources_it_was_given(tmp_path: Path) -> None:
    spec = compiled(tmp_path, "--train-gpus", "2", "--train-cpu", "4", "--train-memory", "8G")
    asked = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert asked["accelerator"] == asked["accelerator"] | {"resourceType": "nvidia.com/gpu", "resourceCount": "2"}
    assert (asked["resourceCpuLimit"], asked["resourceMemoryLimit"]) == ("4", "8G")


@pytest.mark.parametrize("options", [["--train-memory", "lots"], ["--train-gpus", "-1"]])
def test_impossible_resources_are_refused_and_the_old_file_stays(tmp_path: Path, options: list[str]) -> None:
    compiled(tmp_path)
    before = (tmp_path / "training.yaml").read_bytes()
    assert compilation.main(["--out", str(tmp_path), *options]) == 2
    assert (tmp_path / "training.yaml").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["monitoring.yaml", "rollout.yaml", "training.yaml"]


def test_steps_that_reach_outside_are_never_cached(tmp_path: Path) -> None:
    spec = compiled(tmp_path)
    tasks = spec["root"]["dag"]["tasks"] | spec["components"]["comp-condition-1"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached.isdisjoint({"ingest", "validate", "package"})
    assert "train" in cached


def test_what_moves_traffic_is_never_cached(tmp_path: Path) -> None:
    compiled(tmp_path)
    for name in ("rollout", "training"):
        spec = next(iter(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text(encoding="utf-8"))))
        dags = [spec["root"], *spec["components"].values()]
        tasks = {key: task for dag in dags for key, task in dag.get("dag", {}).get("tasks", {}).items()}
        acting = {key: task for key, task in tasks.items() if key.partition("-")[0] in ("fetch", "deploy", "rollout")}
        assert {"deploy", "rollout"} <= acting.keys()
        for key, task in acting.items():
            assert not task.get("cachingOptions", {}).get("enableCache"), (name, key)


def test_check_tells_what_is_missing_stale_or_true(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compilation.main(["--out", str(tmp_path), "--check"]) == 1
    assert "missing" in capfd.readouterr().out
    compiled(tmp_path)
    assert compilation.main(["--out", str(tmp_path), "--check"]) == 0
    with (tmp_path / "training.yaml").open("a", encoding="utf-8") as file:
        file.write("# touched\n")
    assert compilation.main(["--out", str(tmp_path), "--check"]) == 1
    assert "out of date" in capfd.readouterr().out


@pytest.mark.parametrize("planted", [f"{Path.home()}/data.csv", "file:///data.csv"])
def test_a_local_path_in_the_yaml_is_refused(tmp_path: Path, planted: str) -> None:
    compiled(tmp_path)
    path = tmp_path / "training.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("defaultValue: random", f"defaultValue: {planted}"), encoding="utf-8")
    with pytest.raises(ConfigError, match="a path of this machine"):
        compilation.verify(path)


def test_a_foreign_image_is_refused(tmp_path: Path) -> None:
    compiled(tmp_path)
    path = tmp_path / "training.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("localhost/kanary/train:", "docker.io/someone/train:"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"docker\.io/someone/train"):
        compilation.verify(path)
