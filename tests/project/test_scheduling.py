"""Tests that share a sandbox run in one worker, whatever pytest and xdist make of their names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests import scheduling

ROOT = Path(__file__).parents[2]
CONFTEST = """
import scheduling

def pytest_collection_modifyitems(items):
    scheduling.in_order(items)

def pytest_xdist_make_scheduler(config, log):
    return scheduling.scheduler(config, log)
"""
TESTS = "import pytest\n\n@pytest.mark.parametrize('text', ['a', '::', '[@b]', '/'])\ndef test(text): pass\n"


def test_folders_that_share_something_and_modules_stay_in_one_worker(tmp_path: Path) -> None:
    (tmp_path / "scheduling.py").write_bytes(Path(scheduling.__file__).read_bytes())
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    shared = scheduling.TOGETHER[0]
    modules = ["tests/alone/test_a.py", "tests/alone/test_b.py", f"{shared}test_c.py", f"{shared}test_d.py"]
    for module in modules:
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).write_text(TESTS, encoding="utf-8")
    options = re.search(r"-m pytest (.*) \$\(ARGS\)", (ROOT / "Makefile").read_text("utf-8"))
    assert options is not None
    command = [sys.executable, "-m", "pytest", *options[1].split(), "-n", "2", "--import-mode=importlib", "-v"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=250
    )
    ran = re.findall(r"\[(gw\d)\] .*PASSED (\S+?)::", done.stdout)
    assert sorted(path for _, path in ran) == sorted(4 * modules), done.stdout
    workers: dict[str, set[str]] = {}
    for worker, path in ran:
        workers.setdefault(scheduling.scope(path), set()).add(worker)
    assert workers.keys() == {*modules[:2], shared}
    assert all(len(found) == 1 for found in workers.values()), workers


def test_every_folder_of_those_is_there() -> None:
    assert [folder for folder in scheduling.TOGETHER if not (ROOT / folder).is_dir()] == []
