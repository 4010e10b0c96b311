"""What the model server host is told of a server, and what it tells: plain data with their JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sandbox.errors import InvalidSpec

_ID = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
# What a server can be in. `initializing`: its model is being fetched; `backing off`: it ended, and waits to be
# started again; `stopped`: it is wanted at zero.
INITIALIZING, STARTING, READY, BACKING_OFF = "initializing", "starting", "ready", "backing off"
STOPPING, STOPPED = "stopping", "stopped"


@dataclass(frozen=True)
class Spec:
    """One server. `id` is "<namespace>/<revision>"; `owner` the uid of what it belongs to.

    `command` and `args` are a container's: the container's port (`port`) and /mnt/models in them are replaced by the
    port and the folder that the server gets, and so is `metrics_port`, where its numbers are on a port of their own. So
    they are in `probe`, for readiness, and `liveness`. `preload` names modules to fork from; `running` false scales it
    to zero.
    """

    id: str
    owner: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 8080
    metrics_port: int = 0
    preload: tuple[str, ...] = ()
    storage_uri: str = ""
    probe: Mapping[str, Any] | None = None
    liveness: Mapping[str, Any] | None = None
    working_dir: str = ""
    start_deadline_s: float = 600.0
    grace_s: float = 10.0
    running: bool = True

    @property
    def slug(self) -> str:
        """`id` as a file name."""
        return self.id.replace("/", ".")


@dataclass(frozen=True)
class Failure:
    """How a server ended: exit status (128 + n for signal n), the end of its log; `loading`: it was never started."""

    exit_code: int
    message: str
    loading: bool = False


@dataclass(frozen=True)
class Status:
    """What the host tells of a server. `port` is 0 before it has one, `metrics_port` where its numbers are on `port`.

    Times are seconds of the epoch.

    `log` and `model` are paths; `warm` says that the running process was forked.
    """

    id: str
    owner: str
    state: str
    port: int = 0
    metrics_port: int = 0
    pid: int = 0
    ready: bool = False
    restarts: int = 0
    started: float = 0.0
    failure: Failure | None = None
    log: str = ""
    model: str = ""
    warm: bool = False


def spec_from(document: Mapping[str, Any]) -> Spec:
    """The spec in a JSON document. Raises InvalidSpec for one that is not whole."""
    try:
        known: dict[str, Any] = {key: document[key] for key in Spec.__dataclass_fields__ if key in document}
        tuples: dict[str, Any] = {key: tuple(known[key]) for key in ("command", "args", "preload") if key in known}
        spec = Spec(**(known | tuples))
    except (TypeError, KeyError) as error:
        raise InvalidSpec(str(error), where="spec") from error
    if not isinstance(spec.id, str) or not _ID.fullmatch(spec.id):
        raise InvalidSpec(f"{spec.id!r} is not <namespace>/<revision>", where="spec.id")
    if not spec.command:
        raise InvalidSpec("a server needs a command", where="spec.command")
    return spec


def status_from(document: Mapping[str, Any]) -> Status:
    """The status in a JSON document."""
    known: dict[str, Any] = {key: document[key] for key in Status.__dataclass_fields__ if key in document}
    failure = known.pop("failure", None)
    return Status(**known, failure=Failure(**failure) if failure else None)


def to_json(value: Spec | Status) -> dict[str, Any]:
    """The JSON document of a spec or a status."""
    return asdict(value)
