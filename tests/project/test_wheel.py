"""What `pip install kanary` puts into an environment."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from kanary import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_exactly_the_six_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    packages = {"kanary", "components", "pipelines", "serving", "sandbox", "tui"}
    assert tops == {*packages, f"kanary-{__version__}.dist-info"}
    assert {f"{package}/__init__.py" for package in packages} <= set(wheel.namelist())


def test_the_wheel_holds_every_file_of_the_packages_that_git_knows(wheel: zipfile.ZipFile) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "kanary", "components", "pipelines", "serving", "sandbox", "tui"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert files - set(wheel.namelist()) == set()


def test_the_wheel_carries_its_licence_its_command_and_its_extras(wheel: zipfile.ZipFile) -> None:
    info = f"kanary-{__version__}.dist-info"
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"kanary": "kanary.cli:main"}
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    extras = {"pipelines", "train", "serve", "drift", "sandbox", "web", "dev"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    assert metadata["License-Expression"] == "Apache-2.0"
