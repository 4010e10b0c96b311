"""The logs of a run's tasks: through Kubeflow Pipelines where it names the pod, else from a pod found by its label."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from kanary import kfp, kfp_pods
from kanary.errors import ApiError
from kanary.kfp_types import Run, TaskDetail
from kanary.snapshot import Snapshot
from kanary.snapshot_hub import Hub
from kanary.text import one_line
from tui.log_pane import Tail

Pods = Snapshot[list[Mapping[str, Any]]]


def needs_pods(run: Run) -> bool:
    """Whether some task ran in a pod that the server does not name."""
    return any(_ran_somewhere(task, run) for task in run.tasks)


async def find_pods(hub: Hub, run_id: str) -> list[Mapping[str, Any]]:
    """The pods with the run's label: of all namespaces, or of the one looked at where no more is allowed.

    Raises KanaryError where the cluster cannot be asked.
    """
    api = await hub.connections.kubernetes()
    from kanary import kubernetes as k8s  # brings an HTTP library: not before the first picture

    label = kfp_pods.selector(run_id)
    try:
        found = await api.send(k8s.read(k8s.pods(""), labelSelector=label))
    except ApiError as error:
        if error.status != 403:
            raise
        found = await api.send(k8s.read(k8s.pods(hub.scope.namespace or api.access.namespace), labelSelector=label))
    return [pod for pod in found.get("items") or [] if isinstance(pod, Mapping)]


def task_tail(hub: Hub, run: Run, task: TaskDetail, pods: Pods, now: Callable[[], Run]) -> Tail:
    """The log of a task; `now` gives the run as it is known when it is asked."""

    def over() -> bool:
        return next((found for found in now().tasks if found.task_id == task.task_id), task).final

    async def through_kfp(follow: bool) -> AsyncIterator[str]:
        client = await hub.connections.kfp()
        return client.stream(kfp.task_log(run.run_id, task, follow=follow))

    if task.pod_name:
        return Tail(f"{task.task_id} {task.pod_name}", task.name, through_kfp, over)
    namespace, pod = kfp_pods.pod_of(task, run.tasks, pods.value or ()) if _ran_somewhere(task, run) else ("", "")
    if not pod:
        why = _without_pod(task, run, pods)
        return Tail(f"{task.task_id} {task.state} {why}", task.name, None, missing=why)

    async def from_pod(follow: bool) -> AsyncIterator[str]:
        api = await hub.connections.kubernetes()
        from kanary import kubernetes as k8s

        log = k8s.log(namespace, pod, container=kfp_pods.CONTAINER, follow=follow, times=True)

        async def pieces() -> AsyncIterator[str]:
            async for line in api.lines(log):
                yield f"{line}\n"

        return pieces()

    return Tail(f"{task.task_id} {namespace}/{pod}", f"{task.name} ({pod})", from_pod, over, timed=True)


def _ran_somewhere(task: TaskDetail, run: Run) -> bool:
    if task.pod_name or task.cached or task.started_at is None or task.state == "SKIPPED":
        return False
    return task.kind in ("", "RUNTIME") and all(other.parent_id != task.task_id for other in run.tasks)


def _without_pod(task: TaskDetail, run: Run, pods: Pods) -> str:
    if task.state in ("PENDING", "RUNNING") and task.started_at is None:
        return "has not started"
    if task.cached:
        return "has none: its result came from the cache"
    if not _ran_somewhere(task, run):
        return "has none"
    if pods.error:
        return f"no pod is named for it, and none can be looked up: {one_line(pods.error)}"
    return "no pod is named for it" + ("" if pods.value is None else ", and none with its run's label is there")
