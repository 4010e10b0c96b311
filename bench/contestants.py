"""The servers that are measured: how each is started, spoken to and stopped, and what it takes of the machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.census import NAME
from bench.peers.environments import ROOT, Unavailable, prepare

Row = Mapping[str, Any]
Answer = tuple[str, tuple[float, ...]]
"""A label and the probabilities of all classes, in the order of the model's."""

OURS, STOCK = "kanary", "kserve"
PROTOCOLS = ("v1", "v2")
_V1 = {"v1": f"/v1/models/{NAME}:predict"}
_V2 = {"v2": f"/v2/models/{NAME}/infer"}
_DEADLINE_S = 120.0
_PORTS = ("port", "port2", "port3")


@dataclass(frozen=True)
class Contestant:
    """A server: in its command and environment, {port}, {port2}, {port3} stand for free ports, {home} for its folder.

    `routes` holds a path for each protocol that it speaks. `files` are written into the folder that it runs in.
    """

    name: str
    command: tuple[str, ...]
    routes: Mapping[str, str]
    environment: Mapping[str, str]
    files: Mapping[str, str]


@dataclass(frozen=True)
class Server:
    """A contestant that answers; `cold_start_s` is from spawning it to its first good prediction."""

    contestant: Contestant
    process: subprocess.Popen[bytes]
    port: int
    cold_start_s: float

    def url(self, protocol: str) -> str:
        """Where its predictions are."""
        return f"http://127.0.0.1:{self.port}{self.contestant.routes[protocol]}"

    def cpu_s(self) -> float:
        """Seconds of CPU that its living processes have used."""
        times = [process.cpu_times() for process in _tree(self.process.pid)]
        return sum(time.user + time.system for time in times)

    def memory(self) -> tuple[float, float, int]:
        """MiB resident, MiB with what processes share counted once (PSS), and the number of processes."""
        found = [process.memory_full_info() for process in _tree(self.process.pid)]
        return sum(info.rss for info in found) / 2**20, sum(info.pss for info in found) / 2**20, len(found)


def ours(model: Path, name: str = OURS, *arguments: str) -> Contestant:
    """`python -m serving.predictor` as its ServingRuntime starts it, with more `arguments` where a variant has them."""
    command = (sys.executable, "-P", "-m", "serving.predictor", f"--model_name={NAME}", f"--model_dir={model}")
    return Contestant(name, (*command, "--http_port={port}", *arguments), _V1 | _V2, {}, {})


def stock() -> Contestant:
    """KServe's own server around a plain model."""
    command = (sys.executable, "-P", "-m", "bench.peers.stock", f"--model_name={NAME}")
    return Contestant(STOCK, (*command, "--http_port={port}", "--grpc_port={port2}"), _V1 | _V2, {}, {})


def peer(name: str, say: Callable[[str], None]) -> Contestant:
    """Another server in its own environment, which is made where there is none. Raises Unavailable."""
    folder = prepare(name, say)
    python = (str(folder / "python"), "-P", "-m")
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    if name == "litserve":
        return Contestant(name, (*python, "bench.peers.litserve_server"), {"v1": "/predict"}, environment, {})
    if name == "bentoml":
        command = (*python, "bentoml", "serve", "bench.peers.bentoml_service:Census", "--host", "127.0.0.1")
        quiet = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{home}"}
        options = ("--port", "{port}", "--working-dir", str(ROOT))
        return Contestant(name, (*command, *options), {"v1": "/predict"}, environment | quiet, {})
    from bench.peers.answers import MOST_ROWS, WAIT_S

    settings = {
        "name": NAME,
        "implementation": "bench.peers.mlserver_model.Census",
        "max_batch_size": MOST_ROWS,
        "max_batch_time": WAIT_S,
    }
    ports = {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{port2}", "MLSERVER_METRICS_PORT": "{port3}"}
    return Contestant(
        name,
        (str(folder / "mlserver"), "start", "."),
        _V2,
        environment | ports | {"MLSERVER_HOST": "127.0.0.1"},
        {"model-settings.json": json.dumps(settings)},
    )


@contextlib.contextmanager
def running(contestant: Contestant, model: Path, folder: Path, row: Row) -> Iterator[Server]:
    """The contestant, ended with the block with all its processes. Raises Unavailable where it predicts nothing."""
    home = folder / contestant.name
    home.mkdir(exist_ok=True)
    for name, text in contestant.files.items():
        (home / name).write_text(text, encoding="utf-8")
    blanks = dict(zip(_PORTS, map(str, _free_ports(len(_PORTS))), strict=True)) | {"home": str(home)}
    environment = {name: value for name, value in os.environ.items() if name not in ("HOST", "KANARY_HOST")}
    environment |= {name: value.format(**blanks) for name, value in contestant.environment.items()}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",  # a row is too little to share out among cores; the same for every server
        "KANARY_BENCH_MODEL": str(model),
        "KANARY_BENCH_PORT": blanks["port"],
    }
    command = [word.format(**blanks) for word in contestant.command]
    log = home / "log"
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=home,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
    try:
        server = Server(contestant, process, int(blanks["port"]), 0.0)
        protocol = next(iter(contestant.routes))
        _wait_for_answer(server, protocol, row, log)
        yield Server(contestant, process, int(blanks["port"]), time.perf_counter() - started)
    finally:
        _end(process)


def encode(protocol: str, rows: Sequence[Row]) -> str:
    """A request for predictions of the rows: V1 instances, or V2 tensors of a feature each."""
    if protocol == "v1":
        return json.dumps({"instances": list(rows)})
    kinds = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
    inputs = [
        {"name": name, "datatype": kinds[type(value)], "shape": [len(rows), 1], "data": [row[name] for row in rows]}
        for name, value in rows[0].items()
    ]
    return json.dumps({"inputs": inputs})


def decode(protocol: str, body: str | bytes, classes: Sequence[str]) -> list[Answer]:
    """The answers in a response, of whichever server. Raises ValueError, KeyError or TypeError for anything else."""
    document = json.loads(body)
    if protocol == "v1":
        found = document["predictions"] if isinstance(document, dict) else document
        return [(row["label"], tuple(row["probabilities"][name] for name in classes)) for row in found]
    outputs = {output["name"]: output["data"] for output in document["outputs"]}
    flat, width = outputs["probabilities"], len(classes)
    return [(label, tuple(flat[at * width : (at + 1) * width])) for at, label in enumerate(outputs["label"])]


def same(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    """Whether labels are equal and probabilities equal to 1e-6."""
    return len(one) == len(other) and all(
        a[0] == b[0] and all(math.isclose(x, y, rel_tol=0, abs_tol=1e-6) for x, y in zip(a[1], b[1], strict=True))
        for a, b in zip(one, other, strict=True)
    )


def ask(url: str, body: str) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("POST", f"/{path}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _wait_for_answer(server: Server, protocol: str, row: Row, log: Path) -> None:
    url, body = server.url(protocol), encode(protocol, [row])
    end, found = time.monotonic() + _DEADLINE_S, "nothing listens"
    while time.monotonic() < end and server.process.poll() is None:
        try:
            status, answer = ask(url, body)
        except (OSError, http.client.HTTPException) as error:
            found = repr(error)
        else:
            if status == 200:
                return
            found = f"{status} {answer[:200]!r}"
        time.sleep(0.01)
    text = log.read_text(encoding="utf-8", errors="replace").strip()[-400:]
    ended = server.process.poll()
    what = f"it ended with {ended}" if ended is not None else f"no prediction within {_DEADLINE_S:g} s ({found})"
    raise Unavailable(f"{what}; its log ends: {text}")


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to leave; end what is left of it and its children."""
    tree: list[psutil.Process] = []
    try:
        tree = _tree(process.pid)
        process.terminate()
        process.wait(15)
        psutil.wait_procs(tree, 2)
    except (psutil.NoSuchProcess, subprocess.TimeoutExpired):
        pass
    finally:
        for left in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(15)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago: not every server can be told to take any."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
