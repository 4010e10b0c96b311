"""The logs of a run's tasks: through Kubeflow Pipelines where it names the pod, else from a pod found by its label."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from kanary import kfp_pods
from kanary.kfp_types import Run, TaskDetail
from kanary.snapshot import Snapshot
from kanary.snapshot_hub import Hub
from kanary.text import one_line
from tui.log_pane import Tail

Pods = Snapshot[list[Mapping[str, Any]]]


def task_tail(hub: Hub, run: Run, task: TaskDetail, pods: Pods, now: Callable[[], Run]) -> Tail:
    """The log of a task; `now` gives the run as it is known when it is asked."""

    run_id, rewound = run.run_id, hub.rewound

    def over() -> bool:
        newest = next((found for found in now().tasks if found.task_id == task.task_id), task)
        return newest.final and not hub.recorded

    async def through_kfp(follow: bool) -> AsyncIterator[str]:
        return await hub.details.task_log(run_id, task, follow=follow)

    if task.pod_name:
        return Tail(f"{task.task_id} {task.pod_name} {rewound}", task.name, through_kfp, over)
    unnamed = kfp_pods.ran_unnamed(task, run.tasks)
    namespace, pod = kfp_pods.pod_of(task, run.tasks, pods.value or ()) if unnamed else ("", "")
    if not pod:
        why = _without_pod(task, unnamed, pods)
        return Tail(f"{task.task_id} {task.state} {why} {rewound}", task.name, None, missing=why)

    async def from_pod(follow: bool) -> AsyncIterator[str]:
        return await hub.details.pod_log(namespace, pod, follow=follow)

    return Tail(f"{task.task_id} {namespace}/{pod} {rewound}", f"{task.name} ({pod})", from_pod, over, timed=True)


def _without_pod(task: TaskDetail, unnamed: bool, pods: Pods) -> str:
    if task.state in ("PENDING", "RUNNING") and task.started_at is None:
        return "has not started"
    if task.cached:
        return "has none: its result came from the cache"
    if not unnamed:
        return "has none"
    if pods.error:
        return f"no pod is named for it, and none can be looked up: {one_line(pods.error)}"
    return "no pod is named for it" + ("" if pods.value is None else ", and none with its run's label is there")
