"""Handlers of /apis/v2beta1/runs. The engine decides a run's states; here it is only made, shown and filed."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from sandbox.documents import PipelineDocument, pipeline_of
from sandbox.engine.spec import bind_parameters
from sandbox.errors import Conflict, InvalidSpec, Unsupported
from sandbox.kfp.messages import message, read_message, reply, text
from sandbox.kfp.service import Service
from sandbox.kfp.shape import check_pipeline
from sandbox.kfp.wire import children_of, run_json, run_summary, task_json
from sandbox.runstore.listing import RUNS, parse_query
from sandbox.runstore.store import FINAL_STATES, Run

_FIELDS = frozenset(
    {
        "experiment_id",
        "run_id",
        "display_name",
        "storage_state",
        "description",
        "pipeline_version_id",
        "pipeline_spec",
        "pipeline_version_reference",
        "runtime_config",
        "service_account",
        "created_at",
        "scheduled_at",
        "finished_at",
        "state",
        "error",
        "run_details",
        "recurring_run_id",
        "state_history",
        "plugins_input",
        "plugins_output",
    }
)
_STOP_DEADLINE_S = 20.0


async def create(service: Service, request: Request) -> Response:
    fields = await read_message(request, "run", _FIELDS)
    run = _new_run(service, fields)
    service.store.save_run(run)
    service.engine.submit(run.run_id)
    return reply(run_json(run, []))


def _new_run(service: Service, fields: dict[str, Any]) -> Run:
    name = text(fields, "display_name", "run", 128)
    if not name:
        raise InvalidSpec("the run's name is empty", "run.display_name")
    experiment_id = text(fields, "experiment_id", "run")
    catalog = service.catalog
    experiment = catalog.experiment(experiment_id) if experiment_id else catalog.default_experiment()
    document, pipeline_id, version_id = _source(service, fields)
    check_pipeline(document)
    config = message(fields.get("runtime_config", {}), "runtime_config", ("parameters", "pipeline_root"))
    parameters = config.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidSpec("not an object", "runtime_config.parameters")
    root = text(config, "pipeline_root", "runtime_config") or document.spec.get("defaultPipelineRoot", "")
    now = time.time()
    return Run(
        run_id=str(uuid.uuid4()),
        experiment_id=experiment.experiment_id,
        display_name=name,
        description=text(fields, "description", "run"),
        namespace=experiment.namespace,
        pipeline_id=pipeline_id,
        pipeline_version_id=version_id,
        spec=document.spec,
        platform_spec=document.platform_spec,
        parameters=bind_parameters(document.spec, parameters),
        pipeline_root=_local_root(root, service.artifacts),
        created_at=now,
        scheduled_at=now,
        state_history=[{"state": "PENDING", "update_time": now, "error": ""}],
        service_account=text(fields, "service_account", "run"),
    )


def _source(service: Service, fields: dict[str, Any]) -> tuple[PipelineDocument, str, str]:
    """The pipeline to run, and the ids of pipeline and version where it comes from a kept one."""
    reference = message(
        fields.get("pipeline_version_reference", {}),
        "pipeline_version_reference",
        ("pipeline_id", "pipeline_version_id"),
    )
    pipeline_id = text(reference, "pipeline_id", "pipeline_version_reference")
    version_id = text(reference, "pipeline_version_id", "pipeline_version_reference")
    version_id = version_id or text(fields, "pipeline_version_id", "run")
    if "pipeline_spec" in fields:
        if pipeline_id or version_id:
            raise InvalidSpec("give either pipeline_spec or pipeline_version_reference, not both", "run")
        return pipeline_of(fields["pipeline_spec"], "pipeline_spec"), "", ""
    if not pipeline_id and not version_id:
        raise InvalidSpec("give pipeline_spec or pipeline_version_reference", "run")
    version = service.catalog.version(pipeline_id, version_id)
    document = PipelineDocument(version.spec, version.platform_spec)
    return document, version.pipeline_id, version.pipeline_version_id


def _local_root(root: Any, default: Path) -> str:
    """Where the run's artifacts go: an absolute folder. Raises Unsupported for stores the sandbox does not have."""
    if not isinstance(root, str):
        raise InvalidSpec("not a string", "pipeline_root")
    parts = urlsplit(root)
    if parts.scheme not in ("", "file") or parts.netloc:
        raise Unsupported(
            f"{root!r}: the sandbox keeps artifacts in local folders",
            "pipeline_root",
            "Leave the pipeline root out, or give an absolute path.",
        )
    path = Path(unquote(parts.path) if parts.scheme else root) if root else default
    if not path.is_absolute():
        raise InvalidSpec(f"{root!r} is not an absolute path", "pipeline_root")
    return str(path)


async def listed(service: Service, request: Request) -> Response:
    """A page of runs; as on the newer servers their tasks come only with view=FULL: a page of 100 stays quick."""
    given = request.query_params
    experiment_id = given.get("experiment_id", "")
    if experiment_id:
        service.catalog.experiment(experiment_id)
    query = (
        parse_query(RUNS, given).where("experiment_id", experiment_id).where("namespace", given.get("namespace", ""))
    )
    page = service.store.list_runs(query)
    run_ids = [run.run_id for run in page.records]
    if given.get("view") == "FULL":
        tasks = service.store.tasks_of(run_ids)
        shown = [run_json(run, tasks.get(run.run_id, []), full=True) for run in page.records]
    else:
        counts = service.store.task_counts(run_ids)
        shown = [run_summary(run, counts.get(run.run_id, 0)) for run in page.records]
    return reply(
        {
            "runs": shown,
            "total_size": page.total,
            "next_page_token": page.next_page_token,
        }
    )


async def get(service: Service, request: Request) -> Response:
    run = service.store.get_run(request.path_params["run_id"])
    return reply(run_json(run, service.store.tasks(run.run_id), request.query_params.get("view") == "FULL"))


async def list_tasks(service: Service, request: Request) -> Response:
    """The run's tasks in the newer shape, all on one page; `parent_id` narrows them to one task's children."""
    run = service.store.get_run(request.path_params["run_id"])
    tasks = service.store.tasks(run.run_id)
    parent_id = request.query_params.get("parent_id", "")
    shown = [task for task in tasks if not parent_id or task.parent_task_id == parent_id]
    children = children_of(tasks)
    listing = [task_json(task, children[task.task_id]) for task in shown]
    return reply({"tasks": listing, "total_size": len(listing)})


async def terminate(service: Service, request: Request) -> Response:
    run = service.store.get_run(request.path_params["run_id"])
    if run.state in FINAL_STATES:
        raise Conflict(f"Failed to terminate run {run.run_id}: it is {run.state} already")
    await service.engine.terminate(run.run_id)
    return reply({})


async def retry(service: Service, request: Request) -> Response:
    run = service.store.get_run(request.path_params["run_id"])
    await service.engine.retry(run.run_id)
    return reply({})


async def archive(service: Service, request: Request) -> Response:
    run = service.store.get_run(request.path_params["run_id"])
    service.store.save_run(replace(run, storage_state="ARCHIVED"))
    return reply({})


async def unarchive(service: Service, request: Request) -> Response:
    run = service.store.get_run(request.path_params["run_id"])
    if service.catalog.storage_state(run.experiment_id) == "ARCHIVED":
        raise Conflict(f"Failed to unarchive run {run.run_id}: unarchive experiment {run.experiment_id} first")
    service.store.save_run(replace(run, storage_state="AVAILABLE"))
    return reply({})


async def delete(service: Service, request: Request) -> Response:
    """Stops the run where it still goes on, then forgets it and its logs. Artifacts stay: others may use them."""
    run_id = request.path_params["run_id"]
    run = service.store.get_run(run_id)
    if run.state not in FINAL_STATES:
        await _stop(service, run_id)
    service.store.delete_run(run_id)
    await asyncio.to_thread(shutil.rmtree, service.engine.log_path(run_id, "task").parent.parent, True)
    return reply({})


async def _stop(service: Service, run_id: str) -> None:
    """Ends a run and waits for it. Raises Conflict when it takes too long."""
    try:
        await service.engine.terminate(run_id)
    except Conflict:
        return  # the engine does not run it: there is nothing to wait for
    deadline = time.monotonic() + _STOP_DEADLINE_S
    while service.store.get_run(run_id).state not in FINAL_STATES:
        if time.monotonic() > deadline:
            raise Conflict(f"Failed to delete run {run_id}: it has been told to stop and has not yet", "Try again.")
        await asyncio.sleep(0.02)
