"""The small languages of the API: patches, selectors, JSONPath, ages, Go's complaints about JSON, protobuf."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.kubernetes import gojson, jsonpath, patch, protobuf, registry, schema, selectors, tables, validation
from sandbox.kubernetes.status import ApiError

SERVICES = registry.find("serving.kserve.io", "v1beta1", "inferenceservices")
POD = schema.load("V1Pod", builtin=True)
NODE = schema.load("V1beta1InferenceService", builtin=False)
PODS = registry.by_id("pods")


# Examples of RFC 7386.
@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, change: Any, result: Any) -> None:
    assert patch.merge(target, change) == result


# Examples of RFC 6902, appendix A.
@pytest.mark.parametrize(
    ("target", "operations", "result"),
    [
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["b"]}], {"foo": ["a", ["b"]]}),
        ({"foo": ["a", "b", "c"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a", "c"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"foo": ["all", "grass"]}, [{"op": "move", "from": "/foo/0", "path": "/foo/1"}], {"foo": ["grass", "all"]}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/m~0n", "value": 2}], {"a/b": 1, "m~n": 2}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
    ],
)
def test_json_patch(target: Any, operations: list[dict[str, Any]], result: Any) -> None:
    assert patch.apply_operations(target, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "remove", "path": "/nosuch"},
        {"op": "replace", "path": "/list/1", "value": 1},
        {"op": "test", "path": "/list/0", "value": True},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "nosuch", "path": "/list"},
        {"op": "add", "path": "list", "value": 1},
        {"path": "/list"},
    ],
)
def test_json_patch_that_does_not_apply_changes_nothing(operation: dict[str, Any]) -> None:
    target = {"list": [1]}
    with pytest.raises(ApiError) as refused:
        patch.apply_operations(target, [{"op": "add", "path": "/new", "value": 1}, operation])
    assert (refused.value.code, target) == (422, {"list": [1]})


def test_strategic_merge_goes_by_keys() -> None:
    target = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}
    change = {"spec": {"containers": [{"name": "b", "image": "3"}, {"name": "a", "$patch": "delete"}, {"name": "c"}]}}
    assert patch.strategic(target, change, POD) == {
        "spec": {"containers": [{"name": "b", "image": "3"}, {"name": "c"}]}
    }


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("", "abcd"),
        ("env=prod", "a"),
        ("env==prod", "a"),
        ("env!=prod", "bcd"),
        ("env in (prod, dev)", "ab"),
        ("env notin (prod,dev)", "cd"),
        ("env", "abc"),
        ("!env", "d"),
        ("env,tier", "ac"),
        ("tier>1", "c"),
        ("tier<2", "a"),
        ("env in (prod),tier=1", "a"),
    ],
)
def test_label_selectors(selector: str, chosen: str) -> None:
    labels = {"a": {"env": "prod", "tier": "1"}, "b": {"env": "dev"}, "c": {"env": "test", "tier": "2"}, "d": {}}
    assert SERVICES is not None
    matches = selectors.matcher(selector, "", SERVICES)
    assert "".join(name for name, given in labels.items() if matches({"metadata": {"labels": given}})) == chosen


@pytest.mark.parametrize("selector", ["=", "a=b=c", "a in b", "a,,b", "a,", "in (a)", "a in (b", "-a=b", "a=b c"])
def test_malformed_label_selectors_are_refused(selector: str) -> None:
    with pytest.raises(ApiError) as refused:
        selectors.parse_labels(selector)
    assert refused.value.code == 400


def test_field_selectors_reach_into_the_object() -> None:
    body = {"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Running"}}
    assert selectors.matcher("", "status.phase=Running,metadata.name!=q", PODS)(body)
    assert not selectors.matcher("", "status.phase!=Running", PODS)(body)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (1000, "16m"),
        (3 * 3600 + 60, "3h1m"),
        (30 * 3600, "30h"),
        (50 * 3600, "2d2h"),
        (20 * 86400, "20d"),
        (1000 * 86400, "2y270d"),
        (4000 * 86400, "10y"),
    ],
)
def test_ages_are_kubectls(seconds: int, words: str) -> None:
    assert tables.human_duration(seconds) == words


def test_jsonpath_of_printer_columns() -> None:
    body = {"a": [{"t": "x", "v": 1}, {"t": "y", "v": 2}, {"f": True, "v": 3}]}
    assert jsonpath.first(body, ".a[?(@.t=='y')].v") == 2
    assert jsonpath.first(body, ".a[?(@.f==true)].v") == 3
    assert jsonpath.first(body, ".a[*].v") == 1
    assert jsonpath.first(body, ".a[1].v") == 2
    assert jsonpath.first(body, ".nosuch.b") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", ""),
        ('{"a": [1, true, null, "\\u00e4"]}', ""),
        ("", "unexpected end of JSON input"),
        ("{nope", "invalid character 'n' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1 "b"}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("trie", "invalid character 'i' in literal true (expecting 'u')"),
        ('{"a": 1}}', "invalid character '}' after top-level value"),
        ("-x", "invalid character 'x' in numeric literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
    ],
)
def test_complaints_about_json_are_gos(text: str, complaint: str) -> None:
    assert gojson.syntax_error(text) == complaint


@pytest.mark.parametrize(
    ("predictor", "complaints"),
    [
        (
            {"minReplicas": 3_000_000_000},
            ['Invalid value: "": Checked value must be of type integer with format int32'],
        ),
        ({"logger": {"mode": "some"}}, ['Unsupported value: "some": supported values: "all", "request", "response"']),
        ({"model": {"resources": {"limits": {"cpu": 1}}}}, []),
        ({"model": {"resources": {"limits": {"cpu": "1 core"}}}}, ["in body should match"]),
        (
            {"model": {"resources": {"limits": {"cpu": True}}}},
            ["integer,string", "must validate at least one", "integer"],
        ),
        ({"storageUris": []}, ["should have at least 1 items"]),
        ({"containers": [{"name": "c", "env": [{"name": "A"}, {"name": "A"}]}]}, ['Duplicate value: {"name":"A"}']),
    ],
)
def test_schema_faults(predictor: Any, complaints: list[str]) -> None:
    found = validation.faults({"spec": {"predictor": predictor}}, NODE)
    assert len(found) == len(complaints)
    for cause, complaint in zip(found, complaints, strict=True):
        assert complaint in cause.message


def message(*fields: tuple[int, bytes | int]) -> bytes:
    """Protobuf, as Go would write it."""
    made = b""
    for number, value in fields:
        if isinstance(value, int):
            made += bytes([number << 3, value])
        else:
            made += bytes([number << 3 | 2, len(value)]) + value
    return made


def test_protobuf_bodies_become_json() -> None:
    entry = message((1, b"k"), (2, b"v"))
    config = message((1, message((1, b"c"), (2, b""), (8, b""), (11, entry))), (2, entry), (3, entry), (4, 0))
    raw = protobuf.MAGIC + message((1, message((1, b"v1"), (2, b"ConfigMap"))), (2, config), (3, b""), (4, b""))
    assert protobuf.decode(raw) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "labels": {"k": "v"}},
        "data": {"k": "v"},
        "binaryData": {"k": "dg=="},
        "immutable": False,
    }


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"k8s\0\x0a\x7f", protobuf.MAGIC + message((1, b"\x12\x03Pod"))])
def test_protobuf_that_is_not_understood_is_refused(raw: bytes) -> None:
    with pytest.raises(protobuf.Undecodable):
        protobuf.decode(raw)
