"""Brings artifacts that lie in an object store or on a web server to this machine, as Kubeflow's launcher does.

The libraries for that are heavy and slow to give up: they work in a forked worker, and speak into the step's log.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sandbox.engine.placeholders import TaskFailed
from sandbox.engine.values import Artifact, Values

SCHEMES = frozenset({"gs", "s3", "http", "https"})
CALL = "sandbox.engine.fetch:main"
Download = Callable[[str, Path], Awaitable[None]]
"""Brings what is at a URI to a path, or raises TaskFailed."""


async def localised(inputs: Values, folder: Path, download: Download) -> Values:
    """The inputs with URIs of this machine, what is elsewhere fetched into `folder`, once for each URI.

    Raises TaskFailed for what cannot be had.
    """
    artifacts = {
        name: [await _local(artifact, name, folder, download) for artifact in listed]
        for name, listed in inputs.artifacts.items()
    }
    return dataclasses.replace(inputs, artifacts=artifacts)


async def _local(artifact: Artifact, name: str, folder: Path, download: Download) -> Artifact:
    uri = artifact["uri"]
    parts = urlsplit(uri)
    if not parts.scheme:
        return artifact
    if parts.scheme == "file":
        return artifact | {"uri": unquote(parts.path)}
    if parts.scheme not in SCHEMES:
        raise TaskFailed(f"input artifact {name!r}: {uri} cannot be fetched: no store of kind {parts.scheme!r} here")
    last = Path(unquote(parts.path)).name or "artifact"
    target = folder / hashlib.sha256(uri.encode()).hexdigest()[:20] / last
    if not target.exists():
        try:
            await download(uri, target)
        except TaskFailed as error:
            raise TaskFailed(f"input artifact {name!r}: {uri} cannot be fetched: {error.message}") from error
    return artifact | {"uri": str(target)}


def main() -> None:
    """Called in a worker with a URI and a path: brings a file or a folder there, written beside and then renamed."""
    import fsspec

    uri, target = sys.argv[1], Path(sys.argv[2])
    system, path = fsspec.core.url_to_fs(uri)
    beside = target.parent / f".{uuid.uuid4()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        system.get(path, str(beside), recursive=system.isdir(path))
        try:
            os.replace(beside, target)
        except OSError:
            if not target.is_dir():  # else another step has fetched the same folder meanwhile
                raise
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        beside.unlink(missing_ok=True)
