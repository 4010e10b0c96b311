"""A model is found and verified in whatever shape KServe's storage initializer leaves it below /mnt/models.

The shapes are what kserve-storage 0.20 made of a release: from S3 (moto), http (archives), a claim (links), and, read
off its sources, from Hugging Face, git and OCI.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kanary.errors import ModelError
from kanary.modelspec import RELEASE, WEIGHTS
from serving.predictor.load import load
from tests.serving.predictor_rig import write_model

Layout = Callable[[Path, Path], None]


def flat(release: Path, mounted: Path) -> None:
    """gs, azure, or an archive of the folder's content."""
    shutil.copytree(release, mounted)


def with_a_sibling(release: Path, mounted: Path) -> None:
    """s3://bucket/plants/1 takes the key as a prefix: what lies below plants/10 comes along, in a folder `0`."""
    shutil.copytree(release, mounted)
    shutil.copytree(release, mounted / "0")
    (mounted / "0" / WEIGHTS).write_bytes(b"another model's")


def nested(release: Path, mounted: Path) -> None:
    """An archive of the folder itself."""
    shutil.copytree(release, mounted / release.name)


def linked(release: Path, mounted: Path) -> None:
    """pvc: a link to every file of the claim."""
    mounted.mkdir()
    for path in release.iterdir():
        (mounted / path.name).symlink_to(path)


def mounted_elsewhere(release: Path, mounted: Path) -> None:
    """oci: /mnt/models is a link to the model container's own folder."""
    mounted.symlink_to(release, target_is_directory=True)


def snapshot(release: Path, mounted: Path) -> None:
    """hf: the repository's other files, and the hub's notes on each."""
    shutil.copytree(release, mounted)
    (mounted / "README.md").write_text("# Plants", encoding="utf-8")
    (mounted / ".gitattributes").write_text("*.safetensors filter=lfs", encoding="utf-8")
    notes = mounted / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "model.json.metadata").write_text("abc", encoding="utf-8")


def clone(release: Path, mounted: Path) -> None:
    """git: a whole repository, the model in one of its folders."""
    shutil.copytree(release, mounted / "model")
    (mounted / ".git").mkdir()
    (mounted / ".git" / "config").write_text("[core]", encoding="utf-8")
    (mounted / "src").mkdir()


LAYOUTS = (flat, with_a_sibling, nested, linked, mounted_elsewhere, snapshot, clone)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_release_is_served_from_where_storage_leaves_it(tmp_path: Path, layout: Layout) -> None:
    release, mounted = tmp_path / "plants", tmp_path / "models"
    spec = write_model(release)
    (release / RELEASE).write_text(json.dumps({"digest": spec.digest()}), encoding="utf-8")
    layout(release, mounted)
    service = load(mounted, digest=spec.digest())
    assert service.predictor.spec == spec


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_release_that_was_altered_on_its_way_is_not_served(tmp_path: Path, layout: Layout) -> None:
    release, mounted = tmp_path / "plants", tmp_path / "models"
    write_model(release)
    weights = (release / WEIGHTS).read_bytes()
    (release / WEIGHTS).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    layout(release, mounted)
    with pytest.raises(ModelError, match=r"model\.safetensors was altered"):
        load(mounted)
