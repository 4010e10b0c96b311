"""Handlers of /apis/v2beta1/recurringruns. What is due, and when, the scheduler decides."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.errors import InvalidSpec
from sandbox.kfp import cron
from sandbox.kfp.messages import apart, message, read_message, reply, text
from sandbox.kfp.service import Service
from sandbox.kfp.submission import check_request, config_of, experiment_of, source_of
from sandbox.kfp.wire import recurring_run_json
from sandbox.runstore.listing import RECURRING_RUNS, parse_query, seconds
from sandbox.runstore.recurring import RecurringRun, Trigger

_FIELDS = frozenset(
    {
        "recurring_run_id",
        "display_name",
        "description",
        "pipeline_version_id",
        "pipeline_spec",
        "pipeline_version_reference",
        "runtime_config",
        "service_account",
        "max_concurrency",
        "trigger",
        "mode",
        "created_at",
        "updated_at",
        "status",
        "error",
        "no_catchup",
        "namespace",
        "experiment_id",
        "plugins_input",
    }
)
_MODES = {"ENABLE": True, "1": True, "DISABLE": False, "2": False, "MODE_UNSPECIFIED": False, "0": False}
_POLICIES = ("", "DELETE_PROPAGATION_POLICY_UNSPECIFIED", "FOREGROUND", "BACKGROUND", "ORPHAN", "0", "1", "2", "3")
_KIND = "recurring_run"
_MOST_CONCURRENT = 10
_LONGEST_INTERVAL_S = 10**9  # some thirty years


async def create(service: Service, request: Request) -> Response:
    fields = await read_message(request, _KIND, _FIELDS)
    new = await apart(request, _new, service, fields)
    service.recurring.create(new)
    service.schedule_changed.set()
    return reply(recurring_run_json(new))


def _new(service: Service, fields: dict[str, Any]) -> RecurringRun:
    name = text(fields, "display_name", _KIND, 128)
    if not name:
        raise InvalidSpec("the recurring run's name is empty", f"{_KIND}.display_name")
    experiment = experiment_of(service, fields, _KIND)
    source = source_of(service, fields, _KIND)
    config = config_of(fields)
    check_request(service, source, config)
    no_catchup = fields.get("no_catchup", False)
    if not isinstance(no_catchup, bool):
        raise InvalidSpec(f"{no_catchup!r} is not true or false", f"{_KIND}.no_catchup")
    mode = str(fields.get("mode", "MODE_UNSPECIFIED"))
    if mode not in _MODES:
        raise InvalidSpec(f"{mode!r} is neither ENABLE nor DISABLE", f"{_KIND}.mode")
    trigger = _trigger(fields, service)
    # Where only the pipeline is named, each run takes the version that is then the newest.
    reference = message(fields.get("pipeline_version_reference", {}), "pipeline_version_reference", _REFERENCE)
    pinned = not source.pipeline_id or bool(reference.get("pipeline_version_id") or fields.get("pipeline_version_id"))
    now = service.clock()
    return RecurringRun(
        recurring_run_id=str(uuid.uuid4()),
        experiment_id=experiment.experiment_id,
        display_name=name,
        description=text(fields, "description", _KIND),
        namespace=experiment.namespace,
        pipeline_id=source.pipeline_id,
        pipeline_version_id=source.version_id if pinned else "",
        spec=source.document.spec if pinned else {},
        platform_spec=source.document.platform_spec if pinned else {},
        parameters=config.parameters,
        pipeline_root=config.pipeline_root,
        service_account=text(fields, "service_account", _KIND),
        enabled=_MODES[mode],
        max_concurrency=_whole(fields.get("max_concurrency"), f"{_KIND}.max_concurrency", _MOST_CONCURRENT),
        no_catchup=no_catchup,
        trigger=trigger,
        created_at=now,
        updated_at=now,
    )


_REFERENCE = ("pipeline_id", "pipeline_version_id")


def _whole(value: Any, where: str, most: int) -> int:
    """A number from 1 to `most`; proto-JSON has 64-bit ones as text. Raises InvalidSpec."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        given = "nothing" if value is None else repr(value)
        raise InvalidSpec(f"a whole number from 1 to {most:,} is needed, not {given}", where)
    return value


def _trigger(fields: dict[str, Any], service: Service) -> Trigger:
    where = f"{_KIND}.trigger"
    trigger = message(fields.get("trigger", {}), where, ("cron_schedule", "periodic_schedule"))
    if len(trigger) != 1:
        raise InvalidSpec("exactly one of cron_schedule and periodic_schedule is needed", where)
    (kind,) = trigger
    where = f"{where}.{kind}"
    if kind == "cron_schedule":
        given = message(trigger[kind], where, ("start_time", "end_time", "cron"))
        start, end = _window(given, where)
        found = Trigger(_cron(text(given, "cron", where, 1000), where, service), 0, start, end)
    else:
        given = message(trigger[kind], where, ("start_time", "end_time", "interval_second"))
        start, end = _window(given, where)
        interval = _whole(given.get("interval_second"), f"{where}.interval_second", _LONGEST_INTERVAL_S)
        found = Trigger("", interval, start, end)
    return found


def _cron(expression: str, where: str, service: Service) -> str:
    try:
        schedule = cron.parse(expression)
    except cron.CronError as error:
        raise InvalidSpec(f"{expression!r}: {error}", f"{where}.cron") from None
    if cron.next_time(schedule, service.clock(), service.zone) is None:
        raise InvalidSpec(f"{expression!r} never comes, not within five years", f"{where}.cron")
    return expression


def _window(given: dict[str, Any], where: str) -> tuple[float | None, float | None]:
    start, end = _moment(given, "start_time", where), _moment(given, "end_time", where)
    if start is not None and end is not None and end < start:
        raise InvalidSpec("it ends before it starts", f"{where}.end_time")
    return start, end


def _moment(given: dict[str, Any], name: str, where: str) -> float | None:
    value = text(given, name, where, 100)
    try:
        return seconds(value) if value else None
    except (ValueError, OverflowError):
        raise InvalidSpec(f"{value!r} is not a time in RFC 3339", f"{where}.{name}") from None


async def listed(service: Service, request: Request) -> Response:
    given = request.query_params
    experiment_id = given.get("experiment_id", "")
    if experiment_id:
        service.catalog.experiment(experiment_id)
    query = parse_query(RECURRING_RUNS, given).where("experiment_id", experiment_id)
    page = service.recurring.list(query.where("namespace", given.get("namespace", "")))
    shown = [recurring_run_json(record) for record in page.records]
    return reply({"recurringRuns": shown, "total_size": page.total, "next_page_token": page.next_page_token})


async def get(service: Service, request: Request) -> Response:
    return reply(recurring_run_json(service.recurring.get(request.path_params["recurring_run_id"])))


def _switch(enabled: bool) -> Callable[[Service, Request], Any]:
    async def handler(service: Service, request: Request) -> Response:
        service.recurring.set_enabled(request.path_params["recurring_run_id"], enabled, service.clock())
        service.schedule_changed.set()
        return reply({})

    return handler


enable = _switch(True)
disable = _switch(False)


async def delete(service: Service, request: Request) -> Response:
    """Forgets the recurring run. Its runs stay and go on, whatever the propagation policy says."""
    policy = request.query_params.get("propagation_policy", "")
    if policy not in _POLICIES:
        raise InvalidSpec(f"{policy!r} is none of {', '.join(_POLICIES[1:5])}", "propagation_policy")
    service.recurring.delete(request.path_params["recurring_run_id"])
    return reply({})
