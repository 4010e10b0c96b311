"""`make images` builds the images that pipelines are compiled with, from one Containerfile."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from components.images import TARGETS, image
from deploy import images
from deploy.requirements import requirements

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
SCRIPT = [sys.executable, "-I", str(ROOT / "deploy" / "images.py")]


def test_the_containerfile_has_every_target_and_none_runs_as_root() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", CONTAINERFILE, re.MULTILINE | re.DOTALL))
    assert images.TARGETS == TARGETS
    for target in TARGETS:
        assert "\nUSER 65532:0\n" in stages[target]


@pytest.mark.parametrize(
    "environment",
    [{}, {"KANARY_IMAGE_PREFIX": "registry.example:5000/team/"}, {"KANARY_IMAGE_TAG": "v7"}],
    ids=["default", "prefix", "tag"],
)
def test_images_are_built_under_the_names_that_pipelines_compile(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KANARY_IMAGE_PREFIX", "KANARY_IMAGE_TAG", *(f"KANARY_IMAGE_{t.upper()}" for t in TARGETS)):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [images.image_name(target) for target in TARGETS] == [image(target) for target in TARGETS]


def test_a_pinned_name_is_one_that_pipelines_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    built = images.Image("train", "registry.example:5000/team/train:1", "sha256:" + "a" * 64)
    assert built.pinned == "registry.example:5000/team/train@sha256:" + "a" * 64
    monkeypatch.setenv("KANARY_IMAGE_TRAIN", built.pinned)
    assert image("train") == built.pinned
    assert f"  export KANARY_IMAGE_TRAIN={built.pinned}" in images.report([built], pushed=True)


def test_an_image_without_a_digest_goes_by_its_tag() -> None:
    built = images.Image("train", "localhost/kanary/train:1", "")
    assert "  export KANARY_IMAGE_TRAIN=localhost/kanary/train:1" in images.report([built], pushed=True)


def test_without_an_engine_it_says_what_to_install(tmp_path: Path) -> None:
    broken = tmp_path / "docker"  # a client whose daemon does not run
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    answer = subprocess.run(SCRIPT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "apt install podman" in answer.stdout


def test_an_unknown_target_is_refused() -> None:
    answer = subprocess.run([*SCRIPT, "trian"], capture_output=True, text=True)
    assert answer.returncode == 2
    assert "'trian'; there are pipeline, train, serve, drift" in answer.stderr


def test_the_images_layers_install_what_the_extras_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    train = requirements(project, "train")
    assert set(project["dependencies"]) < set(train)
    assert set(project["optional-dependencies"]["pipelines"]) < set(train)
    assert any(line.startswith("torch") for line in train)
    assert not any(line.startswith("kanary") for line in train)
    with pytest.raises(KeyError):
        requirements(project, "nonsense")


def test_the_build_gets_only_what_the_images_are_made_of() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert "*" in rules
    assert let_in == {
        "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "deploy/requirements.py",
        "kanary", "components", "pipelines", "serving", "sandbox", "tui",
    }  # fmt: skip
