"""`kanary web`: a real server, asked over HTTP and a WebSocket as a browser does, and as nobody may."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from kanary import config
from kanary.cli import main
from kanary.commands.web import command
from kanary.errors import KanaryError

ROOT = Path(__file__).parents[2]
FLAGS = ["--kubeconfig", "none", "--endpoint", "http://127.0.0.1:9", "--prometheus-selectors", "a=b,c=d e"]


def test_the_monitor_gets_the_flags_that_were_given_and_nothing_is_changed_unless_told(tmp_path: Path) -> None:
    given = {
        "kfp_endpoint": "http://h:1",
        "prometheus_selectors": "a=b,c=d e",
        "readonly": False,
        "home": str(tmp_path),
    }
    made = config.load(given, {"HOME": str(tmp_path), "KANARY_TIMEOUT": "3", "KANARY_COOKIE": "hush"}, tmp_path)
    line = command(made, ["--theme", "kanary"])
    assert line.startswith("exec ")
    assert line.endswith("-m kanary monitor --home=" + str(tmp_path) + " --endpoint=http://h:1 --no-readonly "
                         "'--prometheus-selectors=a=b,c=d e' --theme kanary")  # fmt: skip
    assert "hush" not in line


def test_without_its_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    assert main(["web", "--port", "0"]) == KanaryError.exit_code
    assert 'pip install "kanary[web]"' in capsys.readouterr().err


def test_an_option_that_the_monitor_does_not_know_is_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("textual_serve")
    with pytest.raises(SystemExit):
        main(["web", "--thme", "kanary"])
    assert "--thme" in capsys.readouterr().err


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server and the address that it printed."""
    line = [sys.executable, "-P", "-m", "kanary", "web", "--port", "0", *FLAGS, *options]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder)}
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ, cwd=folder
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        for child in psutil.Process(process.pid).children() if process.poll() is None else ():
            child.kill()
        process.kill()
        process.wait()


async def test_a_browser_sees_the_monitor_read_only_and_nobody_else_does(tmp_path: Path) -> None:
    pytest.importorskip("textual_serve")
    aiohttp = pytest.importorskip("aiohttp")
    with served(tmp_path) as (process, address):
        base = address.partition("/?")[0]
        socket = f"{base}/ws?width=120&height=30"
        async with aiohttp.ClientSession() as stranger:
            for path in ("/", "/?key=guess", "/static/js/textual.js", "/ws"):
                assert (await stranger.get(base + path)).status == 403, path
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            assert (await browser.get(address, headers={"Host": "evil.example"})).status == 403
            page = await browser.get(address)
            assert (page.status, page.url.path_qs) == (200, "/")
            assert "font-src 'self'" in page.headers["Content-Security-Policy"]
            cookie = page.history[0].headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await browser.ws_connect(socket, origin="http://evil.example")
            assert refused.value.status == 403
            async with browser.ws_connect(socket, origin=base) as screen:
                await said(screen, b"READ-ONLY")
                for key in "2R":
                    await screen.send_str(json.dumps(["stdin", key]))
                await said(screen, b"Roll back is refused")
                (child,) = psutil.Process(process.pid).children()
                process.kill()  # it cannot tell its monitor
                process.wait()
                await asyncio.to_thread(gone, child)


def test_an_interrupt_ends_the_server_and_its_pages_quietly(tmp_path: Path) -> None:
    pytest.importorskip("textual_serve")
    with served(tmp_path, "--writable") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0


async def said(screen: Any, text: bytes) -> None:
    """Waits until the page was sent that text."""
    got, deadline = b"", time.monotonic() + 60
    while text not in got:
        assert time.monotonic() < deadline, got[-3000:]
        message = await screen.receive(timeout=60)
        assert isinstance(message.data, bytes | str), message
        got += message.data if isinstance(message.data, bytes) else message.data.encode()


def gone(process: psutil.Process) -> None:
    process.wait(40)
