"""Conditions: CEL as KFP's driver evaluates it, values bound and never pasted."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.engine.cel import ConditionError, evaluate, parse

X = "inputs.parameter_values['x']"


@pytest.mark.parametrize(
    ("expression", "x", "expected"),
    [
        (f"{X} == true", True, True),
        (f"{X} == true", False, False),
        (f"{X} == 'a'", "a", True),
        (f"{X} == 'a'", "b", False),
        (f"{X} != 'a'", "b", True),
        (f"int({X}) == 3", 3, True),
        (f"int({X}) > 3", 3.9, False),
        (f"double({X}) > 0.5", 0.51, True),
        (f"{X} == 1", 1.0, True),
        (f"{X} == '1'", 1, False),
        (f"{X} == true", 1, False),
        (f"!({X} == 'a') && {X} == 'b'", "b", True),
        (f"{X} == 'a' || {X} == 'b'", "b", True),
        (f"!(!({X} == 'a'))", "a", True),
        (f"{X} == 'it\\'s ok'", "it's ok", True),
        (f'{X} == "say \\"hi\\""', 'say "hi"', True),
        (f"{X} in ['a', 'b']".replace("['a', 'b']", X), "a", None),
        (f"{X}[1] == 'b'", ["a", "b"], True),
        (f"{X}.a == 2", {"a": 2}, True),
        (f"size({X}) == 2", ["a", "b"], True),
        (f"{X} == ''", "", True),
        (f"-1 < int({X})", 0, True),
        (f"1 + 2 * 3 == int({X})", 7, True),
        (f"{X} == true || inputs.parameter_values['missing'] == 1", True, True),
    ],
)
def test_conditions_hold_as_in_cel(expression: str, x: Any, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(ConditionError):
            evaluate(expression, {"x": x})
    else:
        assert evaluate(expression, {"x": x}) is expected


@pytest.mark.parametrize(
    ("expression", "x"),
    [
        (f"{X} == 'it's ok'", "it's ok"),
        (f"{X} ==", 1),
        (f"{X} > 'a'", 1),
        ("inputs.parameter_values['y'] == 1", 1),
        (X, "true"),
        ("__import__('os').system('true')", 1),
        (f"int({X}) == 1", "one"),
        (f"{X} && true", "yes"),
        ("(" * 500 + "true" + ")" * 500, 1),
        ("", 1),
    ],
)
def test_a_condition_that_cannot_be_decided_is_an_error_showing_it(expression: str, x: Any) -> None:
    with pytest.raises(ConditionError) as caught:
        evaluate(expression, {"x": x})
    assert expression in caught.value.message


@given(st.text())
@settings(deadline=None)
def test_a_value_cannot_rewrite_the_condition(value: str) -> None:
    assert evaluate(f"{X} == 'expected'", {"x": value}) is (value == "expected")


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_is_parsed_or_refused_never_worse(text: str) -> None:
    with contextlib.suppress(ConditionError):
        parse(text)
