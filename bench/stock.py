"""KServe's own server around a release of ours, from cold. Nothing of the sandbox is in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from bench.peers.answers import MODEL
from tests.gateway.rig import free_ports
from tests.rollout.rig import BODIES, ROOT
from tests.waiting import wait_for

NAME = "flowers"


def cold_start_s(model: Path, log: Path) -> float:
    """Seconds from spawning the server to its first prediction; the server is ended."""
    (port,) = free_ports(1)
    command = [sys.executable, "-P", "-m", "bench.peers.stock"]
    command += [f"--model_name={NAME}", f"--http_port={port}", "--enable_grpc=false"]
    environment = {name: value for name, value in os.environ.items() if name != "HOST"}
    environment |= {"PYTHONPATH": str(ROOT), MODEL: str(model), "OMP_NUM_THREADS": str(os.cpu_count())}
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
