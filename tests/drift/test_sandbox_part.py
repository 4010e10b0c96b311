"""The sandbox runs the detector where it is asked to, has it scraped, and says why where it cannot run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.parts import filled, parts
from sandbox.prometheus.config import configuration


def test_it_is_a_part_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARY_DRIFT_OPTIONS", "--window_rows 300 --requests_query 'sum by (a) (b)'")
    assert "drift" not in {part.name for part in parts()}
    named = {part.name: part for part in parts(drift=True)}
    part = named["drift"]
    assert not part.required
    ports = {"drift": {"http": 7}, "prometheus": {"http": 8}, "gateway": {"admin": 9}}
    words = [filled(word, Path("/home"), ports) for word in part.argv]
    assert words[words.index("--home") + 1] == "/home/drift"
    assert words[words.index("--prometheus") + 1] == "http://127.0.0.1:8"
    assert words[-3:] == ["300", "--requests_query", "sum by (a) (b)"]
    assert "{drift.http}" in named["prometheus"].argv


def test_prometheus_scrapes_it_and_believes_whose_numbers_it_names(tmp_path: Path) -> None:
    assert "drift" not in {job["job_name"] for job in configuration(tmp_path, 9, 1.0)["scrape_configs"]}
    jobs = {job["job_name"]: job for job in configuration(tmp_path, 9, 1.0, 7)["scrape_configs"]}
    assert jobs["drift"]["honor_labels"]
    assert jobs["drift"]["static_configs"] == [{"targets": ["127.0.0.1:7"]}]


def test_without_alibi_detect_it_says_what_to_install_and_is_done_without(tmp_path: Path) -> None:
    as_if = (
        "import runpy, sys; sys.modules['alibi_detect'] = None; runpy.run_module('serving.drift', run_name='__main__')"
    )
    command = [sys.executable, "-P", "-c", as_if, "--home", str(tmp_path), "--port", "0"]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": root}, timeout=120)
    assert done.returncode == 78  # the supervisor's word for "starting again will not help"
    assert "pip install 'kanary[drift]'" in done.stderr
