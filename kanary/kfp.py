"""The operations of the Kubeflow Pipelines API (REST, v2beta1), for `kanary.api`'s clients.

`with Client(kfp.server(config)) as api: run = api.call(kfp.get_run(run_id))`. Never imports the kfp SDK.
Source: backend/api/v2beta1/*.proto in kubeflow/pipelines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kanary.config import Config
from kanary.errors import ApiError, InputError
from kanary.kfp_types import (
    Experiment,
    Run,
    RunPage,
    TaskDetail,
    read_experiment,
    read_experiments,
    read_run,
    read_run_page,
    read_tasks,
)
from kanary.operations import Operation, Request

if TYPE_CHECKING:
    from kanary.api import Server

API = "/apis/v2beta1"
PAGE_SIZE = 200  # the most that servers give


@dataclass(frozen=True)
class Predicate:
    """One condition on a list; all of a list's predicates must hold. `operation` as in filter.proto: EQUALS, ..."""

    key: str
    operation: str
    value: str | int


NOT_ARCHIVED = Predicate("storage_state", "NOT_EQUALS", "ARCHIVED")


def server(config: Config) -> Server:
    """The Kubeflow Pipelines server that the configuration names."""
    from kanary.api import Server

    return Server(
        name="Kubeflow Pipelines",
        url=config.kfp_endpoint,
        timeout=config.timeout,
        token_file=config.token_file,
        cookie_file=config.cookie_file,
        cookie=config.cookie,
        token=_account_token(config),
        readonly=config.readonly,
        hint=_hint(config),
    )


def _account_token(config: Config) -> Callable[[], str] | None:
    if not config.token_account or config.token_file is not None:
        return None
    from kanary.accounttoken import AccountToken

    return AccountToken(config)


def _hint(config: Config) -> str:
    source = config.sources["kfp_endpoint"]
    if source.kind == "default":
        return "Start the sandbox with `kanary up`, or name a server with --endpoint or KFP_ENDPOINT."
    if source.kind == "sandbox":
        return "Is the sandbox still up? `kanary info` says; `kanary up` starts it again."
    return f"The address is from {source}: check it, and that the server runs."


def healthz() -> Operation[Mapping[str, Any]]:
    """What the server says of itself; an answer at all means that it is up."""
    answer = yield Request("GET", f"{API}/healthz")
    return answer if isinstance(answer, dict) else {}


def list_runs(
    *,
    page_token: str = "",
    page_size: int = 50,
    sort_by: str = "created_at desc",
    predicates: Sequence[Predicate] = (),
    experiment_id: str = "",
    namespace: str = "",
    with_tasks: bool = False,
) -> Operation[RunPage]:
    """One page of runs; servers up to 2.x give their tasks always, later ones only `with_tasks`."""
    params = {
        "page_token": page_token,
        "page_size": str(page_size),
        "sort_by": sort_by,
        "filter": filter_text(predicates),
        "experiment_id": experiment_id,
        "namespace": namespace,
        "view": "FULL" if with_tasks else "",
    }
    answer = yield Request("GET", f"{API}/runs", params)
    return read_run_page(answer)


def newest_runs(
    limit: int,
    *,
    predicates: Sequence[Predicate] = (NOT_ARCHIVED,),
    experiment_id: str = "",
    namespace: str = "",
    with_tasks: bool = False,
) -> Operation[RunPage]:
    """The newest `limit` runs over as many pages as that takes."""
    runs: dict[str, Run] = {}
    token = ""
    while True:
        page = yield from list_runs(
            page_token=token,
            page_size=max(1, min(limit - len(runs), PAGE_SIZE)),
            predicates=predicates,
            experiment_id=experiment_id,
            namespace=namespace,
            with_tasks=with_tasks,
        )
        # A run created between two pages pushes another over the edge: it comes twice.
        runs.update((run.run_id, run) for run in page.runs)
        if not page.runs or not page.next_page_token or page.next_page_token == token or len(runs) >= limit:
            return RunPage(tuple(runs.values()), page.next_page_token, max(page.total, len(runs)))
        token = page.next_page_token


def get_run(run_id: str) -> Operation[Run]:
    """The run with its tasks, also where the server (3.0) keeps these apart. ApiError(404) if there is none."""
    # `view` is of 3.0, where it includes the tasks; older servers pass over it.
    answer = yield Request("GET", f"{API}/runs/{_segment(run_id)}", {"view": "FULL"})
    run = read_run(answer)
    if run.tasks or not run.task_count:
        return run
    tasks = yield from list_tasks(run_id)
    return replace(run, tasks=tasks)


def list_tasks(run_id: str) -> Operation[tuple[TaskDetail, ...]]:
    """All tasks of a run, from a server that lists them apart (3.0)."""
    items: list[Any] = []
    token = ""
    while True:
        params = {"page_size": str(PAGE_SIZE), "page_token": token}
        answer = yield Request("GET", f"{API}/runs/{_segment(run_id)}/tasks", params)
        page = answer.get("tasks") if isinstance(answer, dict) else None
        items.extend(page if isinstance(page, list) else [])
        following = answer.get("next_page_token") if isinstance(answer, dict) else ""
        if not page or not following or following == token:
            return read_tasks(items)
        token = str(following)


def find_run(text: str, *, namespace: str = "") -> Operation[str]:
    """The id of the run whose id begins with `text`, or of the newest one for `latest`.

    Raises InputError where none or several of the newest thousand do.
    """
    if len(text) >= 36:
        return text
    page = yield from newest_runs(1 if text == "latest" else 1000, predicates=(), namespace=namespace)
    found = [run.run_id for run in page.runs if text == "latest" or run.run_id.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found and text:
        raise InputError(f"{len(found)} runs have an id that begins with {text}.", "Give more of it.")
    raise InputError(
        "There is no run yet." if text == "latest" else f"No run has an id that begins with {text!r}.",
        "`kanary runs` lists them.",
    )


@dataclass(frozen=True)
class Origin:
    """What a run was started from: the pipeline's own text where the server gives it, else the version it names."""

    spec: Mapping[str, Any]
    platform_spec: Mapping[str, Any] | None
    version: Mapping[str, Any] | None  # {pipeline_id, pipeline_version_id}
    parameters: Mapping[str, Any]
    pipeline_root: str
    service_account: str
    experiment_name: str


def get_origin(run_id: str) -> Operation[Origin]:
    """What it takes to start the same again. ApiError(404) where there is no such run."""
    answer = yield Request("GET", f"{API}/runs/{_segment(run_id)}", {"view": "FULL"})
    document = answer if isinstance(answer, dict) else {}
    spec, version = document.get("pipeline_spec"), document.get("pipeline_version_reference")
    platform = spec.get("platform_spec") if isinstance(spec, dict) else None
    inner = spec.get("pipeline_spec") if isinstance(spec, dict) else None
    spec = inner if isinstance(inner, dict) else spec
    whole = isinstance(spec, dict) and isinstance(spec.get("root"), dict)
    if not whole and not isinstance(version, dict):
        raise ApiError("The server does not say of which pipeline this run is.", "Submit the compiled pipeline itself.")
    config = document.get("runtime_config")
    config = config if isinstance(config, dict) else {}
    parameters = config.get("parameters")
    return Origin(
        spec=spec if isinstance(spec, dict) and whole else {},
        platform_spec=platform if isinstance(platform, dict) and platform else None,
        version=version if isinstance(version, dict) else None,
        parameters=parameters if isinstance(parameters, dict) else {},
        pipeline_root=str(config.get("pipeline_root") or ""),
        service_account=str(document.get("service_account") or ""),
        experiment_name=(yield from _experiment_name(document.get("experiment_id"))),
    )


def _experiment_name(experiment_id: Any) -> Operation[str]:
    if not isinstance(experiment_id, str) or not experiment_id:
        return ""
    try:
        answer = yield Request("GET", f"{API}/experiments/{_segment(experiment_id)}")
        return read_experiment(answer).name
    except ApiError:
        return ""  # deleted meanwhile, or not ours to see: the default one will do


def create_run(
    spec: Mapping[str, Any],
    *,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    platform_spec: Mapping[str, Any] | None = None,
    version: Mapping[str, Any] | None = None,
    experiment_id: str = "",
    pipeline_root: str = "",
    service_account: str = "",
    description: str = "",
) -> Operation[Run]:
    """Starts a run of a compiled pipeline, or of a `version` that the server knows (its reference, as a run has it).

    `parameters` have the types that the spec declares.
    """
    config: dict[str, Any] = {"parameters": dict(parameters or {})}
    if pipeline_root:
        config["pipeline_root"] = pipeline_root
    body = {
        "display_name": name,
        "description": description,
        "experiment_id": experiment_id,
        "pipeline_version_reference": dict(version) if version else "",
        "pipeline_spec": "" if version else _whole(spec, platform_spec),
        "runtime_config": config,
        "service_account": service_account,
    }
    answer = yield Request("POST", f"{API}/runs", body={key: value for key, value in body.items() if value != ""})
    return read_run(answer)


def _whole(spec: Mapping[str, Any], platform_spec: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {"pipeline_spec": spec, "platform_spec": platform_spec} if platform_spec else spec


def terminate_run(run_id: str) -> Operation[None]:
    """Asks for the run's end; it is CANCELING, then CANCELED, some time later."""
    yield Request("POST", f"{API}/runs/{_segment(run_id)}:terminate")


def retry_run(run_id: str) -> Operation[None]:
    """Runs what failed or was cancelled once more; what succeeded is kept."""
    yield Request("POST", f"{API}/runs/{_segment(run_id)}:retry")


def archive_run(run_id: str) -> Operation[None]:
    yield Request("POST", f"{API}/runs/{_segment(run_id)}:archive")


def unarchive_run(run_id: str) -> Operation[None]:
    yield Request("POST", f"{API}/runs/{_segment(run_id)}:unarchive")


def delete_run(run_id: str) -> Operation[None]:
    yield Request("DELETE", f"{API}/runs/{_segment(run_id)}")


def find_experiment(name: str, *, namespace: str = "") -> Operation[Experiment | None]:
    """The experiment of that name; None where there is none."""
    params = {"filter": filter_text([Predicate("display_name", "EQUALS", name)]), "namespace": namespace}
    answer = yield Request("GET", f"{API}/experiments", params)
    # Checked again: a server that does not know the filter answers with all of them.
    return next((found for found in read_experiments(answer) if found.name == name), None)


def ensure_experiment(name: str, *, namespace: str = "") -> Operation[Experiment]:
    """The experiment of that name, created where there was none."""
    found = yield from find_experiment(name, namespace=namespace)
    if found is not None:
        return found
    body = {"display_name": name} | ({"namespace": namespace} if namespace else {})
    try:
        answer = yield Request("POST", f"{API}/experiments", body=body)
    except ApiError as error:
        # Somebody else created it in between.
        found = (yield from find_experiment(name, namespace=namespace)) if error.status == 409 else None
        if found is None:
            raise
        return found
    return read_experiment(answer)


def task_log(run_id: str, task: TaskDetail, *, follow: bool = False) -> Request:
    """The request whose body is the task's log; read it through a LogTail.

    Raises InputError where the server does not say which pod ran the task.
    """
    if not task.pod_name:
        raise InputError(
            f"The server does not say which pod ran {task.name}.",
            f"On the cluster: kubectl logs -l pipeline/runid={run_id} -c main",
        )
    path = f"/apis/v1alpha1/runs/{_segment(run_id)}/nodes/{_segment(task.pod_name)}/log"
    return Request("GET", path, {"follow": "true"} if follow else {})


class LogTail:
    """What is new in a log that is read in pieces, and again from its start where a server does not follow it.

    A KFP server answers 200 and an error as JSON when it cannot read the log: that raises ApiError.
    """

    _ERROR = '{"error_message":'

    def __init__(self) -> None:
        self._shown = 0
        self._position = 0
        self._held = ""

    def restart(self) -> None:
        """The log is about to be read from its start again."""
        self._position = 0
        self._held = ""

    def feed(self, text: str) -> str:
        """The part of the next piece that has not been given yet."""
        if self._position == 0:
            text = self._held + text
            self._held = ""
            if text.startswith(self._ERROR) or self._ERROR.startswith(text):
                # It may be an error's beginning: wait for more.
                self._held = text
                return ""
        return self._new(text)

    def end(self) -> str:
        """The last new part, once the answer is over. Raises ApiError where the answer was an error."""
        held, self._held = self._held, ""
        try:
            message = json.loads(held).get("error_message") if held.startswith(self._ERROR) else None
        except (ValueError, AttributeError):
            message = None
        if isinstance(message, str) and message:
            raise ApiError(f"The server cannot read the log: {message}", "Its pod may be gone, or not there yet.")
        return self._new(held)

    def _new(self, text: str) -> str:
        start, self._position = self._position, self._position + len(text)
        fresh = text[max(0, self._shown - start) :]
        self._shown = max(self._shown, self._position)
        return fresh


def filter_text(predicates: Sequence[Predicate]) -> str:
    """The predicates as the `filter` parameter has them; empty for none."""
    if not predicates:
        return ""
    return json.dumps(
        {
            "predicates": [
                {
                    "key": predicate.key,
                    "operation": predicate.operation,
                    "string_value" if isinstance(predicate.value, str) else "int_value": predicate.value,
                }
                for predicate in predicates
            ]
        }
    )


def _segment(text: str) -> str:
    if not text or text in (".", ".."):
        raise InputError(f"{text!r} is no id.", "`kanary runs` lists the runs' ids.")
    return quote(text, safe="")
