"""Every command of the `kfp` CLI and every public method of kfp.Client stands in a table, with a test that uses it.

And the commands that ask no server are tried here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.test_conformance_tables import CODE, FILES, ROOT, Row, rows

README = ROOT / "sandbox" / "kfp" / "README.md"
TABLE = list(rows(README, README.read_text(encoding="utf-8")))
COMMANDS = {CODE.findall(row.behaviour)[0].removeprefix("kfp "): row for row in TABLE if "`kfp " in row.behaviour}
METHODS = {CODE.findall(row.behaviour)[0].removeprefix("Client."): row for row in TABLE if "`Client." in row.behaviour}


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    import click

    if not isinstance(group, click.Group):
        yield " ".join(words)
        return
    for name, command in group.commands.items():
        yield from commands(command, (*words, name))


def sources(row: Row) -> str:
    """The text of the tests that a row names."""
    found = ""
    for name in CODE.findall(row.tests):
        for path in (path for paths in FILES.values() for path in paths):
            text = path.read_text(encoding="utf-8")
            if f"def {name}(" in text:
                found += text.split(f"def {name}(")[1].split("\ndef ")[0]
    return found


def test_every_command_stands_in_the_table_and_is_used_by_its_test() -> None:
    from kfp.cli.cli import cli

    assert set(commands(cli)) == set(COMMANDS)
    for command, row in COMMANDS.items():
        quoted = ", ".join(f'"{word}"' for word in command.split())
        assert quoted in sources(row), f"{row.tests} does not use `kfp {command}`"


def test_every_method_of_the_client_stands_in_the_table_and_is_used_by_its_test() -> None:
    import kfp

    public = {name for name, _ in inspect.getmembers(kfp.Client, inspect.isfunction) if not name.startswith("_")}
    assert public == set(METHODS)
    for method, row in METHODS.items():
        assert f".{method}(" in sources(row), f"{row.tests} does not use kfp.Client.{method}"


COMPONENT = """
from kfp import dsl


@dsl.component(base_image="python:3.11", target_image="localhost/kanary/test:1")
def echo(text: str) -> str:
    return text


@dsl.pipeline(name="echo")
def pipeline(text: str):
    echo(text=text)
"""


def test_commands_that_ask_no_server_work_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner
    from kfp.cli.cli import cli

    monkeypatch.setenv("PATH", str(tmp_path))  # no gcloud, kubectl or docker to be asked
    (tmp_path / "echo.py").write_text(COMPONENT, encoding="utf-8")

    def run(*words: str) -> Any:
        return CliRunner().invoke(cli, ["--endpoint", "http://127.0.0.1:1", *words], obj={}, auto_envvar_prefix="KFP")

    compiled = tmp_path / "echo.json"
    done = run("dsl", "compile", "--py", str(tmp_path / "echo.py"), "--output", str(compiled), "--function", "pipeline")
    assert done.exit_code == 0, done.output
    assert json.loads(compiled.read_text(encoding="utf-8"))["pipelineInfo"]["name"] == "echo"
    done = run("component", "build", str(tmp_path), "--no-build-image", "--no-push-image")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "Dockerfile").exists()
    done = run("diagnose-me")
    assert "127.0.0.1" not in done.output + str(done.exception), "it asks gcloud and kubectl, and no KFP server"
