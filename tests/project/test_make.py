"""The Makefile lists its targets, documents every one, and each says what it would do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (
    "setup", "demo", "test", "check", "compile", "submit", "up", "down", "monitor", "bench", "screenshots",
    "images", "soak", "clean",
)  # fmt: skip


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_make_alone_lists_the_targets() -> None:
    answer = make()
    assert answer.returncode == 0
    listed = re.findall(r"^  make (\S+) +\S", answer.stdout, re.MULTILINE)
    assert tuple(listed) == TARGETS


def test_every_target_is_documented_and_phony() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = set(re.findall(r"^([a-z]+):(?!=)", text, re.MULTILINE)) - {"help"}
    assert rules == set(TARGETS)
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == {"help", *TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_recipe_that_make_understands(target: str) -> None:
    answer = make("--dry-run", target)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()


@pytest.mark.parametrize(
    ("target", "extras"),
    [("demo", "pipelines,train,serve,sandbox"), ("test", "pipelines,train,serve,sandbox,drift,dev"), ("monitor", "")],
)
def test_a_target_sets_up_what_it_needs(target: str, extras: str) -> None:
    assert f'-m deploy.setup --extras "{extras}"' in make("--dry-run", target).stdout


def test_an_unknown_target_fails() -> None:
    assert make("nonsense").returncode == 2


def test_ci_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    steps = re.findall(r"^step (.+)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == ["make check", "make test"]
