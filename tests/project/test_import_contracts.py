"""The layers of DESIGN hold, and the contracts that say so bite."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kanary", "components", "pipelines", "serving", "sandbox", "tui")

# One breach of each contract, each within a function: (file, what it imports, the contract that forbids it).
BREACHES = (
    ("kanary/breach_upwards.py", "import components.breach_server", "Layers:"),
    ("tui/breach_sideways.py", "import serving", "tui imports none of ours but kanary"),
    ("sandbox/breach_types.py", "import kanary.errors", "sandbox imports none of ours"),
    ("pipelines/breach_sandbox.py", "import sandbox.errors", "nobody imports sandbox"),
    ("kanary/breach_heavy.py", "import torch", "kanary and tui load nothing heavy"),
    (
        "components/breach_server.py",
        "import serving.breach_predictor",
        "components use serving.model and the drift detectors, never a server",
    ),
    ("components/breach_framework.py", "import kserve", "components load no server framework"),
    ("serving/breach_predictor.py", "", ""),
    ("kanary/breach_cycle_a.py", "import kanary.breach_cycle_b", "no import cycles"),
    ("kanary/breach_cycle_b.py", "import kanary.breach_cycle_a", "no import cycles"),
)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [tool, "--no-cache"], cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(folder), "PATH": ""}
    )


def test_import_contracts_hold() -> None:
    answer = lint_imports(ROOT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_contract_is_broken_by_its_breach(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, imports, _ in BREACHES:
        body = f"def breach() -> None:\n    {imports}\n" if imports else ""
        (tmp_path / file).write_text(body, encoding="utf-8")
    answer = lint_imports(tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)(?: \(.*\))?$", answer.stdout, re.MULTILINE))
    assert len(verdicts) == len({contract for _, _, contract in BREACHES if contract})
    assert [name for name, verdict in verdicts.items() if verdict != "BROKEN"] == []
