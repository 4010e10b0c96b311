"""Every entry point starts in a user's folder that holds packages named like ours, and loads nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = [sys.executable, "-P"]
KANARY = [*PYTHON, "-m", "kanary"]
ENTRY_POINTS = (
    [*KANARY, "--version"],
    [*KANARY, "--help"],
    [*KANARY, "info"],
    [*KANARY, "up", "--help"],
    [*KANARY, "down", "--help"],
    [*KANARY, "runs", "--help"],
    [*KANARY, "run", "--help"],
    [*KANARY, "submit", "--help"],
    [*KANARY, "monitor", "--help"],
    [*PYTHON, "-m", "pipelines.compile", "--help"],
    [*PYTHON, "-m", "pipelines.compile", "--out", "compiled"],
    [*PYTHON, "-m", "sandbox", "--help"],
    [*PYTHON, "-m", "sandbox", "info"],
)
HEAVY = ("torch", "kfp", "kserve", "pandas", "alibi_detect", "kubernetes", "numpy", "pyarrow", "sklearn")


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A folder whose own packages called like ours do not even import."""
    for package in ("kanary", "components", "pipelines", "serving", "sandbox", "tui"):
        (tmp_path / package).mkdir()
        for file in ("__init__.py", "__main__.py"):
            (tmp_path / package / file).write_text("raise RuntimeError('a decoy was imported')\n", encoding="utf-8")
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    """Ours, with a home folder of the test's and no setting of the user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KANARY_IMAGE", "KFP_", "XDG_"))}
    kept["HOME"] = kept["KANARY_HOME"] = str(home)
    return kept


@pytest.mark.parametrize("command", ENTRY_POINTS, ids=lambda command: " ".join(command[2:]))
def test_starts_beside_decoys(command: list[str], decoys: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    answer = subprocess.run(command, cwd=decoys, env=environment(home), capture_output=True, text=True)
    assert "decoy" not in answer.stderr + answer.stdout
    assert "Traceback" not in answer.stderr
    # `sandbox info` says by its status that none runs.
    assert answer.returncode == 0 or "info" in command, answer.stderr
    assert answer.stdout or answer.stderr


def test_the_installed_command_starts_beside_decoys(decoys: Path) -> None:
    script = Path(sys.executable).with_name("kanary")
    if not script.exists():
        pytest.skip("kanary is not installed in this environment, only on its path")
    answer = subprocess.run([script, "--version"], cwd=decoys, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("kanary ")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["info"], ["monitor", "--help"], ["runs", "--help"]])
def test_kanary_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from kanary.cli import main\n"
        "try:\n"
        "    main(sys.argv[2:])\n"
        "except SystemExit:\n"
        "    pass\n"
        "open(sys.argv[1], 'w').write(json.dumps(sorted(name for name in sys.modules if '.' not in name)))\n"
    )
    loaded = tmp_path / "loaded.json"
    command = [*PYTHON, "-c", code, str(loaded), *arguments]
    subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), check=True, stdout=subprocess.DEVNULL)
    modules = json.loads(loaded.read_text(encoding="utf-8"))
    assert "kanary" in modules
    assert [name for name in HEAVY if name in modules] == []
