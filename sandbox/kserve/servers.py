"""The model servers of all services, as the host tells of them, and what it is told for a revision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox import logtimes
from sandbox.errors import SandboxError
from sandbox.kserve import payloadlog
from sandbox.kserve.config import STORAGE_URI_ANNOTATION
from sandbox.kserve.knative import Components, Document, Failure, Revision, Server, Servers
from sandbox.kserve.transformer import reachable
from sandbox.modelserver.client import Client
from sandbox.modelserver.command import GATEWAY_VARIABLE
from sandbox.modelserver.spec import Spec, Status

_PAUSE_S = 0.2
_NOTE_S = 5.0
_DEFAULT_PORT = 8080
_METRICS_ANNOTATION = "prometheus.kserve.io/port"
# Knative's own probe of a container that names none: whether it takes a connection.
_CONNECTS: Document = {"tcpSocket": {}}

_logger = logging.getLogger(__name__)


class ModelServers:
    """What runs, by owner and by revision. `changed` is called with the owner of a server that has changed."""

    def __init__(self, home: Path, changed: Callable[[str], None]) -> None:
        self.synced = asyncio.Event()
        self.statuses: dict[str, Status] = {}
        self._sizes: dict[Path, int] = {}
        self._home = home
        self._client = Client(home)
        self._changed = changed

    async def run(self) -> None:
        """Follow the host until cancelled. While it is away its servers go on, and count as what they were last."""
        while True:
            try:
                await self._follow()
            except SandboxError as error:
                _logger.warning("%s", error.message)
            await asyncio.sleep(_PAUSE_S)

    async def note_times(self) -> None:
        """Note now and then how far every log has come, for `kubectl logs --since`, until cancelled."""
        while True:
            await asyncio.sleep(_NOTE_S)
            logs = [Path(status.log) for status in self.statuses.values() if status.log and status.pid]
            self._sizes = {log: self._sizes[log] for log in logs if log in self._sizes}
            for log in logs:
                await asyncio.to_thread(self._note, log)

    def of(self, owner: str) -> Servers:
        """The servers of one service by revision."""
        return {revision: _server(status) for revision, status in self.told_of(owner).items()}

    def told_of(self, owner: str) -> dict[str, Status]:
        """The same, as the host tells it."""
        return {one.id.partition("/")[2]: one for one in self.statuses.values() if one.owner == owner}

    async def run_server(
        self, namespace: str, owner: str, revision: Revision, running: bool, peers: Mapping[str, str]
    ) -> None:
        """Have a revision's server run, or scaled to zero; `peers` are paths at the gateway, see `spec_of`."""
        await self._client.put(spec_of(namespace, owner, revision, running, peers))

    async def remove(self, name: str) -> None:
        """End a server and forget it; `name` is "<namespace>/<revision>"."""
        await self._client.remove(name)

    async def warm(self, preload: tuple[str, ...]) -> None:
        """Have the parent that such servers are forked from ready."""
        await self._client.warm(preload)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    def _note(self, log: Path) -> None:
        size = log.stat().st_size if log.exists() else 0
        if size != self._sizes.get(log):
            self._sizes[log] = size
            logtimes.mark(log)

    async def _follow(self) -> None:
        seen: dict[str, Status] = {}
        synced = False
        async for name, status in self._client.watch():
            if not name:
                synced = True
                gone = [known.owner for known in self.statuses.values() if known.id not in seen]
                self.statuses = seen
                self.synced.set()
                for owner in {*gone, *(known.owner for known in seen.values())}:
                    self._changed(owner)
            elif status is not None:
                seen[name] = status
                if synced:
                    self._changed(status.owner)
            elif (last := seen.pop(name, None)) is not None:
                self._changed(last.owner)


def spec_of(namespace: str, owner: str, revision: Revision, running: bool, peers: Mapping[str, str]) -> Spec:
    """What the host is told of a revision.

    `peers` has, by `<service>.<namespace>`, the path at which the gateway leads to another component: a transformer
    that is given a predictor's name in the cluster finds it there.
    """
    hosts = {name: f"$({GATEWAY_VARIABLE}){path}" for name, path in peers.items()}
    document = revision.template.document
    container = document["spec"]["containers"][0]
    ports = [port.get("containerPort") for port in container.get("ports") or [] if port.get("containerPort")]
    port = ports[0] if ports else _DEFAULT_PORT
    metrics_port = document["annotations"].get(_METRICS_ANNOTATION, "")
    return Spec(
        id=f"{namespace}/{revision.name}",
        owner=owner,
        command=tuple(container["command"]),
        args=tuple(reachable(word, hosts) for word in container.get("args") or ()),
        env=payloadlog.environment(namespace, owner, revision)
        | {entry["name"]: reachable(str(entry.get("value", "")), hosts) for entry in container.get("env") or []},
        port=port,
        metrics_port=int(metrics_port) if metrics_port.isdigit() and int(metrics_port) != port else 0,
        preload=revision.template.preload,
        storage_uri=document["annotations"].get(STORAGE_URI_ANNOTATION, ""),
        probe=container.get("readinessProbe") or (_CONNECTS if revision.template.http2 else None),
        liveness=container.get("livenessProbe"),
        working_dir=container.get("workingDir", ""),
        start_deadline_s=revision.deadline - revision.created,
        grace_s=float(document["spec"].get("terminationGracePeriodSeconds") or 10),
        running=running,
    )


def wanted_names(namespace: str, components: Components) -> frozenset[str]:
    """Names of the servers that the host may hold for a service."""
    return frozenset(
        f"{namespace}/{revision.name}" for knative in components.values() for revision in knative.revisions
    )


def _server(status: Status) -> Server:
    failure = status.failure
    told = Failure(failure.exit_code, failure.message, failure.loading) if failure is not None else None
    return Server(status.port, status.state, status.ready, status.restarts, told, status.metrics_port)
