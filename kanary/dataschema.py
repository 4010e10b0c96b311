"""The schema of a table: a Frictionless Table Schema (JSON) as frozen dataclasses, read strictly.

Source: https://specs.frictionlessdata.io/table-schema/ with two keys of ours on a field, `role` and `sensitive`,
and one on the schema, `target`. It says what data must look like; it never reads data (components.validate does).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any, NoReturn

from kanary.errors import InputError

TYPES = ("number", "integer", "string", "boolean", "datetime")
ROLES = ("feature", "target", "id", "time", "ignored")

Scalar = str | int | float | bool

_SCHEMA_KEYS = frozenset({"name", "title", "description", "target", "primaryKey", "missingValues", "fields"})
_FIELD_KEYS = frozenset({"name", "type", "constraints", "role", "sensitive", "title", "description"})
_CONSTRAINT_KEYS = frozenset({"required", "unique", "minimum", "maximum", "enum"})

# Keys of the standard (v1 and v2) that are not judged here. Those in _DOCUMENTATION change nothing about which data
# are good; a schema that uses one of the others is told so through TableSchema.unchecked.
_DOCUMENTATION = frozenset({"rdfType", "example", "$schema", "version", "homepage", "keywords", "examples"})
_SCHEMA_STANDARD = frozenset({"foreignKeys", "uniqueKeys", "fieldsMatch"}) | _DOCUMENTATION
_FIELD_STANDARD = (
    frozenset({"format", "trueValues", "falseValues", "bareNumber", "decimalChar", "groupChar"})
    | frozenset({"missingValues", "categories", "categoriesOrdered"})
    | _DOCUMENTATION
)
_CONSTRAINT_STANDARD = frozenset(
    {"minLength", "maxLength", "pattern", "exclusiveMinimum", "exclusiveMaximum", "jsonSchema"}
)


@dataclasses.dataclass(frozen=True)
class Field:
    """One column. `minimum` and `maximum` are numbers, or ISO 8601 text where the type is datetime."""

    name: str
    type: str
    role: str = "feature"
    sensitive: bool = False
    required: bool = False
    unique: bool = False
    minimum: float | str | None = None
    maximum: float | str | None = None
    enum: tuple[Scalar, ...] = ()
    title: str = ""
    description: str = ""

    @property
    def categorical(self) -> bool:
        """Whether values are categories (strings, booleans, anything with an enum) and not quantities."""
        return self.type in ("string", "boolean") or bool(self.enum)

    @property
    def categories(self) -> tuple[Scalar, ...]:
        """The categories in their order; empty for a quantity or free text."""
        return self.enum or ((False, True) if self.type == "boolean" else ())


@dataclasses.dataclass(frozen=True)
class TableSchema:
    """A table: its fields in order, its target and how missing values are written.

    `unchecked` holds the JSON paths of standard keys that Kanary reads over, for a report to name.
    """

    name: str
    fields: tuple[Field, ...]
    target: str
    primary_key: tuple[str, ...] = ()
    missing_values: tuple[str, ...] = ("",)
    title: str = ""
    description: str = ""
    unchecked: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def features(self) -> tuple[Field, ...]:
        """The fields a model learns from, in order."""
        return tuple(column for column in self.fields if column.role == "feature")

    @property
    def target_field(self) -> Field:
        """The field a model predicts."""
        return self.field(self.target)

    @property
    def classes(self) -> tuple[Scalar, ...]:
        """The target's values in order. Of two, the last is the positive class."""
        return self.target_field.categories

    @property
    def time(self) -> Field | None:
        """The field that orders rows in time, if there is one."""
        return next((column for column in self.fields if column.role == "time"), None)

    @property
    def sensitive(self) -> tuple[Field, ...]:
        """The fields whose groups a report compares, in order; a field may be sensitive and not a feature."""
        return tuple(column for column in self.fields if column.sensitive)

    def field(self, name: str) -> Field:
        """The field of that name; InputError when there is none."""
        for column in self.fields:
            if column.name == name:
                return column
        raise InputError(f"the schema {self.name!r} has no field {name!r}", "its fields: " + ", ".join(self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all fields, in order."""
        return tuple(column.name for column in self.fields)

    def to_json(self) -> str:
        """Canonical JSON text: `load` gives an equal schema back, equal schemas give equal text."""
        return json.dumps(_as_dict(self), indent=2, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """SHA-256 of `to_json()` in UTF-8, as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode("utf-8")).hexdigest()


def load(text: str) -> TableSchema:
    """The schema in a JSON text. Raises InputError with the JSON path of the first fault.

    Keys of the standard that we do not use are read over, as are custom keys (`x-...`, `prefix:key`). Any other
    unknown key is refused: a misspelt constraint would be a check that silently never runs.
    """
    try:
        raw = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        _fail("$", f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})")
    except (RecursionError, ValueError) as error:
        _fail("$", f"not JSON that can be read: {error}")
    root = _expect(raw, dict, "$", "an object")
    unchecked = _unknown_keys(root, _SCHEMA_KEYS, _SCHEMA_STANDARD, "$")
    target = _text(root, "target", "$", required=True)
    fields: dict[str, Field] = {}
    raw_fields = _expect(root.get("fields"), list, "$.fields", "a list of fields")
    for index, item in enumerate(raw_fields):
        column, passed_over = _field(item, f"$.fields[{index}]", target)
        if column.name in fields:
            _fail(f"$.fields[{index}].name", f"{column.name!r} is used twice")
        fields[column.name] = column
        unchecked += passed_over
    schema = TableSchema(
        name=_text(root, "name", "$", required=True),
        fields=tuple(fields.values()),
        target=target,
        primary_key=_primary_key(root.get("primaryKey", [])),
        missing_values=_texts(root.get("missingValues", [""]), "$.missingValues"),
        title=_text(root, "title", "$"),
        description=_text(root, "description", "$"),
        unchecked=tuple(unchecked),
    )
    _check_whole(schema)
    return schema


def parse_datetime(text: str) -> datetime:
    """An ISO 8601 date or time as a moment in UTC; without an offset it is read as UTC. ValueError if it is none."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _field(item: object, path: str, target: str) -> tuple[Field, list[str]]:
    raw = _expect(item, dict, path, "an object")
    unchecked = _unknown_keys(raw, _FIELD_KEYS, _FIELD_STANDARD, path)
    name = _text(raw, "name", path, required=True)
    kind = _choice(raw, "type", TYPES, "string", path)
    role = _choice(raw, "role", ROLES, "target" if name == target else "feature", path)
    if (role == "target") != (name == target):
        _fail(f"{path}.role", f"is {role!r}, but $.target names {target!r}")
    at = f"{path}.constraints"
    constraints = _expect(raw.get("constraints", {}), dict, at, "an object")
    unchecked += _unknown_keys(constraints, _CONSTRAINT_KEYS, _CONSTRAINT_STANDARD, at)
    column = Field(
        name=name,
        type=kind,
        role=role,
        sensitive=_flag(raw, "sensitive", path),
        required=_flag(constraints, "required", at),
        unique=_flag(constraints, "unique", at),
        minimum=_bound(constraints, "minimum", kind, at),
        maximum=_bound(constraints, "maximum", kind, at),
        enum=_enum(constraints, kind, at),
        title=_text(raw, "title", path),
        description=_text(raw, "description", path),
    )
    _check_field(column, path)
    return column, unchecked


def _check_field(column: Field, path: str) -> None:
    if column.type == "string" and column.role not in ("id", "ignored") and not column.enum:
        _fail(
            f"{path}.constraints.enum", "is missing: a string field lists its values, unless its role is id or ignored"
        )
    if column.type == "datetime" and column.role not in ("time", "id", "ignored"):
        _fail(f"{path}.role", f"a datetime field cannot be {column.role!r}: its role is time, id or ignored")
    if column.role == "time" and column.categorical:
        _fail(f"{path}.type", "a field with the role time is a datetime, an integer or a number, without an enum")
    if column.role == "target" and (column.type not in ("string", "integer", "boolean") or len(column.categories) < 2):
        _fail(
            f"{path}.constraints.enum",
            "the target is a string, integer or boolean field with two classes or more in its enum",
        )
    low, high = column.minimum, column.maximum
    if isinstance(low, str) and isinstance(high, str):
        reversed_bounds = parse_datetime(low) > parse_datetime(high)
    else:
        reversed_bounds = isinstance(low, int | float) and isinstance(high, int | float) and low > high
    if reversed_bounds:
        _fail(f"{path}.constraints.minimum", f"{low!r} is above the maximum, {high!r}")


def _check_whole(schema: TableSchema) -> None:
    if not schema.fields:
        _fail("$.fields", "is empty")
    if schema.target not in schema.names:
        _fail("$.target", f"{schema.target!r} is not the name of a field")
    if not schema.features:
        _fail("$.fields", "no field has the role feature, so there is nothing to learn from")
    for index, name in enumerate(schema.primary_key):
        if name not in schema.names:
            _fail(f"$.primaryKey[{index}]", f"{name!r} is not the name of a field")
    timed = [index for index, column in enumerate(schema.fields) if column.role == "time"]
    if len(timed) > 1:
        _fail(f"$.fields[{timed[1]}].role", "is the second field with the role time: rows have one order")
    for index, column in enumerate(schema.fields):
        clash = [value for value in column.enum if value in schema.missing_values]
        if clash:
            _fail(f"$.fields[{index}].constraints.enum", f"{clash[0]!r} is also one of $.missingValues")


def _bound(constraints: dict[str, Any], key: str, kind: str, path: str) -> float | str | None:
    if key not in constraints:
        return None
    value = constraints[key]
    at = f"{path}.{key}"
    if kind == "datetime":
        text: str = _expect(value, str, at, "an ISO 8601 date or time as text")
        try:
            parse_datetime(text)
        except (ValueError, OverflowError):
            _fail(at, f"{text!r} is not an ISO 8601 date or time")
        return text
    if kind not in ("number", "integer"):
        _fail(at, f"a {kind} field has no {key}")
    return _scalar(value, kind, at)


def _enum(constraints: dict[str, Any], kind: str, path: str) -> tuple[Scalar, ...]:
    if "enum" not in constraints:
        return ()
    at = f"{path}.enum"
    if kind == "datetime":
        _fail(at, "a datetime field has no enum")
    values = tuple(
        _scalar(value, kind, f"{at}[{index}]")
        for index, value in enumerate(_expect(constraints["enum"], list, at, "a list of values"))
    )
    if not values:
        _fail(at, "is empty")
    for index, value in enumerate(values):
        if value in values[:index]:
            _fail(f"{at}[{index}]", f"{value!r} is listed twice")
    return values


def _scalar(value: object, kind: str, path: str) -> Scalar:
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind in ("number", "integer") and isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**63:
            _fail(path, f"{value} does not fit into 64 bits")
        return float(value) if kind == "number" else value
    if kind == "number" and isinstance(value, float) and math.isfinite(value):
        return value
    _fail(path, f"{value!r} is not {'an' if kind == 'integer' else 'a'} {kind}")


def _primary_key(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else _texts(value, "$.primaryKey")


def _texts(value: object, path: str) -> tuple[str, ...]:
    items = _expect(value, list, path, "a list of strings")
    texts = tuple(_expect(item, str, f"{path}[{index}]", "a string") for index, item in enumerate(items))
    if len(set(texts)) < len(texts):
        _fail(path, "lists a value twice")
    return texts


def _text(raw: dict[str, Any], key: str, path: str, *, required: bool = False) -> str:
    text: str = _expect(raw.get(key, ""), str, f"{path}.{key}", "a string")
    if required and not text.strip():
        _fail(f"{path}.{key}", "is empty" if key in raw else "is missing")
    return text


def _flag(raw: dict[str, Any], key: str, path: str) -> bool:
    value: bool = _expect(raw.get(key, False), bool, f"{path}.{key}", "true or false")
    return value


def _choice(raw: dict[str, Any], key: str, choices: tuple[str, ...], default: str, path: str) -> str:
    value: str = _expect(raw.get(key, default), str, f"{path}.{key}", "a string")
    if value not in choices:
        _fail(f"{path}.{key}", f"{value!r} is not one of {', '.join(choices)}")
    return value


def _expect(value: object, kind: type, path: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        _fail(path, "is missing" if value is None else f"is {json.dumps(value)[:60]}, expected {wanted}")
    return value


def _unknown_keys(raw: dict[str, Any], ours: frozenset[str], standard: frozenset[str], path: str) -> list[str]:
    """The paths of the standard's keys that are not judged; InputError at a key nobody knows."""
    unchecked = []
    for key in raw:
        if key in standard:
            if key not in _DOCUMENTATION and not (key == "format" and raw[key] == "default"):
                unchecked.append(f"{path}.{key}")
        elif key not in ours and not key.startswith("x-") and ":" not in key:
            _fail(f"{path}.{key}", "unknown key; known: " + ", ".join(sorted(ours)))
    return unchecked


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _fail(path: str, fault: str) -> NoReturn:
    raise InputError(f"schema: {path}: {fault}", "see https://specs.frictionlessdata.io/table-schema/")


def _as_dict(schema: TableSchema) -> dict[str, Any]:
    document: dict[str, Any] = {"name": schema.name, "title": schema.title, "description": schema.description}
    document |= {"target": schema.target, "primaryKey": list(schema.primary_key)}
    document |= {
        "missingValues": list(schema.missing_values),
        "fields": [_field_dict(column) for column in schema.fields],
    }
    return {key: value for key, value in document.items() if value != "" and (value != [] or key == "missingValues")}


def _field_dict(column: Field) -> dict[str, Any]:
    constraints: dict[str, Any] = {"required": column.required, "unique": column.unique}
    constraints["enum"] = [_written(value, column) for value in column.enum]
    constraints = {key: value for key, value in constraints.items() if value}
    bounds = {"minimum": column.minimum, "maximum": column.maximum}
    constraints |= {key: _written(value, column) for key, value in bounds.items() if value is not None}
    document: dict[str, Any] = {"name": column.name, "type": column.type, "role": column.role}
    document |= {"sensitive": column.sensitive, "constraints": constraints}
    document |= {"title": column.title, "description": column.description}
    return {key: value for key, value in document.items() if value}


def _written(value: Scalar, column: Field) -> Scalar:
    """A number in the one spelling of its kind: equal schemas, also those built in code, give equal text."""
    return float(value) + 0.0 if column.type == "number" else value
