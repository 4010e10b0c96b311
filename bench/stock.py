"""KServe's own server around a release of ours, from cold: `measure` times it. Nothing of the sandbox is in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.gateway.rig import free_ports
from tests.rollout.rig import BODIES, ROOT
from tests.waiting import wait_for

NAME = "flowers"
# Not `-m`: `make bench` takes every module that can be run so for a benchmark.
_COMMAND = (sys.executable, "-P", "-c", "from bench.stock import main; main()")
_FOLDER = "KANARY_BENCH_MODEL"


def cold_start_s(model: Path, log: Path) -> float:
    """Seconds from spawning the server to its first prediction; the server is ended."""
    (port,) = free_ports(1)
    command = [*_COMMAND, f"--model_name={NAME}", f"--http_port={port}", "--enable_grpc=false"]
    environment = {name: value for name, value in os.environ.items() if name != "HOST"}
    environment |= {"PYTHONPATH": str(ROOT), _FOLDER: str(model)}
    url = f"http://127.0.0.1:{port}/v1/models/{NAME}:predict"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or _answers(url), "the stock server answers", 120.0, 0.01)
        if process.poll() is not None:
            raise RuntimeError(f"the stock server ended: {log.read_text(encoding='utf-8')[-2000:]}")
        return time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.post(url, content=BODIES[0], timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def main() -> None:
    """Serve what the environment names, as KServe's documentation writes a server."""
    import kserve
    from kserve.model_server import args

    from serving.model.predict import Predictor

    class Plain(kserve.Model):  # type: ignore[misc]  # kserve carries no types
        """The model, and nothing around it."""

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.predictor = Predictor.load(os.environ[_FOLDER])
            self.ready = True

        def predict(self, payload: dict[str, Any], headers: dict[str, str] | None = None) -> dict[str, Any]:
            """A label for each instance."""
            rows = payload["instances"]
            columns = {f.name: [row[f.name] for row in rows] for f in self.predictor.spec.features}
            return {"predictions": self.predictor.labels(self.predictor.predict_proba(columns))}

    kserve.ModelServer().start([Plain(args.model_name)])
