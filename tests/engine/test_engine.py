"""The engine runs compiled pipelines with Kubeflow's semantics: which tasks ran, with which outputs, in which state."""

# ruff: noqa: I002 -- kfp reads the types of components from live annotations
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kfp import dsl

from sandbox.errors import Conflict, InvalidSpec
from tests.engine.steps import count_in, wait_for

Compile = Callable[[Any], dict[str, Any]]
component = functools.partial(dsl.component, base_image="python:3.11")


@component
def give(value: str) -> str:
    return value


@component
def add(a: int, b: int = 2) -> int:
    assert isinstance(a, int)
    assert isinstance(b, int)
    return a + b


@component
def judge(score: float) -> NamedTuple("Verdict", [("passed", bool), ("reason", str)]):  # type: ignore[valid-type]
    return (score > 0.5, f"score is {score}")


@component
def write(text: str, data: dsl.Output[dsl.Dataset]) -> None:
    with open(data.path, "w") as file:
        file.write(text)
    data.metadata["letters"] = len(text)


@component
def read(data: dsl.Input[dsl.Dataset]) -> str:
    with open(data.path) as file:
        return file.read() + str(data.metadata["letters"])


@component
def fail(how: str) -> None:
    import os
    import signal
    import sys

    print("last words", flush=True)
    if how == "raise":
        raise ValueError("the reason")
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@component
def nothing_written(out: dsl.OutputPath(int)) -> None:  # type: ignore[valid-type]
    pass


@dsl.pipeline(name="gate")
def gate(score: float = 0.9) -> None:
    verdict = judge(score=score)
    with dsl.If(verdict.outputs["passed"] == True, "guarded"):  # noqa: E712
        give(value=verdict.outputs["reason"])
    with dsl.Else("refused"):
        add(a=1)


@dsl.pipeline(name="fails")
def fails(how: str) -> None:
    failed = fail(how=how).set_display_name("failing")
    give(value="after").after(failed).set_display_name("downstream")
    give(value="beside").set_display_name("sibling")


def test_values_keep_their_types_and_defaults_apply(engine: Any, compiled: Compile) -> None:
    @dsl.pipeline(name="sum")
    def pipeline(a: int = 1) -> None:
        first = add(a=a)
        add(a=first.output, b=10).set_display_name("second")

    outcome = engine.run(compiled(pipeline), a=5)
    assert outcome.run.state == "SUCCEEDED"
    assert (outcome.output("add"), outcome.output("second")) == (7, 17)


def test_artifacts_carry_files_and_metadata(engine: Any, compiled: Compile) -> None:
    @dsl.pipeline(name="files")
    def pipeline(text: str) -> None:
        read(data=write(text=text).outputs["data"])

    outcome = engine.run(compiled(pipeline), text="hello")
    assert outcome.output("read") == "hello5"
    assert outcome.tasks["write"].outputs["artifacts"]["data"][0]["metadata"] == {"letters": 5}


def test_the_branch_of_a_true_condition_runs_and_the_other_is_skipped(engine: Any, compiled: Compile) -> None:
    outcome = engine.run(compiled(gate))
    assert outcome.run.state == "SUCCEEDED"
    assert outcome.states()["give"] == "SUCCEEDED"
    assert outcome.states()["add"] == "SKIPPED"
    outcome = engine.run(compiled(gate), score=0.1)
    assert outcome.states()["guarded"] == "SKIPPED"
    assert outcome.states()["give"] == "SKIPPED"
    assert outcome.output("add") == 3


def test_one_of_gives_the_output_of_the_branch_that_ran(engine: Any, compiled: Compile) -> None:
    @dsl.pipeline(name="choice")
    def pipeline(which: str) -> None:
        with dsl.If(which == "a"):
            first = give(value="from a")
        with dsl.Else():
            second = give(value="from the other")
        give(value=dsl.OneOf(first.output, second.output)).set_display_name("chosen")

    spec = compiled(pipeline)
    assert engine.run(spec, which="a").output("chosen") == "from a"
    assert engine.run(spec, which="it's b").output("chosen") == "from the other"


def test_nested_pipelines_give_their_outputs(engine: Any, compiled: Compile) -> None:
    @dsl.pipeline(name="inner")
    def inner(a: int) -> int:
        return add(a=a).output  # type: ignore[no-any-return]

    @dsl.pipeline(name="outer")
    def outer(a: int = 1) -> None:
        add(a=inner(a=a).output).set_display_name("after inner")

    assert engine.run(compiled(outer), a=1).output("after inner") == 5


@pytest.mark.parametrize(
    ("how", "reason"), [("raise", "ValueError: the reason"), ("exit", "exit status 3"), ("kill", "SIGKILL")]
)
def test_a_failed_step_names_its_cause_and_stops_only_what_depends_on_it(
    engine: Any, compiled: Compile, how: str, reason: str
) -> None:
    outcome = engine.run(compiled(fails), how=how)
    assert outcome.run.state == "FAILED"
    assert reason in outcome.tasks["failing"].error
    assert "failing" in outcome.run.error
    assert reason in outcome.run.error
    assert outcome.states() == {"failing": "FAILED", "downstream": "SKIPPED", "sibling": "SUCCEEDED"}
    assert "last words" in outcome.log("failing")


def test_a_step_that_writes_no_output_fails(engine: Any, compiled: Compile) -> None:
    @dsl.pipeline(name="silent")
    def pipeline() -> None:
        nothing_written()

    outcome = engine.run(compiled(pipeline))
    assert outcome.run.state == "FAILED"
    assert "'out'" in outcome.run.error


def test_a_failing_step_is_tried_again_as_often_as_asked(engine: Any, compiled: Compile, tmp_path: Path) -> None:
    @dsl.pipeline(name="retries")
    def pipeline(path: str, fail_until: int) -> None:
        count_in(path=path, fail_until=fail_until).set_retry(2, backoff_duration="0s")

    spec = compiled(pipeline)
    outcome = engine.run(spec, path=str(tmp_path / "two"), fail_until=2)
    assert (outcome.run.state, outcome.output("count-in")) == ("SUCCEEDED", 3)
    outcome = engine.run(spec, path=str(tmp_path / "many"), fail_until=9)
    assert outcome.run.state == "FAILED"
    assert "attempt 3 fails" in outcome.run.error


def test_the_cache_is_hit_only_where_it_is_allowed(engine: Any, compiled: Compile, tmp_path: Path) -> None:
    @dsl.pipeline(name="caching")
    def pipeline(one: str, two: str) -> None:
        count_in(path=one).set_display_name("cached")
        count_in(path=two).set_caching_options(False).set_display_name("uncached")

    spec = compiled(pipeline)
    paths = {"one": str(tmp_path / "one"), "two": str(tmp_path / "two")}
    engine.run(spec, **paths)
    outcome = engine.run(spec, **paths)
    assert (outcome.output("cached"), outcome.tasks["cached"].cached) == (1, True)
    assert (outcome.output("uncached"), outcome.tasks["uncached"].cached) == (2, False)


def test_environment_and_placeholders_reach_the_step(engine: Any, compiled: Compile) -> None:
    @component
    def environment() -> str:
        import os

        return os.environ["COLOUR"]

    @dsl.pipeline(name="surroundings")
    def pipeline() -> None:
        environment().set_env_variable("COLOUR", "blue")
        give(value=dsl.PIPELINE_JOB_ID_PLACEHOLDER)

    outcome = engine.run(compiled(pipeline))
    assert outcome.output("environment") == "blue"
    assert outcome.output("give") == outcome.run.run_id


def test_independent_tasks_run_side_by_side(engine: Any, compiled: Compile, tmp_path: Path) -> None:
    @dsl.pipeline(name="side-by-side")
    def pipeline(a: str, b: str) -> None:
        wait_for(path=a).set_display_name("a")
        wait_for(path=b).set_display_name("b")

    run_id = engine.submit(compiled(pipeline), a=str(tmp_path / "x"), b=str(tmp_path / "y"))
    engine.until(run_id, lambda _: (tmp_path / "x.began").exists() and (tmp_path / "y.began").exists())
    for name in ("x", "y"):
        (tmp_path / name).touch()
    assert engine.finish(run_id).run.state == "SUCCEEDED"


def test_a_terminated_run_ends_its_workers_and_is_canceled(engine: Any, compiled: Compile, tmp_path: Path) -> None:
    @dsl.pipeline(name="endless")
    def pipeline(path: str) -> None:
        give(value="never").after(wait_for(path=path))

    run_id = engine.submit(compiled(pipeline), path=str(tmp_path / "never"))
    engine.until(run_id, lambda _: (tmp_path / "never.began").exists())
    engine.call(engine.engine.terminate(run_id))
    outcome = engine.finish(run_id)
    assert outcome.run.state == "CANCELED"
    assert outcome.states() == {"wait-for": "CANCELED", "give": "CANCELED"}
    with pytest.raises(Conflict):
        engine.call(engine.engine.terminate(run_id))


def test_retrying_a_run_leaves_alone_what_succeeded(engine: Any, compiled: Compile, tmp_path: Path) -> None:
    @dsl.pipeline(name="again")
    def pipeline(done: str, flaky: str) -> None:
        first = count_in(path=done).set_caching_options(False).set_display_name("first")
        count_in(path=flaky, fail_until=1).after(first).set_caching_options(False).set_display_name("flaky")

    run_id = engine.submit(compiled(pipeline), done=str(tmp_path / "done"), flaky=str(tmp_path / "flaky"))
    assert engine.finish(run_id).run.state == "FAILED"
    engine.call(engine.engine.retry(run_id))
    outcome = engine.until(run_id, lambda outcome: outcome.run.state == "SUCCEEDED")
    assert (tmp_path / "done").read_text() == "x"
    assert outcome.output("flaky") == 2
    with pytest.raises(Conflict):
        engine.call(engine.engine.retry(run_id))


@pytest.mark.parametrize(("target", "outcome_state"), [("pipeline", "FAILED"), ("train", "SUCCEEDED")])
def test_a_step_imports_only_what_its_image_holds(
    engine: Any, compiled: Compile, target: str, outcome_state: str
) -> None:
    @dsl.component(base_image=f"localhost/kanary/{target}:0.1.0", install_kfp_package=False)
    def needs_torch() -> str:
        import torch

        return str(torch.tensor([1.0]).sum())

    @dsl.pipeline(name="imports")
    def pipeline() -> None:
        needs_torch()

    outcome = engine.run(compiled(pipeline))
    assert outcome.run.state == outcome_state, outcome.run.error
    if outcome_state == "FAILED":
        assert "No module named 'torch' in the image localhost/kanary/pipeline:0.1.0" in outcome.run.error


def test_a_restarted_engine_finishes_what_was_running(fresh_engine: Any, compiled: Compile, tmp_path: Path) -> None:
    @dsl.pipeline(name="interrupted")
    def pipeline(done: str, wait: str) -> None:
        first = count_in(path=done).set_caching_options(False).set_display_name("first")
        wait_for(path=wait).after(first).set_caching_options(False)

    first = fresh_engine()
    run_id = first.submit(compiled(pipeline), done=str(tmp_path / "done"), wait=str(tmp_path / "go"))
    first.until(run_id, lambda _: (tmp_path / "go.began").exists())
    first.close()
    (tmp_path / "go").touch()
    outcome = fresh_engine().finish(run_id)
    assert outcome.run.state == "SUCCEEDED"
    assert (tmp_path / "done").read_text() == "x"
    assert outcome.tasks["wait-for"].attempt == 2


def _without(spec: dict[str, Any], *path: str) -> dict[str, Any]:
    inner = spec
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return spec


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (lambda spec: _without(spec, "root"), ""),
        (lambda spec: spec | {"schemaVersion": "9.9"}, "schemaVersion"),
        (lambda spec: spec | {"pipelineInfo": {}}, "pipelineInfo.name"),
        (lambda spec: _without(spec, "components", "comp-judge"), "root.dag.tasks.judge.componentRef.name"),
        (lambda spec: _without(spec, "deploymentSpec", "executors", "exec-judge"), "components.comp-judge"),
        (lambda spec: _without(spec, "root", "dag", "tasks", "judge"), "root.dag.tasks.condition-branches-1"),
        (lambda spec: "a string", ""),
    ],
)
def test_a_damaged_pipeline_is_refused_saying_where(
    engine: Any, compiled: Compile, damage: Callable[[dict[str, Any]], Any], where: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        engine.submit(damage(compiled(gate)))
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"how": 3}, "not of type STRING"),
        ({}, "'how' is missing"),
        ({"how": "raise", "extra": 1}, "unknown parameter 'extra'"),
    ],
)
def test_wrong_parameters_are_refused_at_submission(
    engine: Any, compiled: Compile, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        engine.submit(compiled(fails), **given)
    assert complaint in caught.value.message
