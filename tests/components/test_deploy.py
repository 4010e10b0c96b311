"""What deploy refuses before it touches a cluster. What it does to one is in tests/rollout, on the real thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.deploy.deployment import Target, deploy, servable
from components.deploy.smoke import smoke_test
from kanary.errors import InputError, ModelError
from kanary.traffic import address


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("minio://mlpipeline/v2/artifacts/model", "s3://mlpipeline/v2/artifacts/model"),
        ("s3://releases/m/v1", "s3://releases/m/v1"),
        ("gs://releases/m/v1", "gs://releases/m/v1"),
        ("pvc://claim/m", "pvc://claim/m"),
        ("hf://owner/model", "hf://owner/model"),
        ("/data/releases/m/v1", "file:///data/releases/m/v1"),
    ],
)
def test_a_release_is_named_as_kserve_fetches_it(uri: str, expected: str) -> None:
    assert servable(uri) == expected


@pytest.mark.parametrize("uri", ["", "relative/path", "ftp://host/model", "S3://bucket/x", "model"])
def test_what_kserve_cannot_fetch_is_refused(uri: str) -> None:
    with pytest.raises(InputError, match="KServe cannot fetch a model"):
        servable(uri)


@pytest.mark.parametrize("percent", [-1, 100, 400])
def test_a_share_that_no_canary_can_have_is_refused(tmp_path: Path, percent: int) -> None:
    with pytest.raises(InputError, match=f"canary_percent is {percent}"):
        deploy(tmp_path, "s3://b/m", None, Target("m", percent=percent))


def test_what_is_no_release_is_refused_before_any_request(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        deploy(tmp_path, "s3://b/m", None, Target("m"))


def test_the_smoke_test_goes_where_the_url_says_whatever_runs_beside_it() -> None:
    """A sandbox's own names need no name server; a cluster's are asked straight, also where a sandbox is running."""
    assert address("http://latest-m-predictor.default.localhost:8080") == (
        "http://127.0.0.1:8080",
        {"Host": "latest-m-predictor.default.localhost:8080"},
    )
    cluster = "http://latest-m-predictor.models.svc.cluster.local"
    assert address(cluster) == (cluster, {})


def test_without_a_url_of_its_own_the_missing_smoke_test_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke_test("", tmp_path, None, "m")  # type: ignore[arg-type]  # nothing is read of the model
    assert "no smoke test" in capsys.readouterr().out
