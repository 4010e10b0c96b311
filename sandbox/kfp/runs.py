"""Handlers of /apis/v2beta1/runs. The engine decides a run's states; here it is only made, shown and filed."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import Conflict
from sandbox.kfp.messages import apart, read_message, reply
from sandbox.kfp.pruner import run_folder
from sandbox.kfp.service import Service
from sandbox.kfp.submission import requested_run
from sandbox.kfp.wire import Release, run_json, run_summary
from sandbox.runstore.listing import RUNS, parse_query
from sandbox.runstore.store import FINAL_STATES

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
    run = await apart(request, requested_run, service, fields)
    service.store.save_run(run)
    service.engine.submit(run.run_id)
    return reply(run_json(run, [], service.release))


async def listed(service: Service, request: Request) -> Response:
    """A page of runs; as on the newer servers their tasks come only with view=FULL: a page of 100 stays quick.

    With the release 2.17 they always come, as there.
    """
    given = request.query_params
    experiment_id = given.get("experiment_id", "")
    if experiment_id:
        service.catalog.experiment(experiment_id)
    query = (
        parse_query(RUNS, given).where("experiment_id", experiment_id).where("namespace", given.get("namespace", ""))
    )
    page = service.store.list_runs(query)
    run_ids = [run.run_id for run in page.records]
    release = service.release
    if given.get("view") == "FULL" or release is Release.CURRENT:
        tasks = service.store.tasks_of(run_ids)
        shown = [run_json(run, tasks.get(run.run_id, []), release, full=True) for run in page.records]
    else:
        counts = service.store.task_counts(run_ids)
        shown = [run_summary(run, counts.get(run.run_id, 0), release) for run in page.records]
    return reply(
        {
            "runs": shown,
            "total_size": page.total,
            "next_page_token": page.next_page_token,
        }
    )


async def get(service: Service, request: Request) -> Response:
    run = service.store.get_run(request.path_params["run_id"])
    full = request.query_params.get("view") == "FULL"
    return reply(run_json(run, service.store.tasks(run.run_id), service.release, full))


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
    await asyncio.to_thread(shutil.rmtree, run_folder(service, run_id), True)
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
