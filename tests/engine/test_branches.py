"""dsl.If, Elif, Else and dsl.OneOf: which branch ran, what was skipped, and what came out."""

# ruff: noqa: I002 -- kfp reads the types of components and pipelines from live annotations
from collections.abc import Callable
from typing import Any

import pytest
from kfp import dsl

from sandbox.errors import InvalidSpec
from tests.engine import steps

Runs = Callable[..., Any]


def given(outcome: Any) -> list[Any]:
    """What the steps gave that ran."""
    return sorted(map(str, outcome.outputs().values()))


def test_if_elif_else_run_exactly_one_branch(run: Runs) -> None:
    @dsl.pipeline(name="three-ways")
    def pipeline(score: int) -> None:
        with dsl.If(score < 10):
            steps.text(value="low")
        with dsl.Elif(score < 20):
            steps.text(value="middle")
        with dsl.Else():
            steps.text(value="high")

    for score, branch in ((5, "low"), (10, "middle"), (20, "high")):
        outcome = run(pipeline, score=score)
        assert given(outcome) == [branch]
        assert sorted(outcome.steps().values()) == ["SKIPPED", "SKIPPED", "SUCCEEDED"]


@pytest.mark.kfp_local_differs("it skips conditions on named outputs, whatever they hold")
def test_a_condition_reads_named_outputs(run: Runs) -> None:
    @dsl.pipeline(name="named")
    def pipeline() -> None:
        made = steps.several()
        with dsl.If(made.outputs["good"] == True):  # noqa: E712
            steps.text(value="good")
        with dsl.If(made.outputs["score"] > 0.8):
            steps.text(value="better")
        with dsl.If(made.outputs["name"] == "other"):
            steps.text(value="other")

    outcome = run(pipeline)
    assert outcome.outputs()["condition-1/text"] == "good"
    assert [state for path, state in outcome.steps().items() if "text" in path].count("SKIPPED") == 2


@pytest.mark.kfp_local_differs("it compares the texts of an int and a float")
@pytest.mark.parametrize(("value", "runs"), [(0.5, False), (1.0, True), (2.5, True)])
def test_a_float_is_compared_with_an_int_as_a_number(run: Runs, value: float, runs: bool) -> None:
    @dsl.pipeline(name="mixed")
    def pipeline(value: float) -> None:
        with dsl.If(value >= 1):
            steps.text(value="at least one")

    assert bool(run(pipeline, value=value).outputs()) is runs


@pytest.mark.kfp_local_differs("it pastes the value into an expression and evaluates it")
@pytest.mark.parametrize("value", ["a' || 'b'=='b", "__import__('os').system('true')", 'say "hi"', "\\", "{{$.x}}", ""])
def test_a_strange_string_is_a_value_and_nothing_else(run: Runs, value: str) -> None:
    @dsl.pipeline(name="strange")
    def pipeline(value: str) -> None:
        with dsl.If(value == "a"):
            steps.text(value="equal")
        with dsl.Else():
            steps.text(value="different")

    assert given(run(pipeline, value=value)) == ["different"]


def test_booleans_are_compared_as_booleans(run: Runs) -> None:
    @dsl.pipeline(name="flags")
    def pipeline(flag: bool) -> None:
        with dsl.If(flag == True):  # noqa: E712
            steps.text(value="on")
        with dsl.If(flag == False):  # noqa: E712
            steps.text(value="off")

    assert given(run(pipeline, flag=True)) == ["on"]
    assert given(run(pipeline, flag=False)) == ["off"]


@pytest.mark.parametrize(("a", "b", "expected"), [(1, 1, ["both", "outer"]), (1, 2, ["outer"]), (2, 1, [])])
def test_nested_conditions_hold_together(run: Runs, a: int, b: int, expected: list[str]) -> None:
    @dsl.pipeline(name="nested")
    def pipeline(a: int, b: int) -> None:
        with dsl.If(a == 1):
            steps.text(value="outer")
            with dsl.If(b == 1):
                steps.text(value="both")

    assert given(run(pipeline, a=a, b=b)) == expected


def test_two_parameters_are_compared_with_each_other(run: Runs) -> None:
    @dsl.pipeline(name="two")
    def pipeline(a: int, b: int) -> None:
        with dsl.If(a > b):
            steps.text(value="more")

    assert given(run(pipeline, a=10, b=9)) == ["more"]
    assert given(run(pipeline, a=9, b=10)) == []


def test_what_waits_for_a_skipped_branch_is_skipped_too(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="after-skipped")
    def pipeline(flag: bool = False) -> None:
        with dsl.If(flag == True):  # noqa: E712
            steps.text(value="inside")
        steps.number(value=1)

    spec = compiled(pipeline)  # the compiler lets nothing wait for a branch; a spec may
    spec["root"]["dag"]["tasks"]["number"]["dependentTasks"] = ["condition-1"]
    outcome = engine.run(spec)
    assert outcome.run.state == "SUCCEEDED"
    assert set(outcome.steps().values()) == {"SKIPPED"}


def test_a_condition_that_cannot_be_decided_fails_the_run_and_is_shown(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="undecidable")
    def pipeline(value: str) -> None:
        with dsl.If(value == "x"):
            steps.text(value="ran")

    spec = compiled(pipeline)
    (task,) = spec["root"]["dag"]["tasks"].values()
    task["triggerPolicy"]["condition"] = "inputs.parameter_values['pipelinechannel--value'] > 5"
    outcome = engine.run(spec, value="x")
    assert outcome.run.state == "FAILED"
    assert "inputs.parameter_values['pipelinechannel--value'] > 5" in outcome.run.error


def test_an_unparsable_condition_is_refused_with_the_expression(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="quoted")
    def pipeline(value: str) -> None:
        with dsl.If(value == "it's ok"):  # the compiler does not escape the quote
            steps.text(value="ran")

    with pytest.raises(InvalidSpec) as caught:
        engine.submit(compiled(pipeline), value="x")
    assert "it's ok" in caught.value.message


def test_one_of_gives_the_parameter_of_the_branch_that_ran(run: Runs) -> None:
    @dsl.pipeline(name="one-of")
    def pipeline(which: str) -> None:
        with dsl.If(which == "a"):
            first = steps.text(value="from a")
        with dsl.Elif(which == "b"):
            second = steps.text(value="from b")
        with dsl.Else():
            third = steps.text(value="from else")
        steps.text(value=dsl.OneOf(first.output, second.output, third.output)).set_display_name("chosen")

    for which, expected in (("a", "from a"), ("b", "from b"), ("z", "from else")):
        assert run(pipeline, which=which).output("chosen") == expected


@pytest.mark.kfp_local_differs("it knows no OneOf of artifacts")
def test_one_of_gives_the_artifact_of_the_branch_that_ran(run: Runs) -> None:
    @dsl.pipeline(name="one-of-artifacts")
    def pipeline(which: str) -> None:
        with dsl.If(which == "a"):
            first = steps.write(value="from a")
        with dsl.Else():
            second = steps.write(value="from else")
        steps.read(data=dsl.OneOf(first.outputs["data"], second.outputs["data"]))

    assert run(pipeline, which="a").outputs() == {"read": "from a"}
    assert run(pipeline, which="b").outputs() == {"read": "from else"}


@pytest.mark.kfp_local_differs("it skips the condition")
def test_one_of_is_the_operand_of_a_condition(run: Runs) -> None:
    @dsl.pipeline(name="one-of-operand")
    def pipeline(which: str) -> None:
        with dsl.If(which == "a"):
            first = steps.text(value="yes")
        with dsl.Else():
            second = steps.text(value="no")
        chosen = dsl.OneOf(first.output, second.output)
        steps.text(value=chosen).set_display_name("chosen")
        with dsl.If(chosen == "yes"):
            steps.number(value=1).set_display_name("guarded")

    assert run(pipeline, which="a").states()["guarded"] == "SUCCEEDED"
    assert run(pipeline, which="b").states()["guarded"] == "SKIPPED"


def test_a_one_of_that_the_compiler_lost_is_refused_saying_so(engine: Any, compiled: Any) -> None:
    @dsl.pipeline(name="one-of-lost")
    def pipeline(which: str) -> None:
        with dsl.If(which == "a"):
            first = steps.text(value="yes")
        with dsl.Else():
            second = steps.text(value="no")
        with dsl.If(dsl.OneOf(first.output, second.output) == "yes"):
            steps.number(value=1)

    with pytest.raises(InvalidSpec) as caught:
        engine.submit(compiled(pipeline), which="a")
    assert "has no output" in caught.value.message
    assert "OneOf" in caught.value.hint


def test_a_nested_pipeline_returns_one_of_its_branches(run: Runs) -> None:
    @dsl.pipeline(name="inner")
    def inner(which: str) -> str:
        with dsl.If(which == "a"):
            first = steps.text(value="from a")
        with dsl.Else():
            second = steps.text(value="from else")
        return dsl.OneOf(first.output, second.output)  # type: ignore[no-any-return]

    @dsl.pipeline(name="outer")
    def pipeline(which: str) -> None:
        steps.text(value=inner(which=which).output).set_display_name("chosen")

    assert run(pipeline, which="b").output("chosen") == "from else"
