"""Handlers of what KFP's next release has: a run's tasks, artifacts, and which task reads or writes which artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import InvalidSpec, NotFound
from sandbox.kfp.messages import reply
from sandbox.kfp.service import Service
from sandbox.kfp.wire import Release, artifact_json, children_of, io_type, task_json
from sandbox.runstore.artifacts import artifacts_of
from sandbox.runstore.listing import ARTIFACTS, TASKS, parse_query
from sandbox.runstore.store import Task

_MOST_IDS = 100


def _offered(service: Service, request: Request) -> None:
    if service.release is Release.CURRENT:
        raise NotFound(f"{request.method} {request.url.path} is not part of KFP 2.17")


async def list_tasks(service: Service, request: Request) -> Response:
    """A page of the run's tasks; `parent_id` narrows them to one task's children.

    Without a page size all of them come on one page, as many as there are: a run's tasks belong together.
    """
    _offered(service, request)
    run = service.store.get_run(request.path_params["run_id"])
    given = dict(request.query_params)
    tasks = service.store.tasks(run.run_id)
    children = children_of(tasks)
    if any(given.get(name) for name in ("page_size", "page_token", "filter", "order_by")):
        query = parse_query(TASKS, given | {"sort_by": given.get("order_by", "")})
        query = query.where("run_id", run.run_id).where("parent_task_id", given.get("parent_id", ""))
        page = service.store.list_tasks(query)
        shown, total, token = page.records, page.total, page.next_page_token
    else:
        shown = [task for task in tasks if given.get("parent_id", "") in ("", task.parent_task_id)]
        total, token = len(shown), ""
    listing = [task_json(task, children[task.task_id]) for task in shown]
    return reply({"tasks": listing, "total_size": total, "next_page_token": token})


async def get_task(service: Service, request: Request) -> Response:
    _offered(service, request)
    run = service.store.get_run(request.path_params["run_id"])
    task = service.store.get_task(run.run_id, request.path_params["task_id"])
    return reply(task_json(task, children_of(service.store.tasks(run.run_id))[task.task_id]))


async def list_artifacts(service: Service, request: Request) -> Response:
    _offered(service, request)
    query = parse_query(ARTIFACTS, request.query_params)
    page = service.store.list_artifacts(query.where("namespace", request.query_params.get("namespace", "")))
    shown = [artifact_json(artifact) for artifact in page.records]
    return reply({"artifacts": shown, "total_size": page.total, "next_page_token": page.next_page_token})


async def get_artifact(service: Service, request: Request) -> Response:
    _offered(service, request)
    return reply(artifact_json(service.store.artifact(request.path_params["artifact_id"])))


async def list_artifact_tasks(service: Service, request: Request) -> Response:
    """Who reads and writes artifacts, of at least one of `run_ids`, `task_ids`, `artifact_ids`; all on one page.

    Of an artifact only the run that made it is looked at: others meet it through the cache, as a copy of its record.
    """
    _offered(service, request)
    wanted = {name: _ids(request, f"{name}s") for name in ("run_id", "task_id", "artifact_id")}
    if not any(wanted.values()):
        raise InvalidSpec("at least one of run_ids, task_ids and artifact_ids is needed", "artifact_tasks")
    run_ids = set(wanted["run_id"])
    if not run_ids:
        column = "task_id" if wanted["task_id"] else "artifact_id"
        run_ids = set(service.store.runs_with(column, wanted[column]))
    links = [
        link
        for tasks in service.store.tasks_of(sorted(run_ids)).values()
        for task in tasks
        for link in _links(task)
        if all(not values or link[name] in values for name, values in wanted.items())
    ]
    kind = request.query_params.get("type", "")
    shown = [link for link in links if kind in ("", "UNSPECIFIED", link["type"])]
    return reply({"artifact_tasks": shown, "total_size": len(shown), "next_page_token": ""})


def _ids(request: Request, name: str) -> list[str]:
    found = request.query_params.getlist(name)
    if len(found) > _MOST_IDS:
        raise InvalidSpec(f"more than {_MOST_IDS} ids", name)
    return found


def _links(task: Task) -> Iterator[dict[str, Any]]:
    for values, is_output in ((task.inputs, False), (task.outputs, True)):
        for key, items in values.get("artifacts", {}).items():
            for item in items:
                for artifact in artifacts_of(item, 0.0):
                    yield _link(task, key, artifact.artifact_id, is_output)


def _link(task: Task, key: str, artifact_id: str, is_output: bool) -> dict[str, Any]:
    kind = io_type(is_output)
    digest = hashlib.sha256(f"{task.task_id}/{kind}/{key}/{artifact_id}".encode()).hexdigest()
    link = {
        "id": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
        "artifact_id": artifact_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "type": kind,
        "key": key,
    }
    return link | ({"producer": {"task_name": task.name}} if is_output else {})
