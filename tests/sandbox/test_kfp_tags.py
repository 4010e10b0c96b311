"""Tags and display names of pipelines and versions, given, changed, filtered by; and filters that are too much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sandbox.rig import get, google_error

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def tagged(http: httpx.Client, package: str) -> dict[str, Any]:
    """A pipeline with tags, and beside it one without."""
    for name, tags in (("tagged", {"team": "ml-ops", "it's": 'a "quote"'}), ("untagged", {})):
        files = {"uploadfile": ("p.yaml", Path(package).read_bytes())}
        answer = http.post("/pipelines/upload", params={"name": name, "tags": json.dumps(tags)}, files=files)
        assert answer.status_code == 200, answer.text
    found: dict[str, Any] = get(http, "/pipelines/names/tagged")
    return found


def names(http: httpx.Client, *predicates: dict[str, Any]) -> list[str]:
    answer = http.get("/pipelines", params={"filter": json.dumps({"predicates": predicates})})
    assert answer.status_code == 200, answer.text
    return [one["name"] for one in answer.json()["pipelines"]]


def test_tags_are_shown_and_filtered_by(http: httpx.Client, tagged: dict[str, Any]) -> None:
    assert tagged["tags"] == {"team": "ml-ops", "it's": 'a "quote"'}
    assert "tags" not in get(http, "/pipelines/names/untagged")
    team = {"key": "tags.team", "operation": "EQUALS", "string_value": "ml-ops"}
    assert names(http, team) == ["tagged"]
    assert names(http, {**team, "key": "pipelines.tags.team"}) == ["tagged"]
    assert names(http, {**team, "string_value": "other"}) == []
    assert names(http, {**team, "key": "tags.nobody"}) == []


def test_names_and_tags_are_changed_and_nothing_else(http: httpx.Client, tagged: dict[str, Any]) -> None:
    path = f"/pipelines/{tagged['pipeline_id']}"
    changed = http.patch(path, json={"display_name": "Shown so", "description": "not changed"}).json()
    assert changed == {**tagged, "display_name": "Shown so"}
    assert http.patch(path, json={"tags": {"a": "b"}}).json() == {**changed, "tags": {"a": "b"}}
    cleared = {name: value for name, value in changed.items() if name != "tags"}
    assert http.patch(path, json={"tags": {}}).json() == cleared
    (version,) = get(http, f"{path}/versions")["pipeline_versions"]
    place = f"{path}/versions/{version['pipeline_version_id']}"
    assert http.patch(place, json={"tags": {"stage": "prod"}, "display_name": "v"}).json() == {
        **version,
        "display_name": "v",
        "tags": {"stage": "prod"},
    }
    prod = {"predicates": [{"key": "tags.stage", "operation": 1, "string_value": "prod"}]}
    found = http.get(f"{path}/versions", params={"filter": json.dumps(prod)}).json()
    assert [one["display_name"] for one in found["pipeline_versions"]] == ["v"]
    assert google_error(http.patch("/pipelines/nowhere", json={})) == (404, 5)
    assert google_error(http.patch(f"{path}/versions/nowhere", json={})) == (404, 5)
    http.patch(path, json={"display_name": "tagged", "tags": tagged["tags"]}).raise_for_status()


@pytest.mark.parametrize(
    "tags",
    ["[]", "text", '{"a": 1}', '{"": "x"}', '{"a.b": "x"}', json.dumps({"k" * 64: "v"}), json.dumps({"k": "v" * 64})],
)
def test_tags_that_kfp_refuses_are_refused(http: httpx.Client, package: str, tags: str) -> None:
    files = {"uploadfile": ("p.yaml", Path(package).read_bytes())}
    answer = http.post("/pipelines/upload", params={"name": "refused", "tags": tags}, files=files)
    assert google_error(answer) == (400, 3)
    assert "tags" in answer.json()["message"]
    assert http.get("/pipelines/names/refused").status_code == 404


def test_filters_are_bounded(http: httpx.Client) -> None:
    one = {"key": "name", "operation": "IN", "string_values": {"values": ["x"] * 1001}}
    for wanted, says in (([one], "more than 1000 values"), ([{}] * 101, "more than 100 predicates")):
        answer = http.get("/pipelines", params={"filter": json.dumps({"predicates": wanted})})
        assert google_error(answer) == (400, 3)
        assert says in answer.json()["message"]
