from __future__ import annotations

import json

import pytest

from kanary import manifests
from kanary.errors import InputError
from kanary.manifests import merge_patch
from tests.core.cluster import merged


def made(**more: object) -> manifests.Document:
    arguments = {"min_replicas": 2, "resources": {"limits": {"cpu": "1"}}, "env": {"B": "2", "A": "1"}} | more
    return manifests.inference_service("m", "ns", "s3://b/m", "v1", "sha256:1", **arguments)  # type: ignore[arg-type]


def test_the_same_arguments_give_the_same_document() -> None:
    assert json.dumps(made()) == json.dumps(made(env={"A": "1", "B": "2"}))


def test_what_describes_the_model_stands_with_the_model_and_not_on_the_service() -> None:
    document = made()
    assert document["spec"]["predictor"]["annotations"] == {"model-version": "v1", "model-digest": "sha256:1"}
    assert document["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Knative",
        "serving.kserve.io/enable-tag-routing": "true",
    }


def test_the_predictor_is_told_the_digest_it_must_serve() -> None:
    env = made()["spec"]["predictor"]["model"]["env"]
    assert env == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "2"},
        {"name": "KANARY_MODEL_DIGEST", "value": "sha256:1"},
    ]


def test_a_percentage_is_there_only_where_one_is_asked_for() -> None:
    assert manifests.percent(made()) is None
    asked = made(canary_percent=0)
    assert manifests.percent(asked) == 0
    assert manifests.content(asked) == manifests.content(made())


@pytest.mark.parametrize("uri", ["", "minio://mlpipeline/v2/model"])
def test_a_uri_that_kserve_cannot_load_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="cannot load"):
        manifests.inference_service("m", "ns", uri, "v1", "sha256:1")


def test_a_predictor_without_a_digest_is_known_by_its_content() -> None:
    one, other = {"containers": [{"image": "a"}]}, {"containers": [{"image": "b"}]}
    assert manifests.model_digest(one) == manifests.model_digest(one | {"canaryTrafficPercent": 10})
    assert manifests.model_digest(one) != manifests.model_digest(other)


def test_a_merge_patch_makes_the_one_of_the_other() -> None:
    before = {"a": 1, "model": {"uri": "x", "env": [1], "gone": {}}, "gone": [1]}
    after = {"a": 1, "model": {"uri": "y", "env": [1, 2]}, "new": {"b": {}}}
    assert merged(before, merge_patch(before, after)) == after
    assert merge_patch(after, after) == {}
    assert merge_patch(before, after)["gone"] is None
