from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanary.dataschema import Field, TableSchema, load
from kanary.errors import InputError

TARGET = {"name": "label", "type": "string", "constraints": {"enum": ["no", "yes"]}}
SIZE = {"name": "size", "type": "number"}


def schema(**changes: Any) -> dict[str, Any]:
    return {"name": "things", "target": "label", "fields": [SIZE, TARGET], **changes}


def with_field(**changes: Any) -> dict[str, Any]:
    return schema(fields=[{**SIZE, **changes}, TARGET])


def with_constraints(kind: str = "number", **constraints: Any) -> dict[str, Any]:
    return with_field(type=kind, constraints=constraints)


def test_a_schema_is_read_with_its_defaults() -> None:
    read = load(json.dumps(schema()))
    assert read.names == ("size", "label")
    assert read.field("size") == Field("size", "number")
    assert read.target == "label"
    assert read.target_field.role == "target"
    assert read.classes == ("no", "yes")
    assert [field.name for field in read.features] == ["size"]
    assert read.missing_values == ("",)
    assert read.time is None
    assert read.sensitive == ()


def test_roles_constraints_and_keys_are_read() -> None:
    document = schema(
        primaryKey="id",
        missingValues=["", "NA"],
        fields=[
            {"name": "id", "type": "string", "role": "id"},
            {"name": "at", "type": "datetime", "role": "time", "constraints": {"minimum": "2024-01-01"}},
            {"name": "age", "type": "integer", "constraints": {"required": True, "minimum": 0, "maximum": 120}},
            {"name": "sex", "type": "string", "sensitive": True, "constraints": {"enum": ["f", "m"]}},
            {"name": "note", "type": "string", "role": "ignored"},
            TARGET,
        ],
    )
    read = load(json.dumps(document))
    assert read.primary_key == ("id",)
    assert read.missing_values == ("", "NA")
    assert read.time is not None
    assert read.time.name == "at"
    assert read.field("age") == Field("age", "integer", required=True, minimum=0, maximum=120)
    assert [field.name for field in read.features] == ["age", "sex"]
    assert [field.name for field in read.sensitive] == ["sex"]


def test_a_boolean_target_has_its_two_classes_without_an_enum() -> None:
    read = load(json.dumps(schema(fields=[SIZE, {"name": "label", "type": "boolean"}])))
    assert read.classes == (False, True)


@pytest.mark.parametrize(
    ("document", "path", "fault"),
    [
        ([], "$", "expected an object"),
        ({}, "$.target", "is missing"),
        ({"target": "label"}, "$.fields", "is missing"),
        (schema(name=" "), "$.name", "is empty"),
        (schema(fields={}), "$.fields", "expected a list"),
        (schema(fields=[]), "$.fields", "is empty"),
        (schema(fields=[SIZE]), "$.target", "'label' is not the name of a field"),
        (schema(fields=[TARGET]), "$.fields", "nothing to learn from"),
        (schema(fields=[SIZE, SIZE, TARGET]), "$.fields[1].name", "used twice"),
        (schema(fields=["size", TARGET]), "$.fields[0]", "expected an object"),
        (schema(primaryKey=["size", "id"]), "$.primaryKey[1]", "'id' is not the name of a field"),
        (schema(primaryKey=["size", "size"]), "$.primaryKey", "twice"),
        (schema(missingValues="NA"), "$.missingValues", "a list of strings"),
        (schema(missingValues=["", 9]), "$.missingValues[1]", "expected a string"),
        (schema(missingValues=["no"]), "$.fields[1].constraints.enum", "'no' is also one of $.missingValues"),
        (schema(primarykey=["size"]), "$.primarykey", "unknown key"),
        (with_field(name=""), "$.fields[0].name", "is empty"),
        (with_field(type="float"), "$.fields[0].type", "'float' is not one of number, integer"),
        (with_field(type=["number"]), "$.fields[0].type", "expected a string"),
        (with_field(role="label"), "$.fields[0].role", "is not one of"),
        (with_field(role="target"), "$.fields[0].role", "$.target names 'label'"),
        (with_field(sensitive="yes"), "$.fields[0].sensitive", "true or false"),
        (with_field(sensitve=True), "$.fields[0].sensitve", "unknown key"),
        (with_field(constraints=[]), "$.fields[0].constraints", "expected an object"),
        (with_constraints(requierd=True), "$.fields[0].constraints.requierd", "unknown key"),
        (with_constraints(required=1), "$.fields[0].constraints.required", "true or false"),
        (with_constraints(minimum="0"), "$.fields[0].constraints.minimum", "'0' is not a number"),
        (with_constraints(minimum=True), "$.fields[0].constraints.minimum", "True is not a number"),
        (with_constraints(minimum=None), "$.fields[0].constraints.minimum", "None is not a number"),
        (with_constraints(minimum=2, maximum=1), "$.fields[0].constraints.minimum", "above the maximum"),
        (with_constraints("integer", maximum=1.5), "$.fields[0].constraints.maximum", "1.5 is not an integer"),
        (with_constraints("integer", maximum=2**63), "$.fields[0].constraints.maximum", "does not fit into 64 bits"),
        (with_constraints("boolean", minimum=0), "$.fields[0].constraints.minimum", "a boolean field has no minimum"),
        (with_constraints(enum=[]), "$.fields[0].constraints.enum", "is empty"),
        (with_constraints(enum=[1, 2, 1]), "$.fields[0].constraints.enum[2]", "listed twice"),
        (with_constraints(enum=["1"]), "$.fields[0].constraints.enum[0]", "'1' is not a number"),
        (with_field(type="string"), "$.fields[0].constraints.enum", "a string field lists its values"),
        (with_field(type="datetime"), "$.fields[0].role", "a datetime field cannot be 'feature'"),
        (with_field(type="datetime", role="time", constraints={"minimum": "May"}), "minimum", "not an ISO 8601"),
        (with_field(type="datetime", role="time", constraints={"minimum": 2024}), "minimum", "ISO 8601"),
        (with_field(type="boolean", role="time"), "$.fields[0].type", "role time"),
        (schema(fields=[SIZE, {**TARGET, "type": "number"}]), "$.fields[1].constraints.enum[0]", "not a number"),
        (schema(fields=[SIZE, {**TARGET, "constraints": {"enum": ["a"]}}]), "$.fields[1].constraints.enum", "two"),
        (schema(fields=[SIZE, {**TARGET, "role": "feature"}]), "$.fields[1].role", "$.target names 'label'"),
    ],
)
def test_a_fault_is_refused_with_its_json_path(document: Any, path: str, fault: str) -> None:
    with pytest.raises(InputError) as caught:
        load(json.dumps(document))
    assert path in caught.value.message
    assert fault in caught.value.message


def test_a_second_time_field_is_refused() -> None:
    times = [{"name": name, "type": "datetime", "role": "time"} for name in ("begin", "end")]
    with pytest.raises(InputError, match=r"fields\[1\]\.role.*second field"):
        load(json.dumps(schema(fields=[*times, SIZE, TARGET])))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1, column 1"),
        ('{"name": "x",\n "target" "y"}', "line 2"),
        ('{"name": "x", "name": "y"}', "'name' stands twice"),
        ('{"name": NaN}', "NaN is not a JSON value"),
        ("[" * 100_000, "not JSON that can be read"),
        ("9" * 5_000, "not JSON that can be read"),
    ],
)
def test_text_that_is_no_strict_json_is_refused(text: str, fault: str) -> None:
    with pytest.raises(InputError, match="not JSON") as caught:
        load(text)
    assert fault in caught.value.message


def test_standard_keys_that_are_not_judged_are_read_over_and_named() -> None:
    document = with_field(format="default", title="Size", rdfType="x", decimalChar=",", constraints={"pattern": ".*"})
    read = load(json.dumps({**document, "foreignKeys": [], "x-owner": "me", "dp:thing": 1}))
    assert read.unchecked == ("$.foreignKeys", "$.fields[0].decimalChar", "$.fields[0].constraints.pattern")
    assert read.field("size").title == "Size"


def test_the_digest_changes_with_the_meaning_and_not_with_the_spelling() -> None:
    plain = load(json.dumps(schema()))
    spelt_out = load(
        json.dumps(schema(missingValues=[""], fields=[{**SIZE, "role": "feature", "sensitive": False}, TARGET]))
    )
    other = load(json.dumps(with_constraints(minimum=0)))
    assert plain.digest() == spelt_out.digest()
    assert plain.digest() != other.digest()
    assert (
        load(json.dumps(with_constraints(minimum=0))).digest()
        == load(json.dumps(with_constraints(minimum=0.0))).digest()
    )


texts = st.text(min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
floats = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def schemas(draw: st.DrawFn) -> TableSchema:
    names = draw(st.lists(texts, min_size=2, max_size=6, unique=True))
    classes = tuple(draw(st.lists(texts, min_size=2, max_size=4, unique=True)))
    fields = []
    for name in names[:-1]:
        bounds = sorted(draw(st.lists(floats, min_size=2, max_size=2)))
        field = Field(name, "number", required=draw(st.booleans()), minimum=bounds[0], maximum=bounds[1])
        fields.append(field)
    target = Field(names[-1], "string", role="target", sensitive=draw(st.booleans()), enum=classes)
    return TableSchema(
        draw(texts), (*fields, target), target.name, missing_values=("",), title=draw(st.text(max_size=5))
    )


@given(schemas())
@settings(deadline=None)
def test_a_schema_survives_being_written_and_read(written: TableSchema) -> None:
    read = load(written.to_json())
    assert read == written
    assert read.to_json() == written.to_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(
        ["name", "target", "primaryKey", "missingValues", "fields", "type", "role", "sensitive", "constraints"]
    ),
    json_values,
)
@settings(deadline=None)
def test_any_value_anywhere_is_read_or_refused_and_never_crashes(key: str, value: Any) -> None:
    for document in ({**schema(), key: value}, with_field(**{key: value}), with_constraints(**{key: value})):
        with contextlib.suppress(InputError):
            read = load(json.dumps(document))
            assert load(read.to_json()) == read
