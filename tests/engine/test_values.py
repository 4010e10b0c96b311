"""What flows between steps: types, defaults, optional inputs, artifacts, placeholders, nested pipelines, the cache."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from kfp import dsl

from sandbox.engine import fetch
from tests.engine import steps

Runs = Callable[..., Any]


@pytest.mark.kfp_local_differs("it fails on null inside a list")
def test_every_type_comes_out_as_it_went_in(run: Runs) -> None:
    @dsl.pipeline(name="types")
    def pipeline(i: int, f: float, b: bool, s: str, items: list, entries: dict) -> None:  # type: ignore[type-arg]
        steps.number(value=i)
        steps.real(value=f)
        steps.truth(value=b)
        steps.text(value=s)
        steps.listed(value=items)
        steps.mapped(value=entries)

    given = {"i": -3, "f": 0.1, "b": False, "s": "é\n'\"", "items": [1, [2.5, None]], "entries": {"k": {"n": 1}}}
    outputs = run(pipeline, **given).outputs()
    names = ("number", "real", "truth", "text", "listed", "mapped")
    assert [outputs[name] for name in names] == list(given.values())
    assert outputs["truth"] is False


@pytest.mark.kfp_local_differs("it fails on null inside a dict")
def test_types_inside_a_dict_are_kept(run: Runs) -> None:
    @dsl.pipeline(name="inside")
    def pipeline(value: dict) -> None:  # type: ignore[type-arg]
        steps.kind_of(value=value)

    given = {"a": 1, "b": 1.5, "c": True, "d": "1", "e": [], "f": {}, "g": None}
    assert run(pipeline, value=given).outputs() == {"kind-of": "a:int,b:float,c:bool,d:str,e:list,f:dict,g:NoneType"}


def test_defaults_of_components_and_pipelines_apply(run: Runs) -> None:
    @dsl.pipeline(name="defaults")
    def pipeline(value: str = "the pipeline's") -> None:
        steps.defaulted()
        steps.defaulted(value=value, count=1)

    assert run(pipeline).outputs() == {"defaulted": "the default 3", "defaulted-2": "the pipeline's 1"}
    assert run(pipeline, value="given").outputs()["defaulted-2"] == "given 1"


@pytest.mark.kfp_local_differs("it fails where an optional parameter of the pipeline is not set")
def test_an_optional_input_that_nobody_set_is_not_there(run: Runs) -> None:
    @dsl.pipeline(name="optional")
    def pipeline(value: Optional[str] = None) -> None:  # noqa: UP045
        steps.optional()
        steps.optional(value=value)

    assert run(pipeline).outputs() == {"optional": "nothing", "optional-2": "nothing"}
    assert run(pipeline, value="something").outputs()["optional-2"] == "something"


@pytest.mark.kfp_local_differs("it fails where an optional parameter of the pipeline is not set")
def test_an_optional_input_goes_through_a_nested_pipeline(run: Runs) -> None:
    @dsl.pipeline(name="inner")
    def inner(value: Optional[str] = None, other: str = "inner default") -> None:  # noqa: UP045
        steps.optional(value=value)
        steps.text(value=other)

    @dsl.pipeline(name="outer")
    def pipeline(value: Optional[str] = None) -> None:  # noqa: UP045
        inner()
        inner(value=value, other="given")

    outputs = run(pipeline).outputs()
    assert (outputs["inner/optional"], outputs["inner/text"]) == ("nothing", "inner default")
    assert (outputs["inner-2/optional"], outputs["inner-2/text"]) == ("nothing", "given")
    assert run(pipeline, value="deep").outputs()["inner-2/optional"] == "deep"


def test_an_optional_artifact_that_nobody_gave_is_not_there(run: Runs) -> None:
    @dsl.pipeline(name="optional-artifact")
    def pipeline() -> None:
        steps.read_maybe()
        steps.read_maybe(data=steps.write(value="there").outputs["data"])

    assert run(pipeline).outputs() == {"read-maybe": "nothing", "read-maybe-2": "there"}


def test_named_outputs_go_to_different_steps(run: Runs) -> None:
    @dsl.pipeline(name="named-outputs")
    def pipeline() -> None:
        made = steps.several()
        steps.real(value=made.outputs["score"])
        steps.text(value=made.outputs["name"])
        steps.truth(value=made.outputs["good"])

    outputs = run(pipeline).outputs()
    assert (outputs["real"], outputs["text"], outputs["truth"]) == (0.75, 'it\'s "quoted"', True)


@pytest.mark.kfp_local_differs("its URIs are other folders")
def test_an_artifact_carries_its_file_its_uri_and_its_metadata(run: Runs) -> None:
    @dsl.pipeline(name="artifact")
    def pipeline() -> None:
        data = steps.write(value="hello").outputs["data"]
        steps.read(data=data)
        steps.described(data=data)

    outcome = run(pipeline)
    assert outcome.outputs()["read"] == "hello"
    described = outcome.outputs()["described"]
    assert (described["metadata"], described["type"]) == ({"letters": 5}, "Dataset")
    assert Path(described["uri"]).read_text() == "hello"
    (stored,) = outcome.at["write"].outputs["artifacts"]["data"]
    assert (stored["uri"], stored["type"]["schemaTitle"]) == (described["uri"], "system.Dataset")


def test_metrics_are_kept_in_the_artifact(run: Runs) -> None:
    @dsl.pipeline(name="metrics")
    def pipeline() -> None:
        steps.measured()

    (metrics,) = run(pipeline).at["measured"].outputs["artifacts"]["metrics"]
    assert (metrics["type"]["schemaTitle"], metrics["metadata"]) == ("system.Metrics", {"accuracy": 0.9})


def test_a_nested_pipeline_takes_and_gives_parameters_and_artifacts(run: Runs) -> None:
    @dsl.pipeline(name="inner")
    def inner(value: str) -> dsl.Dataset:
        return steps.write(value=value).outputs["data"]

    @dsl.pipeline(name="middle")
    def middle(value: str) -> dsl.Dataset:
        return inner(value=value).output

    @dsl.pipeline(name="outer")
    def pipeline(value: str = "through three") -> None:
        steps.read(data=middle(value=value).output)

    outcome = run(pipeline)
    assert outcome.outputs() == {"read": "through three"}
    assert outcome.steps() == {"middle/inner/write": "SUCCEEDED", "read": "SUCCEEDED"}


def test_a_pipeline_used_twice_runs_twice(run: Runs) -> None:
    @dsl.pipeline(name="inner")
    def inner(value: int) -> int:
        return steps.double(value=value).output  # type: ignore[no-any-return]

    @dsl.pipeline(name="outer")
    def pipeline() -> None:
        steps.number(value=inner(value=inner(value=1).output).output)

    assert run(pipeline).outputs()["number"] == 4


@pytest.mark.kfp_local_differs("it is the second to count in that file")
def test_after_orders_tasks_that_share_nothing(run: Runs, tmp_path: Path) -> None:
    @dsl.pipeline(name="ordered")
    def pipeline(path: str) -> None:
        first = steps.count_in(path=path).set_caching_options(False)
        second = steps.count_in(path=path).after(first).set_caching_options(False)
        steps.count_in(path=path).after(first, second).set_caching_options(False)

    outputs = run(pipeline, path=str(tmp_path / "runs")).outputs()
    assert list(outputs.values()) == [1, 2, 3]


@pytest.mark.kfp_local_differs("its run has another name and id")
def test_placeholders_tell_of_run_and_task(run: Runs) -> None:
    @dsl.pipeline(name="placeholders")
    def pipeline(value: str = "v") -> None:
        steps.text(value=dsl.PIPELINE_JOB_ID_PLACEHOLDER).set_display_name("run id")
        steps.text(value=dsl.PIPELINE_JOB_NAME_PLACEHOLDER).set_display_name("run name")
        steps.text(value=dsl.PIPELINE_TASK_NAME_PLACEHOLDER).set_display_name("task name")
        steps.text(value=dsl.PIPELINE_TASK_ID_PLACEHOLDER).set_display_name("task id")
        steps.text(value=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER).set_display_name("created")
        steps.text(value=f"{value}/{dsl.PIPELINE_JOB_ID_PLACEHOLDER}").set_display_name("both")

    outcome = run(pipeline)
    run_id = outcome.run.run_id
    assert (outcome.output("run id"), outcome.output("run name")) == (run_id, "test")
    assert outcome.output("task name") == "text-3"
    assert outcome.output("task id") == outcome.tasks["task id"].task_id
    assert outcome.output("created").endswith("Z")
    assert outcome.output("both") == f"v/{run_id}"


@pytest.mark.kfp_local_differs("it writes True")
def test_strings_are_put_together_from_outputs_of_every_type(run: Runs) -> None:
    @dsl.pipeline(name="f-strings")
    def pipeline(n: int = 3) -> None:
        made = steps.several()
        steps.text(value=f"{n} {made.outputs['score']} {made.outputs['good']} {made.outputs['name']}")

    assert run(pipeline).outputs()["text"] == '3 0.75 true it\'s "quoted"'


def test_environment_variables_are_set_for_their_step_alone(run: Runs) -> None:
    @dsl.pipeline(name="variables")
    def pipeline() -> None:
        steps.environment(name="COLOUR").set_env_variable("COLOUR", "green")
        steps.environment(name="COLOUR")

    assert run(pipeline).outputs() == {"environment": "green", "environment-2": ""}


def test_display_names_are_shown_and_change_nothing_else(run: Runs) -> None:
    @dsl.pipeline(name="names", display_name="Names for people")
    def pipeline() -> None:
        steps.double(value=steps.number(value=2).set_display_name("Two!").output).set_display_name("Twice two")

    outcome = run(pipeline)
    assert {task.name: task.display_name for task in outcome.at.values()} == {"number": "Two!", "double": "Twice two"}


@pytest.mark.kfp_local_differs("it reads no file behind a plain path")
def test_an_imported_artifact_has_its_uri_type_and_metadata(run: Runs, tmp_path: Path) -> None:
    @dsl.pipeline(name="import")
    def pipeline(uri: str, origin: str = "elsewhere") -> None:
        made = dsl.importer(
            artifact_uri=uri, artifact_class=dsl.Dataset, reimport=True, metadata={"from": origin, "n": 1}
        )
        steps.read(data=made.output)
        steps.described(data=made.output)

    (tmp_path / "data.txt").write_text("imported")
    outcome = run(pipeline, uri=str(tmp_path / "data.txt"))
    assert outcome.outputs()["read"] == "imported"
    described = outcome.outputs()["described"]
    assert described["metadata"] == {"from": "elsewhere", "n": 1}
    assert (described["uri"], described["type"]) == (str(tmp_path / "data.txt"), "Dataset")
    assert outcome.at["importer"].kind == "IMPORTER"


def test_an_importer_without_a_usable_uri_fails(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="bad-import")
    def pipeline(uri: str) -> None:
        dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)

    outcome = engine.run(compiled(pipeline), uri="relative/path")
    assert "neither a URI" in outcome.run.error


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with one file, at the URL that this gives."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "data.txt").write_text("from the web")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path / "www"))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dsl.pipeline(name="remote")
def remote(uri: str) -> None:
    steps.read(data=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output)


def test_an_artifact_that_lies_elsewhere_is_fetched_before_its_step(engine: Any, compiled: Any, web: str) -> None:
    outcome = engine.run(compiled(remote), uri=f"{web}/data.txt")
    assert outcome.outputs() == {"read": "from the web"}
    assert outcome.at["read"].inputs["artifacts"]["data"][0]["uri"] == f"{web}/data.txt"


@pytest.mark.parametrize("uri", ["oci://registry.example/model:1", "{web}/missing.txt"])
def test_an_artifact_that_cannot_be_fetched_fails_its_step_saying_which(
    engine: Any, compiled: Any, web: str, uri: str
) -> None:
    uri = uri.format(web=web)
    outcome = engine.run(compiled(remote), uri=uri)
    assert outcome.run.state == "FAILED"
    assert f"{uri} cannot be fetched" in outcome.run.error


def test_a_folder_that_another_step_has_fetched_meanwhile_is_there_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1234")
    target = tmp_path / "fetched" / "model"
    monkeypatch.setattr(sys, "argv", ["fetch", str(tmp_path / "model"), str(target)])
    fetch.main()
    fetch.main()  # it had been asked for before the first was done
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert (target / "weights").read_text() == "1234"


@pytest.mark.kfp_local_differs("its cache is another")
def test_a_hit_in_the_cache_is_shown_and_gives_what_was_kept(run: Runs, tmp_path: Path) -> None:
    @dsl.pipeline(name="cached")
    def pipeline(path: str) -> None:
        steps.double(value=steps.count_in(path=path).output)

    path = str(tmp_path / "runs")
    first, second = run(pipeline, path=path), run(pipeline, path=path)
    assert first.outputs() == second.outputs() == {"count-in": 1, "double": 2}
    assert [task.cached for task in first.at.values()] == [False, False]
    assert [task.cached for task in second.at.values()] == [True, True]
    assert first.run.run_id in second.log("count-in")


@pytest.mark.kfp_local_differs("its cache is another")
def test_the_cache_is_each_pipelines_own_and_off_where_asked(run: Runs, tmp_path: Path) -> None:
    def named(name: str, cached: bool) -> Any:
        @dsl.pipeline(name=name)
        def pipeline(path: str) -> None:
            steps.count_in(path=path).set_caching_options(cached)

        return pipeline

    path = str(tmp_path / "runs")
    given = [
        run(named(name, cached), path=path).outputs()["count-in"]
        for name, cached in (("one", True), ("one", True), ("other", True), ("one", False), ("one", True))
    ]
    assert given == [1, 1, 2, 3, 1]


@pytest.mark.kfp_local_differs("it knows no cache keys")
def test_a_cache_key_stands_for_all_inputs(run: Runs, tmp_path: Path) -> None:
    @dsl.pipeline(name="keyed")
    def pipeline(path: str, key: str = "same") -> None:
        steps.count_in(path=path).set_caching_options(True, cache_key="the key")

    first = run(pipeline, path=str(tmp_path / "one"))
    second = run(pipeline, path=str(tmp_path / "two"))
    assert first.outputs() == second.outputs()
    assert second.at["count-in"].cached
    assert not (tmp_path / "two").exists()


@pytest.mark.kfp_local_differs("it has no workspaces")
def test_the_workspace_is_a_folder_of_the_run(run: Runs) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def leave(folder: str) -> None:
        with open(f"{folder}/left", "w") as file:
            file.write("here")

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def find(folder: str) -> str:
        with open(f"{folder}/left") as file:
            return file.read()

    workspace = dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi"))

    @dsl.pipeline(name="workspace", pipeline_config=workspace)
    def pipeline() -> None:
        left = leave(folder=dsl.WORKSPACE_PATH_PLACEHOLDER)
        find(folder=dsl.WORKSPACE_PATH_PLACEHOLDER).after(left)

    assert run(pipeline).outputs() == {"find": "here"}


def test_what_the_platform_is_asked_in_vain_is_told_once_per_run(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="platform")
    def pipeline() -> None:
        first = steps.text(value="1").set_cpu_limit("2").set_caching_options(False)
        steps.text(value="2").after(first).set_caching_options(False)

    wanted = {"nodeSelector": {"labels": {"gpu": "yes"}}, "pvcMount": [{"mountPath": "/data", "constant": "claim"}]}
    executors = {"exec-text": wanted, "exec-text-2": {"nodeSelector": {"labels": {"gpu": "yes"}}}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
    outcome = engine.run(compiled(pipeline), platform)
    assert outcome.run.state == "SUCCEEDED"
    told = "without meaning on this machine: CPU limits (1 step), nodeSelector (2 steps), pvcMount (1 step)"
    assert told in outcome.log("text")
    assert "without meaning" not in outcome.log("text-2")


def test_volumes_are_made_and_deleted_in_name(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="volumes")
    def pipeline(value: str = "claim") -> None:
        steps.text(value=value)

    spec = compiled(pipeline)
    task = spec["root"]["dag"]["tasks"]["text"]
    task["inputs"]["parameters"] = {"pvc_name": task["inputs"]["parameters"]["value"]}
    spec["components"]["comp-text"]["inputDefinitions"] = {"parameters": {"pvc_name": {"parameterType": "STRING"}}}
    spec["components"]["comp-text"]["outputDefinitions"] = {"parameters": {"name": {"parameterType": "STRING"}}}
    spec["deploymentSpec"]["executors"]["exec-text"] = {"container": {"image": "argostub/createpvc"}}
    assert engine.run(spec).outputs() == {"text": {"name": "claim"}}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"parameterIterator": {"itemInput": "x", "items": {"raw": "{}"}}}, "no list"),
        ({"parameterIterator": {"itemInput": "x", "items": {"raw": "["}}}, "no JSON"),
        ({"parameterIterator": {"itemInput": "x", "items": {"inputParameter": "y"}}}, "no input of it"),
        ({"parameterIterator": {"items": {"raw": "[]"}}}, "which input its item is"),
        ({"triggerPolicy": {"strategy": "WHENEVER"}}, "WHENEVER"),
        (
            {
                "inputs": {
                    "parameters": {"value": {"componentInputParameter": "a", "parameterExpressionSelector": "a["}}
                }
            },
            "cannot be parsed",
        ),
        ({"inputs": {"parameters": {"value": {"what": 1}}}}, "an input of kind what"),
    ],
)
def test_a_damaged_task_is_refused_saying_where(engine: Any, compiled: Any, damage: dict[str, Any], says: str) -> None:
    from sandbox.errors import InvalidSpec

    @dsl.pipeline(name="damaged")
    def pipeline() -> None:
        steps.text(value="x")

    spec = compiled(pipeline)
    spec["root"]["dag"]["tasks"]["text"] |= damage
    with pytest.raises(InvalidSpec) as caught:
        engine.submit(spec)
    assert says in caught.value.message
    assert "root.dag.tasks.text" in caught.value.where


def test_pipelines_that_multiply_are_refused_at_once(engine: Any, compiled: Any) -> None:
    from sandbox.errors import InvalidSpec

    @dsl.pipeline(name="bomb")
    def pipeline() -> None:
        steps.text(value="x")

    spec = compiled(pipeline)
    below = "comp-text"
    for level in range(40):
        tasks = {f"t{n}": {"componentRef": {"name": below}, "taskInfo": {"name": f"t{n}"}} for n in range(10)}
        below = f"comp-{level}"
        spec["components"][below] = {"dag": {"tasks": tasks}}
    spec["root"]["dag"]["tasks"] = {"top": {"componentRef": {"name": below}, "taskInfo": {"name": "top"}}}
    with pytest.raises(InvalidSpec, match="more than 20,000 tasks"):
        engine.submit(spec)
