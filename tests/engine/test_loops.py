"""dsl.ParallelFor and dsl.Collected: which iterations ran, with which items, and what was collected of them."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tests.engine import steps

Runs = Callable[..., Any]


def values(outcome: Any, step: str) -> list[Any]:
    """What a step gave in each iteration, in their order."""
    return [value for path, value in sorted(outcome.outputs().items()) if path.split("/")[-1] == step]


def test_a_loop_over_a_static_list_runs_once_for_each_item(run: Runs) -> None:
    @dsl.pipeline(name="static")
    def pipeline() -> None:
        with dsl.ParallelFor(["a", "b", "it's c"]) as item:
            steps.text(value=item)

    outcome = run(pipeline)
    assert outcome.run.state == "SUCCEEDED"
    assert outcome.outputs() == {f"for-loop-2/{n}/text": value for n, value in enumerate(["a", "b", "it's c"])}
    assert outcome.at["for-loop-2"].iteration_count == 3
    assert [outcome.at[f"for-loop-2/{n}"].iteration_index for n in range(3)] == [0, 1, 2]


def test_a_loop_over_a_parameter_takes_what_was_given_or_its_default(run: Runs) -> None:
    @dsl.pipeline(name="over-parameter")
    def pipeline(items: list[int] = [1, 2]) -> None:  # noqa: B006
        with dsl.ParallelFor(items) as item:
            steps.double(value=item)

    assert values(run(pipeline), "double") == [2, 4]
    assert values(run(pipeline, items=[5, 6, 7]), "double") == [10, 12, 14]


def test_a_loop_over_an_output_runs_once_for_each_of_its_items(run: Runs) -> None:
    @dsl.pipeline(name="over-output")
    def pipeline() -> None:
        with dsl.ParallelFor(steps.listed(value=["x", "y"]).output) as item:
            steps.text(value=item)

    outcome = run(pipeline)
    assert values(outcome, "text") == ["x", "y"]


@pytest.mark.kfp_local_differs("it takes entries of items for text, whatever they are")
def test_entries_of_items_that_are_dicts_keep_their_types(run: Runs) -> None:
    @dsl.pipeline(name="dicts")
    def pipeline() -> None:
        with dsl.ParallelFor([{"n": 1, "m": 10}, {"n": 2, "m": 20}]) as item:
            steps.double(value=item.n)
            steps.number(value=item.m)

    outcome = run(pipeline)
    assert values(outcome, "double") == [2, 4]
    assert values(outcome, "number") == [10, 20]


def test_entries_of_dicts_that_a_step_gave_are_taken_out(run: Runs) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def rows() -> list[dict[str, str]]:
        return [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]

    @dsl.pipeline(name="dicts-of-output")
    def pipeline() -> None:
        with dsl.ParallelFor(rows().output) as item:
            steps.text(value=item.b)

    assert values(run(pipeline), "text") == ["x", "y"]


@pytest.mark.kfp_local_differs("it passes them as are")
def test_an_item_of_another_type_becomes_text_where_text_is_wanted(run: Runs) -> None:
    @dsl.pipeline(name="untyped-items")
    def pipeline(items: list = [1, 2.5, True, "s", {"k": [1]}]) -> None:  # type: ignore[type-arg]  # noqa: B006
        with dsl.ParallelFor(items) as item:
            steps.text(value=item)

    outcome = run(pipeline)
    assert values(outcome, "text") == ["1", "2.5", "true", "s", '{"k":[1]}']


def test_a_loop_over_nothing_succeeds_and_what_is_after_it_runs(run: Runs) -> None:
    @dsl.pipeline(name="empty")
    def pipeline(items: list[str]) -> None:
        with dsl.ParallelFor(items) as item:
            inside = steps.text(value=item)
        steps.text(value="after").after(inside).set_display_name("after")

    outcome = run(pipeline, items=[])
    assert outcome.run.state == "SUCCEEDED"
    assert outcome.steps() == {"text-2": "SUCCEEDED"}
    assert outcome.at["for-loop-1"].iteration_count == 0


@pytest.mark.kfp_local_differs("it has no value for what was collected of nothing")
def test_what_is_collected_of_no_iterations_is_an_empty_list(run: Runs) -> None:
    @dsl.pipeline(name="collect-nothing")
    def pipeline(items: list[int]) -> None:
        with dsl.ParallelFor(items) as item:
            doubled = steps.double(value=item)
        steps.total(values=dsl.Collected(doubled.output))

    outcome = run(pipeline, items=[])
    assert outcome.outputs() == {"total": 0}


@pytest.mark.kfp_local_differs("whole numbers in lists become floats")
def test_parameters_are_collected_in_the_order_of_the_items(run: Runs) -> None:
    @dsl.pipeline(name="collect")
    def pipeline() -> None:
        with dsl.ParallelFor([3, 1, 2]) as item:
            doubled = steps.double(value=item)
        steps.joined(values=dsl.Collected(doubled.output))

    assert run(pipeline).outputs()["joined"] == "6,2,4"


@pytest.mark.kfp_local_differs("it gives nested lists")
def test_what_nested_loops_give_is_collected_into_one_flat_list(run: Runs) -> None:
    @dsl.pipeline(name="collect-nested")
    def pipeline() -> None:
        with dsl.ParallelFor([1, 2]), dsl.ParallelFor([10, 20]) as inner:
            doubled = steps.double(value=inner)
        steps.total(values=dsl.Collected(doubled.output))

    assert run(pipeline).outputs()["total"] == 120


def test_nested_loops_see_the_items_of_both(run: Runs) -> None:
    @dsl.pipeline(name="nested")
    def pipeline() -> None:
        with dsl.ParallelFor(["a", "b"]) as outer, dsl.ParallelFor([1, 2]) as inner:
            steps.defaulted(value=outer, count=inner)

    assert values(run(pipeline), "defaulted") == ["a 1", "a 2", "b 1", "b 2"]


@pytest.mark.kfp_local_differs("whole numbers in lists become floats")
def test_what_is_collected_inside_an_iteration_is_that_iterations_own(run: Runs) -> None:
    @dsl.pipeline(name="collect-inside")
    def pipeline() -> None:
        with dsl.ParallelFor([1, 2]) as outer:
            with dsl.ParallelFor([10, 20]) as inner:
                doubled = steps.double(value=inner)
            steps.total(values=dsl.Collected(doubled.output))
            steps.number(value=outer)

    outcome = run(pipeline)
    assert values(outcome, "total") == [60, 60]
    assert values(outcome, "number") == [1, 2]


def test_artifacts_are_collected_in_the_order_of_the_items(run: Runs) -> None:
    @dsl.pipeline(name="collect-artifacts")
    def pipeline() -> None:
        with dsl.ParallelFor(["one", "two", "three"]) as item:
            written = steps.write(value=item)
        steps.read_all(data=dsl.Collected(written.outputs["data"]))

    assert run(pipeline).outputs()["read-all"] == "one,two,three"


@pytest.mark.kfp_local_differs("it loses the collected artifacts")
def test_a_loop_runs_over_collected_artifacts(run: Runs) -> None:
    @dsl.pipeline(name="over-artifacts")
    def inner(data: dsl.Input[list[dsl.Dataset]]) -> str:
        with dsl.ParallelFor(data) as one:
            found = steps.read(data=one)
        return steps.joined(values=dsl.Collected(found.output)).output  # type: ignore[no-any-return]

    @dsl.pipeline(name="artifacts")
    def pipeline() -> None:
        with dsl.ParallelFor(["p", "q"]) as item:
            written = steps.write(value=item)
        steps.text(value=inner(data=dsl.Collected(written.outputs["data"])).output)

    assert run(pipeline).outputs()["text"] == "p,q"


@pytest.mark.kfp_local_differs("whole numbers in lists become floats")
def test_a_nested_pipeline_gives_what_it_collected(run: Runs) -> None:
    @dsl.pipeline(name="inner")
    def inner(items: list[int]) -> list[int]:
        with dsl.ParallelFor(items) as item:
            doubled = steps.double(value=item)
        return dsl.Collected(doubled.output)  # type: ignore[no-any-return]

    @dsl.pipeline(name="outer")
    def pipeline() -> None:
        steps.total(values=inner(items=[1, 2, 3]).output)

    assert run(pipeline).outputs()["total"] == 12


@pytest.mark.kfp_local_differs("it has None for the iterations that were skipped")
def test_iterations_whose_branch_was_skipped_give_nothing(run: Runs) -> None:
    @dsl.pipeline(name="collect-some")
    def pipeline(threshold: int = 2) -> None:
        with dsl.ParallelFor([1, 2, 3]) as item, dsl.If(item >= threshold):
            doubled = steps.double(value=item)
        steps.total(values=dsl.Collected(doubled.output))

    outcome = run(pipeline)
    assert outcome.outputs()["total"] == 10
    assert sorted(outcome.steps().values()) == ["SKIPPED"] + ["SUCCEEDED"] * 3


@pytest.mark.kfp_local_differs("it ends other iterations where one fails")
def test_a_failed_iteration_fails_the_loop_and_no_other_iteration(run: Runs) -> None:
    @dsl.pipeline(name="one-fails")
    def pipeline() -> None:
        with dsl.ParallelFor([1, 2, 3]) as item:
            number = steps.fails_if(value=item, bad=2)
            steps.double(value=number.output)
        steps.text(value="after").after(number)

    outcome = run(pipeline)
    assert outcome.run.state == "FAILED"
    assert "in iteration 1 of 'for-loop-" in outcome.run.error
    assert "2 is bad" in outcome.run.error
    assert values(outcome, "double") == [2, 6]
    loop = next(path for path in outcome.at if path.startswith("for-loop-") and "/" not in path)
    assert outcome.at[loop].state == "FAILED"
    assert outcome.at[f"{loop}/1/double"].state == "SKIPPED"
    assert outcome.at["text"].state == "SKIPPED"


def test_no_more_iterations_run_at_once_than_parallelism_allows(run: Runs, tmp_path: Path) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def exclusive(folder: str, item: int) -> bool:
        import os
        import time

        lock = os.path.join(folder, "lock")
        try:
            os.mkdir(lock)
        except FileExistsError:
            return False
        time.sleep(0.05)
        os.rmdir(lock)
        return True

    @dsl.pipeline(name="one-at-a-time")
    def pipeline(folder: str) -> None:
        with dsl.ParallelFor([1, 2, 3, 4], parallelism=1) as item:
            exclusive(folder=folder, item=item)

    assert values(run(pipeline, folder=str(tmp_path)), "exclusive") == [True] * 4


def test_an_iteration_waits_for_what_is_before_it_in_the_same_iteration(run: Runs) -> None:
    @dsl.pipeline(name="chain")
    def pipeline() -> None:
        with dsl.ParallelFor([1, 2]) as item:
            first = steps.double(value=item)
            steps.double(value=first.output).set_display_name("again")

    assert values(run(pipeline), "double-2") == [4, 8]


def test_items_that_are_no_list_fail_the_loop_saying_so(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="no-list")
    def pipeline() -> None:
        with dsl.ParallelFor(steps.listed(value=[1]).output) as item:
            steps.number(value=item)

    spec = compiled(pipeline)
    (loop,) = [task for name, task in spec["root"]["dag"]["tasks"].items() if name.startswith("for-loop")]
    (source,) = loop["inputs"]["parameters"].values()
    source["taskOutputParameter"] = {"producerTask": "text", "outputParameterKey": "Output"}
    loop["dependentTasks"] = ["text"]
    spec["root"]["dag"]["tasks"]["text"] = {
        "componentRef": {"name": "comp-text"},
        "taskInfo": {"name": "text"},
        "inputs": {"parameters": {"value": {"runtimeValue": {"constant": "{}"}}}},
    }

    @dsl.pipeline(name="text")
    def other() -> None:
        steps.text(value="{}")

    more = compiled(other)
    spec["components"] |= more["components"]
    spec["deploymentSpec"]["executors"] |= more["deploymentSpec"]["executors"]
    outcome = engine.run(spec)
    assert outcome.run.state == "FAILED"
    assert "not of type LIST" in outcome.run.error or "no list" in outcome.run.error


@pytest.mark.kfp_local_differs("it runs them all")
def test_a_loop_over_an_enormous_list_fails_instead_of_filling_the_machine(run: Runs) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def numbers(count: int) -> list[int]:
        return list(range(count))

    @dsl.pipeline(name="enormous")
    def pipeline() -> None:
        with dsl.ParallelFor(numbers(count=20_001).output) as item:
            steps.number(value=item)

    outcome = run(pipeline)
    assert outcome.run.state == "FAILED"
    assert "20,001 items" in outcome.run.error
    assert outcome.steps() == {"numbers": "SUCCEEDED"}
