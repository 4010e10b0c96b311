"""Whether a release's model can still be fetched, as far as this machine can see. Reads; changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from kanary import modelspec
from kanary.errors import ModelError
from kanary.modelspec import ModelSpec
from kanary.release import Release

_SECONDS = 3.0  # for a server's answer: somebody is waiting to roll back


@dataclass(frozen=True)
class Found:
    """What is at a model's URI. Neither `there` nor `gone`: it could not be checked, and `why` says so.

    `spec` is the model's own description, where it could be read.
    """

    there: bool
    gone: bool
    why: str
    spec: ModelSpec | None = None


def look(release: Release) -> Found:
    """Whether the release's model is where its URI says and, where files can be read, is the one of its digest.

    file:// paths are read in full, http(s):// is asked with HEAD; other schemes need credentials that Kanary does not
    hold. Nothing says whether the model server's image can still be pulled.
    """
    return _look(release, whole=True)


def glance(release: Release) -> Found:
    """As look, but of files only their description is read: fit for something that is asked again and again."""
    return _look(release, whole=False)


def _look(release: Release, whole: bool) -> Found:
    uri = release.storage_uri
    if not uri:
        return _unknown("it is a container of its own, with no model URI; its image cannot be checked from here")
    scheme = uri.partition("://")[0] if "://" in uri else "file"
    if scheme == "file":
        return _folder(Path(unquote(urlsplit(uri).path) if "://" in uri else uri), release.digest, whole)
    if scheme in ("http", "https"):
        return _http(uri)
    return _unknown(f"{uri} cannot be checked from here ({scheme}://)")


def _folder(path: Path, digest: str, whole: bool) -> Found:
    if not path.parent.exists():
        # A path of the cluster's nodes: another machine's files say nothing about it.
        return _unknown(f"{path} cannot be checked: this machine has no {path.parent}")
    if not path.exists():
        return Found(False, True, f"{path} does not exist")
    if not (path / modelspec.SPEC).is_file():
        # The model of another server: there is nothing in it to compare with.
        return Found(True, False, f"{path} is there; without {modelspec.SPEC} its digest cannot be checked")
    expected = digest if digest.startswith("sha256:") else None
    try:
        spec = modelspec.verify(path, expected) if whole else modelspec.read_spec(path)
        if expected is not None and spec.digest() != expected:
            return Found(False, True, f"{path} is another model: its digest is {spec.digest()}, not {expected}")
    except ModelError as error:
        return Found(False, True, error.message)
    except OSError as error:
        return _unknown(f"{path} cannot be read: {error.strerror or error}")
    missing = [name for name in spec.files if not (path / name).is_file()]
    if missing:
        return Found(False, True, f"{path} lacks {', '.join(missing)}")
    return Found(True, False, f"{path} is the model of its digest", spec)


def _http(uri: str) -> Found:
    try:
        status = httpx.head(uri, timeout=_SECONDS, follow_redirects=True).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _unknown(f"{uri} cannot be checked: {error}")
    if status in (404, 410):
        return Found(False, True, f"{uri} answers {status}")
    if 200 <= status < 300:
        return Found(True, False, f"{uri} is there; its digest is checked when it is loaded")
    return _unknown(f"{uri} cannot be checked: it answers {status}")


def _unknown(why: str) -> Found:
    return Found(False, False, why)
