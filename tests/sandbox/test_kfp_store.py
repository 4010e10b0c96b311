"""The store of runs and tasks: what is kept, found, paged, forgotten, and what outlives a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import Conflict, InvalidSpec, NotFound, SandboxError
from sandbox.runstore.catalog import AlreadyExists, Catalog, PipelineVersion
from sandbox.runstore.listing import ARTIFACTS, EXPERIMENTS, RUNS, VERSIONS, Query, parse_query
from sandbox.runstore.schema import STEPS
from sandbox.runstore.store import Run, Store, Task

SPEC = {"pipelineInfo": {"name": "p"}, "root": {}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "kfp" / "kfp.sqlite")
    yield opened
    opened.close()


def run_of(number: int, **fields: Any) -> Run:
    known: dict[str, Any] = {
        "run_id": f"run-{number:05}",
        "experiment_id": "e",
        "display_name": f"name {number:05}",
        "spec": SPEC,
        "created_at": 1000.0 + number,
        "scheduled_at": 1000.0 + number,
    }
    return Run(**known | fields)


def task_of(number: int, run_id: str = "run-00001", **fields: Any) -> Task:
    return Task(task_id=f"task-{number}", run_id=run_id, name=f"t{number}", created_at=float(number), **fields)


def ids(store: Store, query: Query) -> list[str]:
    return [run.run_id for run in store.list_runs(query).records]


def blobs(store: Store) -> int:
    row = store.database.row("SELECT count(*) AS number FROM blobs")
    assert row is not None
    return int(row["number"])


def test_a_run_comes_back_as_it_was_saved(store: Store) -> None:
    run = run_of(
        1,
        description="d",
        namespace="n",
        pipeline_id="p",
        pipeline_version_id="v",
        platform_spec={"platforms": {}},
        parameters={"a": 1, "b": [1.5, None, "x\ud800", True], "c": {"d": "é"}},
        pipeline_root="/r",
        state="FAILED",
        storage_state="ARCHIVED",
        error="why",
        finished_at=1002.5,
        state_history=[{"state": "FAILED", "update_time": 1.0, "error": "why"}],
        service_account="s",
        enable_caching=False,
    )
    store.save_run(run)
    assert store.get_run(run.run_id) == run


def test_a_task_comes_back_as_it_was_saved_and_in_order(store: Store) -> None:
    store.save_run(run_of(1))
    artifact = {"name": "m", "uri": "/u", "type": {"schemaTitle": "system.Model"}, "metadata": {"k": 1}}
    task = task_of(
        2,
        parent_task_id="task-1",
        display_name="d",
        kind="DAG",
        state="SUCCEEDED",
        started_at=3.0,
        finished_at=4.0,
        inputs={"parameters": {"x": 1}},
        outputs={"artifacts": {"m": [artifact]}},
        error="",
        pod_name="pod",
        attempt=2,
        cached=True,
        fingerprint="f",
        state_history=[{"state": "PENDING", "update_time": 2.0, "error": ""}],
    )
    store.save_task(task)
    store.save_task(task_of(1))
    store.save_task(dataclasses.replace(task, state="FAILED"))
    assert store.tasks("run-00001") == [task_of(1), dataclasses.replace(task, state="FAILED")]
    assert store.tasks("nowhere") == []


def test_saving_a_run_again_changes_its_state_and_not_its_spec(store: Store) -> None:
    store.save_run(run_of(1))
    store.save_run(run_of(1, state="SUCCEEDED", spec={"other": 1}))
    kept = store.get_run("run-00001")
    assert (kept.state, kept.spec) == ("SUCCEEDED", SPEC)


def test_one_spec_is_kept_once_and_goes_with_its_last_user(store: Store) -> None:
    for number in range(3):
        store.save_run(run_of(number))
    catalog = Catalog(store.database)
    pipeline = catalog.create_pipeline("p", "p", "", "")
    version = PipelineVersion("v", pipeline.pipeline_id, "v", "v", "", "", 1.0, SPEC, {})
    catalog.create_version(version)
    assert blobs(store) == 1
    for number in range(3):
        store.delete_run(f"run-{number:05}")
    assert blobs(store) == 1
    assert catalog.version(pipeline.pipeline_id, "v") == version
    catalog.delete_version(pipeline.pipeline_id, "v")
    assert blobs(store) == 0


def test_however_big_specs_are_few_are_held_in_memory(store: Store) -> None:
    for number in range(12):
        store.save_run(run_of(number, spec={"number": number, "padding": "x" * 3_000_000}))
    assert [run.spec["number"] for run in store.unfinished_runs()] == list(range(12))
    assert sum(len(document.text) for document in store.database._decoded.values()) <= 16 * 2**20
    first, again = store.get_run("run-00011").spec, store.get_run("run-00011").spec
    assert first is again, "what is used again is not decoded again"


def test_a_page_of_big_specs_is_cut_short_and_goes_on(store: Store) -> None:
    for number in range(15):
        store.save_run(run_of(number, spec={"number": number, "padding": "x" * 5_000_000}))
    seen: list[str] = []
    pages, token = 0, ""
    while pages == 0 or token:
        page = store.list_runs(parse_query(RUNS, {"page_size": "100", "page_token": token}))
        assert 0 < sum(len(json.dumps(run.spec)) for run in page.records) <= 33 * 2**20
        seen += [run.run_id for run in page.records]
        pages, token = pages + 1, page.next_page_token
    assert seen == [f"run-{number:05}" for number in range(15)]
    assert pages == 3


def test_a_deleted_run_takes_its_tasks_along_and_later_ones_are_dropped(store: Store) -> None:
    store.save_run(run_of(1))
    store.save_task(task_of(1, fingerprint="f", state="SUCCEEDED"))
    store.delete_run("run-00001")
    store.save_task(task_of(2))
    assert store.tasks("run-00001") == []
    assert store.cached_task("f") is None
    with pytest.raises(NotFound):
        store.get_run("run-00001")
    with pytest.raises(NotFound):
        store.delete_run("run-00001")


def test_unfinished_runs_are_those_in_no_final_state_oldest_first(store: Store) -> None:
    states = ["RUNNING", "SUCCEEDED", "PENDING", "FAILED", "CANCELING", "CANCELED", "PAUSED", "SKIPPED"]
    for number, state in enumerate(states):
        store.save_run(run_of(100 - number, state=state))
    assert [run.state for run in store.unfinished_runs()] == ["PAUSED", "CANCELING", "PENDING", "RUNNING"]


def test_the_cache_finds_the_newest_success_of_a_pod_task(store: Store) -> None:
    store.save_run(run_of(1))
    for number, (state, kind) in enumerate([("SUCCEEDED", "POD")] * 2 + [("FAILED", "POD"), ("SUCCEEDED", "DAG")]):
        store.save_task(task_of(number, fingerprint="f", state=state, kind=kind, finished_at=10.0 + number))
    store.save_task(task_of(9, state="SUCCEEDED", finished_at=60.0))
    found = store.cached_task("f")
    assert found is not None
    assert found.task_id == "task-1"
    assert store.cached_task("g") is None
    assert store.cached_task("") is None


def test_pages_neither_repeat_nor_skip_while_runs_come_and_go(store: Store) -> None:
    for number in range(10):
        store.save_run(run_of(number))
    query = parse_query(RUNS, {"page_size": "4", "sort_by": "created_at desc"})
    page = store.list_runs(query)
    assert [run.run_id for run in page.records] == [f"run-{n:05}" for n in (9, 8, 7, 6)]
    store.save_run(run_of(10))
    store.delete_run("run-00009")
    store.delete_run("run-00005")
    rest = parse_query(RUNS, {"page_size": "4", "page_token": page.next_page_token})
    page = store.list_runs(rest)
    assert [run.run_id for run in page.records] == [f"run-{n:05}" for n in (4, 3, 2, 1)]
    assert page.total == 9
    last = store.list_runs(parse_query(RUNS, {"page_token": page.next_page_token}))
    assert [run.run_id for run in last.records] == ["run-00000"]
    assert last.next_page_token == ""


def test_runs_of_one_instant_are_all_listed(store: Store) -> None:
    for number in range(7):
        store.save_run(run_of(number, created_at=5.0))
    seen, token = [], ""
    while True:
        page = store.list_runs(parse_query(RUNS, {"page_size": "2", "page_token": token, "sort_by": "created_at"}))
        seen += [run.run_id for run in page.records]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"run-{number:05}" for number in range(7)]


def test_a_token_is_bound_to_its_list_its_order_and_its_filter(store: Store) -> None:
    for number in range(4):
        store.save_run(run_of(number))
    token = store.list_runs(parse_query(RUNS, {"page_size": "2", "sort_by": "name"})).next_page_token
    assert ids(store, parse_query(RUNS, {"page_token": token, "sort_by": "name"})) == ["run-00002", "run-00003"]
    for other in ({"sort_by": "name desc"}, {"filter": '{"predicates":[]}'}):
        with pytest.raises(InvalidSpec, match="page_token"):
            parse_query(RUNS, {"page_token": token, **other})
    with pytest.raises(InvalidSpec, match="page_token"):
        parse_query(EXPERIMENTS, {"page_token": token})


@pytest.mark.parametrize(
    ("predicate", "numbers"),
    [
        ({"operation": 1, "key": "state", "string_value": "FAILED"}, [1]),
        ({"operation": "NOT_EQUALS", "key": "status", "string_value": "FAILED"}, [0, 2, 3]),
        ({"operation": 3, "key": "created_at", "timestamp_value": "1970-01-01T00:16:41Z"}, [2, 3]),
        ({"operation": 5, "key": "created_at", "long_value": "1002"}, [2, 3]),
        ({"operation": 6, "key": "runs.created_at", "int_value": 1001}, [0]),
        ({"operation": "LESS_THAN_EQUALS", "key": "created_at", "stringValue": "1970-01-01T00:16:41+00:00"}, [0, 1]),
        ({"operation": 8, "key": "id", "stringValues": {"values": ["run-00003", "run-00000", "x"]}}, [0, 3]),
        ({"operation": 8, "key": "id", "string_values": {"values": []}}, []),
        ({"operation": 9, "key": "name", "string_value": "E 0000"}, [0, 1, 2, 3]),
        ({"operation": 9, "key": "display_name", "string_value": "%"}, []),
        ({"operation": 1, "key": "name", "string_value": "' OR 1=1 --"}, []),
    ],
)
def test_every_operation_of_a_filter(store: Store, predicate: dict[str, Any], numbers: list[int]) -> None:
    for number, state in enumerate(["SUCCEEDED", "FAILED", "RUNNING", "SUCCEEDED"]):
        store.save_run(run_of(number, state=state))
    query = parse_query(RUNS, {"filter": json.dumps({"predicates": [predicate]})})
    assert ids(store, query) == [f"run-{number:05}" for number in numbers]


@pytest.mark.parametrize(
    ("sort_by", "experiment"),
    [("", ""), ("created_at desc", ""), ("name", ""), ("state desc", ""), ("", "e"), ("created_at desc", "e")],
)
def test_a_page_of_many_runs_is_read_from_an_index(store: Store, sort_by: str, experiment: str) -> None:
    """So that a page of 10,000 runs costs what a page of ten costs, but for the count."""
    statements: list[str] = []
    with store.database.transaction() as connection:
        connection.set_trace_callback(statements.append)
        store.list_runs(parse_query(RUNS, {"sort_by": sort_by}).where("experiment_id", experiment))
        connection.set_trace_callback(None)
    listing = next(statement for statement in statements if "LIMIT" in statement)
    plan = " | ".join(row["detail"] for row in store.database.rows(f"EXPLAIN QUERY PLAN {listing}"))
    assert "USING INDEX" in plan
    assert "TEMP B-TREE" not in plan


def test_names_are_unique_in_their_namespace(store: Store) -> None:
    catalog = Catalog(store.database)
    catalog.create_experiment("e", namespace="a")
    catalog.create_experiment("e", namespace="b")
    with pytest.raises(AlreadyExists):
        catalog.create_experiment("e", namespace="a")
    pipeline = catalog.create_pipeline("p", "p", "", "")
    with pytest.raises(AlreadyExists):
        catalog.create_pipeline("p", "other", "", "")
    version = PipelineVersion("v1", pipeline.pipeline_id, "v", "v", "", "", 1.0, SPEC, {})
    catalog.create_version(version)
    with pytest.raises(AlreadyExists):
        catalog.create_version(dataclasses.replace(version, pipeline_version_id="v2", spec={"unused": 1}))
    assert blobs(store) == 1, "a refused version leaves nothing behind"


def test_the_newest_version_is_the_one_without_an_id(store: Store) -> None:
    catalog = Catalog(store.database)
    pipeline_id = catalog.create_pipeline("p", "p", "", "").pipeline_id
    for number in (1, 3, 2):
        version = PipelineVersion(f"v{number}", pipeline_id, f"v{number}", "", "", "", float(number), SPEC, {})
        catalog.create_version(version)
    assert catalog.version(pipeline_id, "").name == "v3"
    assert catalog.version("", "v1").name == "v1"
    with pytest.raises(NotFound):
        catalog.version("other", "v1")
    with pytest.raises(NotFound):
        catalog.version("", "")
    with pytest.raises(Conflict):
        catalog.delete_pipeline(pipeline_id, cascade=False)
    catalog.delete_pipeline(pipeline_id, cascade=True)
    assert catalog.list_versions(parse_query(VERSIONS, {})).total == 0


def test_there_is_one_default_experiment_however_often_the_store_is_opened(tmp_path: Path) -> None:
    found = set()
    for _ in range(2):
        store = Store(tmp_path / "kfp.sqlite")
        found.add(Catalog(store.database).default_experiment().experiment_id)
        store.close()
    assert len(found) == 1


def test_the_last_run_of_an_experiment_is_known(store: Store) -> None:
    catalog = Catalog(store.database)
    experiment_id = catalog.create_experiment("e").experiment_id
    for number in (5, 2):
        store.save_run(run_of(number, experiment_id=experiment_id))
    assert catalog.experiment(experiment_id).last_run_created_at == 1005.0


WRITER = """
import sys
from pathlib import Path
from sandbox.runstore.store import Run, Store

store = Store(Path(sys.argv[1]))
for number in range(10**6):
    store.save_run(Run(str(number), "e", "n", {"n": 1}, float(number), 0.0))
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_has_reported(tmp_path: Path) -> None:
    path = tmp_path / "kfp.sqlite"
    argv = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 100:
            pass
        writer.kill()
        reported = 100 + len(writer.stdout.readlines())
    store = Store(path)
    found = [int(run.run_id) for run in store.unfinished_runs()]
    store.close()
    assert found == list(range(len(found)))
    assert len(found) >= reported


def test_a_damaged_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "kfp.sqlite"
    path.write_bytes(b"this is no database, " * 1000)
    with pytest.raises(SandboxError, match=str(path)):
        Store(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kfp.sqlite"
    Store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(SandboxError, match="999"):
        Store(path)


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    with contextlib.suppress(RuntimeError), store.database.transaction():
        store.save_run(run_of(1))
        assert len(store.unfinished_runs()) == 1
        raise RuntimeError
    assert store.unfinished_runs() == []
    assert blobs(store) == 0


def test_a_file_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "kfp.sqlite"
    artifact = {"name": "m", "uri": "/u", "type": {"schemaTitle": "system.Model"}, "metadata": {}}
    outputs = json.dumps({"artifacts": {"m": [artifact]}})
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(STEPS[0] + "PRAGMA user_version = 1;")
        run = "'run-00001', 'e', 'n', '', '', '', '', 'SUCCEEDED', 'AVAILABLE', '', 1, 1, 2, '', '', NULL, '{}', '[]'"
        old.execute(f"INSERT INTO runs VALUES ({run}, '', '')")
        task = "'task-1', 'run-00001', '', 't1', '', 'POD', 'SUCCEEDED', 1, 1, 2, '', 'p', 1, 0, '', '{}', ?, '[]'"
        old.execute(f"INSERT INTO tasks VALUES ({task})", (outputs,))
        old.commit()
    opened = Store(path)
    loop = task_of(2, kind="DAG", iteration_count=3)
    opened.save_tasks([loop, task_of(3, kind="DAG", parent_task_id=loop.task_id, iteration_index=0)])
    assert [(task.iteration_index, task.iteration_count) for task in opened.tasks("run-00001")] == [
        (None, None),
        (None, 3),
        (0, None),
    ]
    assert opened.get_run("run-00001").recurring_run_id == ""
    assert [one.uri for one in opened.list_artifacts(parse_query(ARTIFACTS, {})).records] == ["/u"]
    opened.close()
