"""A release: a verified model beside release.json, which says what it was measured at, why it passed, whence it came.

Publishing never changes a release that is there: the same model under the same version is left as it is,
another one is refused. release.json is written last, so a release without it is no release.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanary import modelspec
from kanary.errors import GateError, InputError, MissingExtra, ModelError
from kanary.modelspec import RELEASE, SPEC, ModelSpec
from serving.model.store import written_beside

FORMAT = "kanary-release/1"

_INSTALL = "install it beside kanary[pipelines], on a cluster in the pipeline image"


@dataclass(frozen=True)
class Origin:
    """The run that made the release, and the content hash of the raw data it started from; empty where unknown."""

    run_name: str = ""
    run_id: str = ""
    data_sha256: str = ""


def write_release(
    model: Path,
    directory: Path,
    metrics: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
    origin: Origin,
    expected_digest: str | None = None,
) -> ModelSpec:
    """Copy the verified model to `directory`, with its release.json, whole or not at all.

    ModelError for a model that was altered; GateError unless there are verdicts and every one passed.
    """
    closed = [str(verdict.get("reason", verdict)) for verdict in verdicts if verdict.get("passed") is not True]
    if closed or not verdicts:
        why = " ".join(closed) or "There is no verdict on it."
        raise GateError(f"the model is not released: {why}", "release only what evaluate says passed")
    spec = modelspec.verify(model, expected_digest)
    release = {
        "format": FORMAT,
        "name": spec.name,
        "version": spec.version,
        "digest": spec.digest(),
        "data": {"sha256": origin.data_sha256, "training_sha256": spec.lineage.data_sha256},
        "run": {"id": origin.run_id, "name": origin.run_name},
        "metrics": {name: value for name, value in metrics.items() if _is_figure(value)},
        "verdicts": [dict(verdict) for verdict in verdicts],
    }
    with written_beside(directory) as beside:
        for name in (SPEC, *spec.files):
            shutil.copyfile(model / name, beside / name)
        modelspec.verify(beside, spec.digest())
        text = json.dumps(release, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (beside / RELEASE).write_text(text, encoding="utf-8")
    return spec


def publish(release: Path, releases_uri: str) -> str:
    """Copy a release to `releases_uri`/name/version and give that URI; a local path becomes a file:// URI.

    Local: written beside and renamed. Elsewhere, through fsspec, release.json comes last.
    ModelError where another model stands under that version; InputError for a URI that cannot be written to.
    """
    from fsspec.implementations.local import LocalFileSystem

    spec = modelspec.verify(release)
    filesystem, root = _filesystem(releases_uri)
    target = f"{root.rstrip('/')}/{spec.name}/{spec.version}"
    local = isinstance(filesystem, LocalFileSystem)
    try:
        if local:
            _publish_local(release, Path(target), spec)
        else:
            _publish_remote(release, filesystem, target, spec)
    except OSError as error:
        raise InputError(f"{releases_uri} cannot be written to: {error}", "check the place and its rights") from None
    # Not percent-encoded: fsspec and KServe take what follows file:// as it stands.
    return f"file://{target}" if local else str(filesystem.unstrip_protocol(target))


def _filesystem(uri: str) -> tuple[Any, str]:
    """fsspec's file system for `uri`, and the path inside it."""
    import fsspec

    if "://" not in uri and not Path(uri).is_absolute():
        raise InputError(f"releases_uri is {uri!r}", "give an absolute path or a URL such as s3://bucket/folder")
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except ImportError as error:
        raise MissingExtra(
            f"releases_uri is {uri!r}, which needs a package that is not here: {error}", _INSTALL
        ) from None
    except ValueError as error:
        raise InputError(f"releases_uri is {uri!r}: {error}", "give a URL fsspec knows; for MinIO s3://") from None
    return filesystem, path


def _publish_local(release: Path, target: Path, spec: ModelSpec) -> None:
    if not target.exists():
        try:
            with written_beside(target, replaces=False) as beside:
                for name in _names(spec):
                    shutil.copyfile(release / name, beside / name)
            return
        except FileExistsError:
            pass  # another run published the same version meanwhile; what it holds decides
    _same_or_refuse(spec, modelspec.verify(target).digest(), str(target))


def _publish_remote(release: Path, filesystem: Any, target: str, spec: ModelSpec) -> None:
    if filesystem.exists(f"{target}/{RELEASE}"):
        found = modelspec.parse(filesystem.cat_file(f"{target}/{SPEC}").decode("utf-8", errors="replace"), target)
        return _same_or_refuse(spec, found.digest(), target)
    filesystem.makedirs(target, exist_ok=True)
    for name in _names(spec):
        filesystem.pipe_file(f"{target}/{name}", (release / name).read_bytes())
    return None


def _same_or_refuse(spec: ModelSpec, found: str, where: str) -> None:
    if found != spec.digest():
        raise ModelError(
            f"{where} holds another model under the version {spec.version}: {found}, not {spec.digest()}",
            "a release never changes: give the new model a version of its own",
        )


def _names(spec: ModelSpec) -> tuple[str, ...]:
    return (*spec.files, SPEC, RELEASE)


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
