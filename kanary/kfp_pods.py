"""The pods of a run's tasks, found in Kubernetes where Kubeflow Pipelines names none: by label and Argo's node name.

Pure. Source: backend/src/common/util/consts.go in kubeflow/pipelines (the label), workflow/common/common.go in
argoproj/argo-workflows (the annotation); the API server itself checks the label before it reads a pod's log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kanary.kfp_types import TaskDetail

RUN_LABEL = "pipeline/runid"
NODE_NAME = "workflows.argoproj.io/node-name"
CONTAINER = "main"
_EXECUTOR = "executor"  # the node inside each task's own that has the pod
_ATTEMPT = re.compile(r"\(\d+\)$")
_ITEM = re.compile(r"\([^()]*\)")  # of a loop; its value may hold dots
Pod = Mapping[str, Any]


def selector(run_id: str) -> str:
    """The label selector of a run's pods."""
    return f"{RUN_LABEL}={run_id}"


def needed(tasks: Iterable[TaskDetail]) -> bool:
    """Whether some task ran in a pod that the server does not name."""
    known = tuple(tasks)
    return any(ran_unnamed(task, known) for task in known)


def ran_unnamed(task: TaskDetail, tasks: Iterable[TaskDetail]) -> bool:
    """Whether this task ran in a pod that the server does not name."""
    if task.pod_name or task.cached or task.started_at is None or task.state == "SKIPPED":
        return False
    return task.kind in ("", "RUNTIME") and all(other.parent_id != task.task_id for other in tasks)


def pod_of(task: TaskDetail, tasks: Iterable[TaskDetail], pods: Iterable[Pod]) -> tuple[str, str]:
    """Namespace and name of the pod that ran a task, its newest attempt; empty where none did as far as is known.

    Of several that have the task's name (in branches, or items of a loop): those below the task's parents, and of these
    the one that came up closest to the task's start.
    """
    parents = _parents(task, tasks)
    nodes: dict[str, list[Pod]] = {}
    for pod in pods:
        node = _node(pod)
        if node:
            nodes.setdefault(_ATTEMPT.sub("", node), []).append(pod)
    found = {node: _shared(parents, path[-2::-1]) for node in nodes if (path := _path(node))[-1] == task.name}
    if not found:
        return "", ""

    def rank(node: str) -> tuple[int, float, str]:
        came = [moment for pod in nodes[node] if (moment := _moment(pod)) is not None]
        far = abs((min(came) - task.started_at).total_seconds()) if came and task.started_at else 0.0
        return found[node], -far, node

    newest = max(nodes[max(found, key=rank)], key=lambda pod: str(_metadata(pod).get("creationTimestamp")))
    metadata = _metadata(newest)
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _parents(task: TaskDetail, tasks: Iterable[TaskDetail]) -> Sequence[str]:
    """The names of a task's parents, the nearest first."""
    by_id = {other.task_id: other for other in tasks}
    found: list[str] = []
    at = by_id.get(task.parent_id)
    while at is not None and len(found) < len(by_id):
        found.append(at.name)
        at = by_id.get(at.parent_id)
    return found


def _metadata(pod: Pod) -> Mapping[str, Any]:
    metadata = pod.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _node(pod: Pod) -> str:
    annotations = _metadata(pod).get("annotations")
    return str(annotations.get(NODE_NAME) or "") if isinstance(annotations, Mapping) else ""


def _path(node: str) -> Sequence[str]:
    """The task's name and its parents' before it: `WORKFLOW.root.train.executor` -> WORKFLOW, root, train."""
    path = _ITEM.sub("", node).split(".")
    return path[:-1] if len(path) > 1 and path[-1] == _EXECUTOR else path


def _moment(pod: Pod) -> datetime | None:
    try:
        return datetime.fromisoformat(str(_metadata(pod).get("creationTimestamp")))
    except ValueError:
        return None


def _shared(parents: Sequence[str], above: Sequence[str]) -> int:
    """How many of the parents, the nearest first, stand above it in this order; others may stand between them."""
    count, rest = 0, iter(above)
    for parent in parents:
        if not any(name == parent for name in rest):
            break
        count += 1
    return count
