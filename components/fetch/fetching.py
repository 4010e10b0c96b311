"""Copying a published release: model.json first, which names the files, then those, and all of it verified."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.source import local_copy, read_text, shown
from kanary import modelspec
from kanary.errors import InputError
from kanary.modelspec import RELEASE, SPEC, ModelSpec
from serving.model.store import written_beside


def fetch(uri: str, directory: Path, digest: str = "") -> ModelSpec:
    """Copies the release at `uri` into `directory`, whole or not at all.

    Raises InputError where there is none, ModelError where it was altered or has another digest.
    """
    root = uri.rstrip("/")
    if not root:
        raise InputError("release_uri is empty.", "Give the folder of a release: releases_uri/name/version.")
    spec = modelspec.parse(read_text(f"{root}/{SPEC}"), f"{shown(root)}/{SPEC}")
    with written_beside(directory) as beside:
        for name in (*spec.files, SPEC, RELEASE):
            with local_copy(f"{root}/{name}") as copy:
                shutil.copyfile(copy, beside / name)
        modelspec.verify(beside, digest or spec.digest())
    return spec
