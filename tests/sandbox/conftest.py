"""One live KFP server for the tests of the API, and its stock clients."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.rig import TWO_STEPS, Cli


@pytest.fixture(scope="session")
def kfp_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def url(kfp_home: Path) -> Iterator[str]:
    """A server shared by these tests, stopped in order at the end."""
    (kfp_home / "logs").mkdir()
    with (kfp_home / "server.log").open("wb") as log:
        argv = [sys.executable, "-P", "-m", "sandbox.kfp", "--home", str(kfp_home), "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    assert server.stdout is not None
    with server.stdout as output:
        address = output.readline().removeprefix("listening on ").strip()
        assert address.startswith("http://127.0.0.1:"), (kfp_home / "server.log").read_text()
        yield address
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(address.rsplit(":", 1)[1]))) == errno.ECONNREFUSED


@pytest.fixture(scope="session")
def client(url: str) -> Any:
    import kfp

    return kfp.Client(host=url)


@pytest.fixture(scope="session")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{url}/apis/v2beta1", timeout=60) as connection:
        yield connection


@pytest.fixture(scope="session")
def cli(url: str) -> Cli:
    """The stock command line, in this process: it gives its output, and fails the test unless it ends well."""
    from click.testing import CliRunner
    from kfp.cli.cli import cli as command

    def run(*arguments: str, answer: str = "", status: int = 0) -> str:
        words = ["--endpoint", url, "--output", "json", *arguments]
        result = CliRunner().invoke(command, words, obj={}, auto_envvar_prefix="KFP", input=answer)
        assert result.exit_code == status, (arguments, result.output, result.exception)
        return str(result.output) + (str(result.exception) if result.exception else "")

    return run


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two steps, by the stock compiler: the second, fed by the first, fails while the file `blocker` exists.

    The first does not end while there is a file of that name with ".first" behind it.
    """
    from click.testing import CliRunner
    from kfp.cli.cli import cli as command

    folder = tmp_path_factory.mktemp("package")
    (folder / "two_steps.py").write_text(TWO_STEPS, encoding="utf-8")
    words = ["dsl", "compile", "--py", str(folder / "two_steps.py"), "--output", str(folder / "two-steps.yaml")]
    result = CliRunner().invoke(command, words, obj={})
    assert result.exit_code == 0, result.output
    return str(folder / "two-steps.yaml")


@pytest.fixture(scope="session")
def spec(package: str) -> dict[str, Any]:
    import yaml

    loaded: dict[str, Any] = yaml.safe_load(Path(package).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def submit(http: httpx.Client, spec: dict[str, Any], request: pytest.FixtureRequest) -> Callable[..., str]:
    def create(**parameters: Any) -> str:
        body = {
            "display_name": request.node.name,
            "pipeline_spec": spec,
            "runtime_config": {"parameters": {"text": "ab", **parameters}},
        }
        answer = http.post("/runs", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run_id"])

    return create
