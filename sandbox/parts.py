"""The parts a sandbox is made of, each one a process group. What a part is stands here; running it is not."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.errors import SandboxError

# Applied when the sandbox starts, as an installation on a cluster would.
_RUNTIME = Path(__file__).resolve().parents[1] / "serving" / "manifests" / "clusterservingruntime.yaml"

Ports = Mapping[str, Mapping[str, int]]
"""Part -> role -> port, for every part of the sandbox."""


@dataclass(frozen=True)
class Part:
    """One server.

    In `argv` and `env`, {home} and {PART.ROLE} stand for the home folder and for chosen ports. `ports` maps each role
    to the port it has when that is free; role "http" gives the part's URL, with `scheme`. `health` is the path on the
    port of role `probe` that answers 2xx when the part works, "" for a part that works as soon as it runs.

    It starts after the parts it depends on are healthy, and stops before them. Not being healthy `start_seconds` after
    its first start fails the start of the sandbox, unless the part is not `required`: nobody waits for such a one, and
    where it cannot run at all the sandbox does without. `stop_seconds` after SIGTERM comes SIGKILL. What it has started
    dies with it, unless `owns_children` is false: then it lives on until `down`, for the part's next process to adopt.
    `reopens` is a log that it opens again on SIGUSR1, as soon as it is healthy.
    """

    name: str
    argv: tuple[str, ...]
    ports: Mapping[str, int] = field(default_factory=dict)
    health: str = ""
    probe: str = "http"
    scheme: str = "http"
    required: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    owns_children: bool = True
    reopens: str = ""
    start_seconds: float = 60.0
    stop_seconds: float = 10.0


def parts(drift: bool = False) -> tuple[Part, ...]:
    """The sandbox's parts in the order in which they may start; the drift detector only where it is asked for."""
    scraped = ("--drift-port", "{drift.http}") if drift else ()
    return (
        Part(
            name="kfp",
            argv=_module("sandbox.kfp", "--port", "{kfp.http}"),
            ports={"http": 8888},
            health="/apis/v2beta1/healthz",
        ),
        Part(
            name="kubernetes",
            argv=_module("sandbox.kubernetes", "--port", "{kubernetes.http}"),
            ports={"http": 6443},
            health="/readyz",
            scheme="https",
        ),
        Part(
            name="gateway",
            argv=_module("sandbox.gateway", "--port", "{gateway.http}", "--admin-port", "{gateway.admin}"),
            ports={"http": 8080, "admin": 9901},
            health="/ready",
            probe="admin",
            reopens="access.log",
        ),
        Part(name="modelserver", argv=_module("sandbox.modelserver"), owns_children=False, stop_seconds=15.0),
        Part(
            name="kserve",
            argv=_module("sandbox.kserve", "--apply", str(_RUNTIME)),
            depends_on=("kubernetes", "gateway", "modelserver"),
        ),
        Part(
            name="prometheus",
            argv=_module(
                *("sandbox.prometheus", "--port", "{prometheus.http}", "--gateway-admin-port", "{gateway.admin}"),
                *scraped,
            ),
            ports={"http": 9090},
            health="/-/ready",
            required=False,
            start_seconds=180.0,
        ),
        *((_drift(),) if drift else ()),
    )


def _drift() -> Part:
    """Kanary's drift detector, as a cluster would run it: services whose `logger.url` is its URL are watched.

    KANARY_DRIFT_OPTIONS holds more of its options, as on a command line.
    """
    return Part(
        name="drift",
        argv=_module(
            *("serving.drift", "--port", "{drift.http}", "--host", "127.0.0.1", "--releases", "{home}/releases"),
            *("--prometheus", "http://127.0.0.1:{prometheus.http}"),
            *shlex.split(os.environ.get("KANARY_DRIFT_OPTIONS", "")),
            folder="{home}/drift",
        ),
        ports={"http": 8085},
        health="/readyz",
        required=False,
        start_seconds=180.0,
    )


def _module(name: str, *arguments: str, folder: str = "{home}") -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", name, "--home", folder, *arguments)


def filled(text: str, home: Path, ports: Ports) -> str:
    """`text` with its placeholders filled in; other braces stay. Raises SandboxError for an unknown port."""

    def port(found: re.Match[str]) -> str:
        try:
            return str(ports[found["part"]][found["role"]])
        except KeyError:
            raise SandboxError(f"No part has the port {found[0]}.") from None

    return re.sub(r"\{(?P<part>[a-z-]+)\.(?P<role>[a-z]+)\}", port, text.replace("{home}", str(home)))


def urls(part: Part, ports: Mapping[str, int]) -> dict[str, str]:
    """A part's entry in endpoints.json: its URL as "url", those of its other ports by role."""
    return {
        "url" if role == "http" else role: f"{part.scheme if role == 'http' else 'http'}://127.0.0.1:{port}"
        for role, port in ports.items()
    }
