from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kanary.kfp_pods import NODE_NAME, pod_of
from kanary.kfp_types import TaskDetail


def pod(name: str, node: str, second: int = 0) -> dict[str, Any]:
    """A pod as Argo makes it."""
    metadata = {"name": name, "namespace": "kubeflow", "creationTimestamp": f"2026-11-20T07:00:{second:02d}Z"}
    return {"metadata": metadata | {"annotations": {NODE_NAME: node}}}


def task(name: str, parent: str = "", second: int = 0) -> TaskDetail:
    started = datetime(2026, 11, 20, 7, 0, second, tzinfo=UTC)
    return TaskDetail(f"{name}-{parent}-{second}", name, "SUCCEEDED", parent, started_at=started)


GATES, OTHER = task("gates-passed", "root--0"), task("otherwise", "root--0")
TREE = [task("root"), GATES, OTHER, task("for-loop-1", "root--0"), task("train", "root--0")]
PODS = [
    pod("driver", "training-x7.root.train-driver"),
    pod("first", "training-x7.root.train.executor(0)", 1),
    pod("second", "training-x7.root.train.executor(1)", 9),
    pod("passed", "training-x7.root.gates-passed.deploy.executor", 20),
    pod("otherwise", "training-x7.root.otherwise.deploy.executor", 20),
    pod("item-0", 'training-x7.root.for-loop-1.iteration(0:{"a":1.5}).fit.executor', 30),
    pod("item-1", 'training-x7.root.for-loop-1.iteration(1:{"a":2.5}).fit.executor', 40),
    {"metadata": {"name": "stray", "annotations": None}},
    {"metadata": None},
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (TREE[-1], "second"),  # its newest attempt
        (task("deploy", GATES.task_id, 20), "passed"),
        (task("deploy", OTHER.task_id, 20), "otherwise"),
        (task("fit", TREE[3].task_id, 31), "item-0"),
        (task("fit", TREE[3].task_id, 41), "item-1"),
        (task("evaluate", "root--0"), ""),
    ],
)
def test_the_pod_of_a_task_is_found_by_name_parents_and_start(wanted: TaskDetail, found: str) -> None:
    assert pod_of(wanted, [*TREE, wanted], PODS) == (("kubeflow", found) if found else ("", ""))
