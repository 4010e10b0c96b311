"""Handlers of /apis/v2beta1/experiments."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import InvalidSpec
from sandbox.kfp.messages import read_message, reply, text
from sandbox.kfp.service import Service
from sandbox.kfp.wire import experiment_json
from sandbox.runstore.listing import EXPERIMENTS, parse_query

_FIELDS = frozenset(
    {
        "experiment_id",
        "display_name",
        "description",
        "created_at",
        "namespace",
        "storage_state",
        "last_run_created_at",
    }
)


async def create(service: Service, request: Request) -> Response:
    fields = await read_message(request, "experiment", _FIELDS)
    name = text(fields, "display_name", "experiment", 128)
    if not name:
        raise InvalidSpec("the experiment's name is empty", "experiment.display_name")
    namespace = text(fields, "namespace", "experiment", 63)
    experiment = service.catalog.create_experiment(name, text(fields, "description", "experiment"), namespace)
    return reply(experiment_json(experiment))


async def listed(service: Service, request: Request) -> Response:
    query = parse_query(EXPERIMENTS, request.query_params)
    page = service.catalog.list_experiments(query.where("namespace", request.query_params.get("namespace", "")))
    return reply(
        {
            "experiments": [experiment_json(experiment) for experiment in page.records],
            "total_size": page.total,
            "next_page_token": page.next_page_token,
        }
    )


async def get(service: Service, request: Request) -> Response:
    return reply(experiment_json(service.catalog.experiment(request.path_params["experiment_id"])))


async def archive(service: Service, request: Request) -> Response:
    service.catalog.set_experiment_storage(request.path_params["experiment_id"], "ARCHIVED")
    return reply({})


async def unarchive(service: Service, request: Request) -> Response:
    service.catalog.set_experiment_storage(request.path_params["experiment_id"], "AVAILABLE")
    return reply({})


async def delete(service: Service, request: Request) -> Response:
    service.catalog.delete_experiment(request.path_params["experiment_id"])
    return reply({})
