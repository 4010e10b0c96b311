"""What an opened screen shows beyond the snapshots: a run as a whole, logs, how a column is spread. Changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from kanary import kfp_pods
from kanary.errors import ApiError
from kanary.kfp_types import Run, TaskDetail

if TYPE_CHECKING:
    from kanary.snapshot_connections import Connections
    from kanary.snapshot_drift import Bin, Finding

TAIL = 2000  # lines of a model server's log that are read at first
_SERVICE_LABEL, _CONTAINER = "serving.kserve.io/inferenceservice", "kserve-container"


class Details(Protocol):
    """Where they come from. Each raises KanaryError where there is no answer."""

    async def run(self, run_id: str) -> Run:
        """A run with its tasks."""

    async def task_log(self, run_id: str, task: TaskDetail, *, follow: bool) -> AsyncIterator[str]:
        """A task's log from its start, in pieces, where the server names its pod."""

    async def run_pods(self, run_id: str) -> list[Mapping[str, Any]]:
        """The pods with a run's label: of all namespaces, or of the one looked at where no more is allowed."""

    async def pod_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
        """The log of a task's pod from its start, in whole lines, each after its time."""

    async def pods(self, service: str) -> list[dict[str, Any]]:
        """The pods of a service (namespace/name)."""

    async def server_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
        """The end of a model server's log, in whole lines, each after its time."""

    async def spread(self, finding: Finding) -> tuple[Bin, ...]:
        """How a column is spread; empty where the detector does not tell."""


class LiveDetails:
    """Asked of the servers."""

    def __init__(self, connections: Connections, namespace: str = "") -> None:
        self._connections, self._namespace = connections, namespace

    async def run(self, run_id: str) -> Run:
        from kanary import kfp

        return await self._connections.call(kfp.get_run(run_id))

    async def task_log(self, run_id: str, task: TaskDetail, *, follow: bool) -> AsyncIterator[str]:
        from kanary import kfp

        client = await self._connections.kfp()
        return client.stream(kfp.task_log(run_id, task, follow=follow))

    async def run_pods(self, run_id: str) -> list[Mapping[str, Any]]:
        api = await self._connections.kubernetes()
        from kanary import kubernetes as k8s  # brings an HTTP library: not before the first picture

        label = kfp_pods.selector(run_id)
        try:
            found = await api.send(k8s.read(k8s.pods(""), labelSelector=label))
        except ApiError as error:
            if error.status != 403:
                raise
            found = await api.send(k8s.read(k8s.pods(self._namespace or api.access.namespace), labelSelector=label))
        return [pod for pod in found.get("items") or [] if isinstance(pod, Mapping)]

    async def pod_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
        return await self._log(namespace, pod, follow, container=kfp_pods.CONTAINER)

    async def pods(self, service: str) -> list[dict[str, Any]]:
        namespace, _, name = service.partition("/")
        api = await self._connections.kubernetes()
        from kanary import kubernetes as k8s

        found = await api.send(k8s.read(k8s.pods(namespace), labelSelector=f"{_SERVICE_LABEL}={name}"))
        return list(found.get("items") or [])

    async def server_log(self, namespace: str, pod: str, *, follow: bool) -> AsyncIterator[str]:
        return await self._log(namespace, pod, follow, container=_CONTAINER, tail=TAIL)

    async def _log(
        self, namespace: str, pod: str, follow: bool, *, container: str, tail: int = 0
    ) -> AsyncIterator[str]:
        api = await self._connections.kubernetes()
        from kanary import kubernetes as k8s

        log = k8s.log(namespace, pod, container=container, tail=tail, follow=follow, times=True)

        async def pieces() -> AsyncIterator[str]:
            async for line in api.lines(log):
                yield f"{line}\n"

        return pieces()

    async def spread(self, finding: Finding) -> tuple[Bin, ...]:
        client = await self._connections.prometheus()
        from kanary.snapshot_drift import distribution

        return await client.call(distribution(finding, self._connections.config.prometheus_selectors))
