from __future__ import annotations

import pytest

from components.images import TARGETS, image
from kanary import __version__
from kanary.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_image_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PREFIX", "TAG", *(target.upper() for target in TARGETS)):
        monkeypatch.delenv(f"KANARY_IMAGE_{variable}", raising=False)


def test_an_image_is_named_after_its_target_and_this_version() -> None:
    assert [image(target) for target in TARGETS] == [f"localhost/kanary/{target}:{__version__}" for target in TARGETS]


def test_prefix_and_tag_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARY_IMAGE_PREFIX", "registry.example.org:5000/team/kanary/")
    monkeypatch.setenv("KANARY_IMAGE_TAG", "2026-11-21")
    assert image("train") == "registry.example.org:5000/team/kanary/train:2026-11-21"


def test_one_image_can_be_pinned_by_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = f"registry.example.org/train@sha256:{'0a' * 32}"
    monkeypatch.setenv("KANARY_IMAGE_TRAIN", pinned)
    assert image("train") == pinned
    assert image("pipeline") == f"localhost/kanary/pipeline:{__version__}"


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tain'"):
        image("tain")


@pytest.mark.parametrize(
    "reference",
    [
        "kanary train",
        "Kanary/Train:1",
        "train:",
        "train@sha256:12",
        "https://registry/train:1",
        "train:1\n",
        "-x/train",
        "a//b",
    ],
)
def test_what_is_no_image_reference_is_refused(monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.setenv("KANARY_IMAGE_TRAIN", reference)
    with pytest.raises(ConfigError, match="KANARY_IMAGE_TRAIN, is not an image reference"):
        image("train")


def test_a_wrong_tag_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANARY_IMAGE_TAG", "a b")
    with pytest.raises(ConfigError, match="KANARY_IMAGE_TAG"):
        image("serve")
