"""Whatever is sent, the API answers in its shape: what it was asked for, or a refusal with its code, never a fault.

A slice here, in order to see each change; ten thousand of each in `make soak`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from sandbox.kfp.api import make_app
from tests.kfp_api.rig import open_stage

FILE = Path(__file__).with_name("every_shape.json")
COMPILED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
SECONDS = 20.0  # of CPU; far less than what anything square in the size of a document takes


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The API over a store; nothing that it accepts is run."""
    stage = open_stage(tmp_path_factory.mktemp("hostile"))
    yield Client(make_app(stage.service))
    stage.service.store.close()


@dataclass(frozen=True)
class Client:
    """Sends requests to the application itself, without a server."""

    app: Starlette

    def get(self, path: str, **given: Any) -> httpx.Response:
        return asyncio.run(self._send("GET", path, given))

    def post(self, path: str, **given: Any) -> httpx.Response:
        return asyncio.run(self._send("POST", path, given))

    async def _send(self, method: str, path: str, given: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=None) as client:
            return await client.request(method, path, **given)


def answered(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, once it has proved to be one that the API may give."""
    began = time.process_time()
    answer = send()
    assert time.process_time() - began < SECONDS
    assert answer.status_code in (200, 400, 404, 405, 409, 413, 501), answer.text
    body = answer.json()
    if answer.status_code != 200:
        assert body["message"]
        assert isinstance(body["code"], int)
        assert body["details"][0]["@type"] == "type.googleapis.com/google.rpc.Status"
    return answer


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything in a document."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


PLACES = [path for path in places(COMPILED) if path]
NAMES = st.sampled_from(
    ["", ".", "..", "../../etc/passwd", "/abs", "a/b", "\0", "x" * 300, "-", "é", "%2e%2e", "comp-use", "dag", "root"]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    NAMES,
    st.sampled_from(["2.1.0", "3.0.0", "STRING", "NUMBER_INTEGER", "{{$}}", "inputs.parameter_values['x'] == 'y'"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
ACTS = st.sampled_from(["replace", "remove", "rename", "add"])


def changed(document: Any, path: tuple[Any, ...], act: str, name: str, value: Any) -> Any:
    copied = json.loads(json.dumps(document))
    place = copied
    for key in path[:-1]:
        place = place[key]
    last = path[-1]
    if act == "remove":
        del place[last]
    elif act == "rename" and isinstance(place, dict):
        place[name] = place.pop(last)
    elif act == "add" and isinstance(place[last], dict):
        place[last][name] = value
    else:
        place[last] = value
    return copied


def submit(client: Client, spec: Any, parameters: Any) -> None:
    body = {"display_name": "r", "pipeline_spec": spec, "runtime_config": {"parameters": parameters}}
    answer = answered(lambda: client.post("/apis/v2beta1/runs", content=json.dumps(body)))
    if answer.status_code == 200:
        run_id = answer.json()["run_id"]
        assert answered(lambda: client.get(f"/apis/v2beta1/runs/{run_id}")).status_code == 200


def test_the_pipeline_that_is_changed_is_accepted_as_it_is(client: Client) -> None:
    body = {"display_name": "r", "pipeline_spec": COMPILED, "runtime_config": {"parameters": {"text": "a"}}}
    assert client.post("/apis/v2beta1/runs", json=body).json()["state"] == "PENDING"


CHANGE = (st.sampled_from(PLACES), ACTS, NAMES, VALUES)
CHANGED = st.tuples(*CHANGE)
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "page_size": st.one_of(st.integers().map(str), st.text(max_size=5)),
        "page_token": st.one_of(st.text(max_size=30), st.binary(max_size=40).map(lambda found: found.hex())),
        "sort_by": st.one_of(
            st.text(max_size=20), st.sampled_from(["name", "created_at desc", "state asc desc", "tags.a"])
        ),
        "filter": st.one_of(
            st.text(max_size=30),
            VALUES.map(json.dumps),
            st.fixed_dictionaries(
                {
                    "predicates": st.lists(
                        st.fixed_dictionaries(
                            {
                                "key": st.one_of(
                                    st.sampled_from(["name", "created_at", "state", "tags.a", "tags.'"]), NAMES
                                ),
                                "operation": st.one_of(
                                    st.integers(-1, 12), st.sampled_from(["IN", "EQUALS", "IS_SUBSTRING"])
                                ),
                                "string_value": SCALARS,
                            },
                            optional={
                                "long_value": SCALARS,
                                "timestamp_value": SCALARS,
                                "string_values": st.fixed_dictionaries({"values": st.lists(SCALARS, max_size=3)}),
                            },
                        ),
                        max_size=3,
                    )
                }
            ).map(json.dumps),
        ),
        "namespace": st.text(max_size=5),
        "experiment_id": st.text(max_size=5),
        "view": st.text(max_size=5),
    },
)
LISTS = st.sampled_from(["runs", "experiments", "pipelines", "recurringruns", "artifacts", "artifact_tasks"])
POSTS = st.sampled_from(
    ["runs", "experiments", "pipelines", "recurringruns", "pipelines/create", "pipelines/x/versions"]
)
FIELDS = st.sampled_from(
    ["display_name", "name", "pipeline_spec", "runtime_config", "trigger", "mode", "max_concurrency", "experiment_id",
     "pipeline_version_reference", "tags", "description", "namespace", "no_catchup", "service_account", "other"]
)  # fmt: skip
BODY = st.one_of(VALUES, st.dictionaries(FIELDS, VALUES))
YAML = st.one_of(
    st.text(max_size=60),
    VALUES.map(lambda value: yaml.safe_dump(value)),
    st.lists(
        st.sampled_from(
            ["a: &a [*a]", "- ", "{", "}", "[", "&x", "*x", "!!python/object", "---", "...", "<<: *x", "\t", "? ", "'"]
        )
    ).map("\n".join),
)


def check_change(client: Client, path: tuple[Any, ...], act: str, name: str, value: Any) -> None:
    submit(client, changed(COMPILED, path, act, name, value), {"text": "a"})


def check_query(client: Client, kind: str, query: dict[str, str]) -> None:
    answered(lambda: client.get(f"/apis/v2beta1/{kind}", params=query))


def check_body(client: Client, kind: str, body: Any) -> None:
    answered(lambda: client.post(f"/apis/v2beta1/{kind}", content=json.dumps(body)))


def check_upload(client: Client, text: str) -> None:
    files = {"uploadfile": ("p.yaml", text.encode("utf-8", "replace"))}
    answered(lambda: client.post("/apis/v2beta1/pipelines/upload", files=files))


@FEW
@given(*CHANGE)
def test_a_pipeline_with_anything_in_it_changed(
    client: Client, path: tuple[Any, ...], act: str, name: str, value: Any
) -> None:
    check_change(client, path, act, name, value)


@FEW
@given(parameters=st.dictionaries(st.sampled_from(["text", "count", "options", "flag", "../x", "other"]), VALUES))
def test_parameters_of_any_type(client: Client, parameters: Any) -> None:
    submit(client, COMPILED, parameters)


@FEW
@given(kind=LISTS, query=QUERY)
def test_lists_asked_for_anything(client: Client, kind: str, query: dict[str, str]) -> None:
    check_query(client, kind, query)


@FEW
@given(kind=POSTS, body=BODY)
def test_bodies_of_anything(client: Client, kind: str, body: Any) -> None:
    check_body(client, kind, body)


@FEW
@given(text=YAML)
def test_uploads_of_anything(client: Client, text: str) -> None:
    check_upload(client, text)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@MANY
@given(CHANGED, st.tuples(LISTS, QUERY), st.tuples(POSTS, BODY), YAML)
def test_ten_thousand_of_each(client: Client, change: Any, query: Any, body: Any, text: str) -> None:
    check_change(client, *change)
    check_query(client, *query)
    check_body(client, *body)
    check_upload(client, text)


def test_a_long_chain_of_tasks_is_checked_in_time(client: Client) -> None:
    """Three thousand, each after the one before: nothing in the checks is square in their number."""
    task = COMPILED["components"]["comp-exit-handler-1"]["dag"]["tasks"]["make"]
    task = {**task, "inputs": {"parameters": {"text": {"runtimeValue": {"constant": "a"}}}}}
    tasks = {f"t{n}": {**task, "dependentTasks": [f"t{n - 1}"] if n else []} for n in range(3000)}
    spec = {**COMPILED, "root": {"dag": {"tasks": tasks}}}
    answer = answered(lambda: client.post("/apis/v2beta1/runs", json={"display_name": "r", "pipeline_spec": spec}))
    assert answer.status_code == 200, answer.text
    tasks["t0"]["dependentTasks"] = ["t2999"]
    answer = answered(lambda: client.post("/apis/v2beta1/runs", json={"display_name": "r", "pipeline_spec": spec}))
    assert answer.status_code == 400
    assert "root.dag.tasks: tasks wait for each other" in answer.json()["message"]


def test_pipelines_within_pipelines_do_not_multiply_without_end(client: Client) -> None:
    """Each component uses the next one twice: forty levels would be a million million tasks."""
    components = {
        f"c{n}": {"dag": {"tasks": {name: {"componentRef": {"name": f"c{n + 1}"}} for name in ("a", "b")}}}
        for n in range(40)
    }
    components["c40"] = COMPILED["components"]["comp-make"]
    root = {"dag": {"tasks": {"first": {"componentRef": {"name": "c0"}}}}}
    spec = {**COMPILED, "components": components, "root": root}
    answer = answered(lambda: client.post("/apis/v2beta1/runs", json={"display_name": "r", "pipeline_spec": spec}))
    assert answer.status_code == 400
    assert "more than 20,000 tasks" in answer.json()["message"]
