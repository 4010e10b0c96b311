"""Conditions of compiled pipelines: the part of the Common Expression Language that the KFP compiler writes.

Values are bound to the parsed expression, never pasted into its text, and nothing is evaluated as Python. Semantics
follow github.com/google/cel-spec with dynamically typed inputs, as KFP's driver evaluates them.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError


class ConditionError(SandboxError):
    """A condition that cannot be parsed or evaluated; the message shows the expression."""


@dataclass(frozen=True)
class Literal:
    """A constant of the expression."""

    value: Any


@dataclass(frozen=True)
class Name:
    """A variable of the environment, such as `inputs`."""

    name: str


@dataclass(frozen=True)
class Index:
    """`base[key]` or `base.key`."""

    base: Node
    key: Node


@dataclass(frozen=True)
class Call:
    """An operator or conversion applied to operands; `&&` and `||` are kept apart for their short circuit."""

    function: str
    operands: tuple[Node, ...]


Node = Literal | Name | Index | Call

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)
  | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<operator>&&|\|\||==|!=|<=|>=|[<>!()\[\].,+\-*/%])
    )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_BINDING = [("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%")]
_CONSTANTS = {"true": True, "false": False, "null": None}
_CONVERSIONS = ("int", "double", "string", "bool", "size", "parseJson")
_MAX_DEPTH = 100


def evaluate(expression: str, inputs: Mapping[str, Any]) -> bool:
    """Whether `expression` holds with `inputs` bound to `inputs.parameter_values`; ConditionError otherwise."""
    try:
        value = _value(parse(expression), {"inputs": {"parameter_values": inputs}})
    except ConditionError as error:
        raise ConditionError(f"condition cannot be evaluated: {expression}: {error.message}") from error
    if not isinstance(value, bool):
        raise ConditionError(f"condition is not true or false but {_kind(value)}: {expression}")
    return value


def select(expression: str, value: Any, text: str) -> Any:
    """The part of a parameter's `value` that a `parameterExpressionSelector` names; ConditionError otherwise.

    The value's fields have the names of google.protobuf.Value's; `text` is the value as KFP writes it in a string.
    """
    fields: dict[str, Any] = {"string_value": text}
    for kind, name in (
        (bool, "bool_value"),
        (dict, "struct_value"),
        (list, "list_value"),
        (int | float, "number_value"),
    ):
        if isinstance(value, kind):
            fields[name] = value
            break
    try:
        return _value(parse(expression), fields)
    except ConditionError as error:
        raise ConditionError(f"{expression} cannot be taken from {text[:200]}: {error.message}") from error


def parse(expression: str) -> Node:
    """The expression's tree; ConditionError says at which character it breaks off."""
    return _Parser(expression).whole()


class _Parser:
    """Precedence climbing over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.depth = 0

    def whole(self) -> Node:
        node = self.binary(0)
        if self.at < len(self.tokens):
            raise ConditionError(f"unexpected {self.tokens[self.at][1]!r} at character {self.tokens[self.at][2]}")
        return node

    def binary(self, level: int) -> Node:
        if level == len(_BINDING):
            return self.unary()
        node = self.binary(level + 1)
        while self.peek() in _BINDING[level]:
            function = self.take()
            node = Call(function, (node, self.binary(level + 1)))
        return node

    def unary(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ConditionError(f"nested more than {_MAX_DEPTH} deep")
        try:
            if self.peek() in ("!", "-"):
                return Call("not" if self.take() == "!" else "negate", (self.unary(),))
            return self.member(self.primary())
        finally:
            self.depth -= 1

    def member(self, node: Node) -> Node:
        while (token := self.peek()) in (".", "["):
            self.take()
            if token == "[":
                node = Index(node, self.binary(0))
                self.expect("]")
            else:
                node = Index(node, Literal(self.take()))
        return node

    def primary(self) -> Node:
        if self.at >= len(self.tokens):
            raise ConditionError("breaks off at its end")
        kind, text, start = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return Literal(float(text) if re.search(r"[.eE]", text) else int(text))
        if kind == "string":
            return Literal(_unescape(text[1:-1]))
        if kind == "name" and self.peek() == "(" and text in _CONVERSIONS:
            self.take()
            node = Call(text, (self.binary(0),))
            self.expect(")")
            return node
        if kind == "name":
            return Literal(_CONSTANTS[text]) if text in _CONSTANTS else Name(text)
        if text == "(":
            node_in = self.binary(0)
            self.expect(")")
            return node_in
        raise ConditionError(f"unexpected {text!r} at character {start}")

    def peek(self) -> str:
        if self.at >= len(self.tokens) or self.tokens[self.at][0] == "string":
            return ""
        return self.tokens[self.at][1]

    def take(self) -> str:
        if self.at >= len(self.tokens):
            raise ConditionError("breaks off at its end")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def expect(self, text: str) -> None:
        if self.peek() != text:
            raise ConditionError(f"{text!r} is missing")
        self.at += 1


def _tokens(text: str) -> list[tuple[str, str, int]]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise ConditionError(f"cannot be read from character {at}: {text[at : at + 20]!r}")
        tokens.append((match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
        at = match.end()
    return tokens


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), text)


def _value(node: Node, environment: Mapping[str, Any]) -> Any:
    match node:
        case Literal(value):
            return value
        case Name(name):
            if name not in environment:
                raise ConditionError(f"unknown name {name!r}")
            return environment[name]
        case Index(base, key):
            return _item(_value(base, environment), _value(key, environment))
        case Call("&&" | "||" as function, (left, right)):
            return _logical(function, left, right, environment)
        case Call(function, operands):
            return _apply(function, [_value(operand, environment) for operand in operands])


def _logical(function: str, left: Node, right: Node, environment: Mapping[str, Any]) -> bool:
    """`&&` and `||` as CEL has them: an error on one side does not matter where the other side decides."""
    decisive = function == "||"
    errors: list[ConditionError] = []
    for side in (left, right):
        try:
            value = _value(side, environment)
            if not isinstance(value, bool):
                raise ConditionError(f"{function} needs true or false, not {_kind(value)}")
            if value is decisive:
                return decisive
        except ConditionError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return not decisive


def _item(base: Any, key: Any) -> Any:
    if isinstance(base, Mapping) and key in base:
        return base[key]
    if isinstance(base, list) and isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(base):
        return base[key]
    raise ConditionError(f"there is no {key!r} in {_kind(base)}")


def _apply(function: str, values: list[Any]) -> Any:
    if function in _CONVERSIONS:
        return _convert(function, values[0])
    if function == "not" and isinstance(values[0], bool):
        return not values[0]
    if function == "negate" and _is_number(values[0]):
        return -values[0]
    if function in ("==", "!="):
        return equal(values[0], values[1]) is (function == "==")
    if len(values) == 2 and function in _ORDER and _comparable(*values):
        return _ORDER[function](*values)
    if function == "in" and isinstance(values[1], list | Mapping):
        return any(equal(values[0], item) for item in values[1])
    if function in _ARITHMETIC and all(map(_is_number, values)):
        return _arithmetic(function, values[0], values[1])
    if function == "+" and all(isinstance(value, str) for value in values):
        return values[0] + values[1]
    raise ConditionError(f"{function} does not apply to {' and '.join(map(_kind, values))}")


_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC = ("+", "-", "*", "/", "%")


def equal(left: Any, right: Any) -> bool:
    """CEL's equality of dynamic values: numbers compare across types, other kinds are equal only among themselves."""
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def _comparable(left: Any, right: Any) -> bool:
    return (_is_number(left) and _is_number(right)) or (type(left) is type(right) and isinstance(left, str | bool))


def _arithmetic(function: str, left: Any, right: Any) -> Any:
    if function in ("/", "%") and right == 0 and isinstance(left, int) and isinstance(right, int):
        raise ConditionError("division by zero")
    if function == "/":
        if isinstance(left, int) and isinstance(right, int):
            return int(math.copysign(1, left * right)) * (abs(left) // abs(right)) if left else 0
        return left / right if right else math.copysign(math.inf, left) if left else math.nan
    if function == "%":
        if isinstance(left, float) or isinstance(right, float):
            raise ConditionError("% needs whole numbers")
        return int(math.copysign(abs(left) % abs(right), left))
    return {"+": operator.add, "-": operator.sub, "*": operator.mul}[function](left, right)


def _convert(function: str, value: Any) -> Any:
    try:
        if function == "int" and (_is_number(value) or isinstance(value, str)):
            return int(value)
        if function == "double" and (_is_number(value) or isinstance(value, str)):
            return float(value)
        if function == "string" and isinstance(value, str | bool | int | float):
            return _as_string(value)
        if function == "bool" and (isinstance(value, bool) or value in ("true", "false")):
            return value is True or value == "true"
        if function == "size" and isinstance(value, str | list | Mapping):
            return len(value)
        if function == "parseJson" and isinstance(value, str):
            return json.loads(value)
    except (ValueError, OverflowError) as error:
        raise ConditionError(f"{function}({value!r}): {error}") from error
    raise ConditionError(f"{function}() does not apply to {_kind(value)} {value!r}")


def _as_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    kinds = {int: "a number", float: "a number", str: "a string", list: "a list"}
    return kinds.get(type(value), "a map")
