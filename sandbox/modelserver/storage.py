"""The storage initializer: brings the model behind a storageUri into a folder that never changes afterwards.

Local folders are copied, remote ones fetched with fsspec; both beside, then renamed. Nothing is read from the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tarfile
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from sandbox.errors import SandboxError

_REMOTE = ("s3", "gs", "https", "http", "abfs", "az", "hf")
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")


class StorageFailed(SandboxError):
    """The model cannot be had."""


def fetch(uri: str, home: Path) -> Path:
    """The folder below `home`/kserve/models that holds the model of `uri`, made where there is none yet.

    A local source is known by its paths, sizes and times of change, so that what changed in place is copied anew and
    what did not is copied once. Raises StorageFailed with the reason.
    """
    scheme = urlparse(uri).scheme
    models = home / "kserve" / "models"
    if scheme in ("", "file", "pvc"):
        source = _local(uri, scheme, home)
        target = models / _digest(uri, *_fingerprint(source))
        return _place(target, lambda folder: _copy(source, folder, uri))
    if scheme not in _REMOTE:
        known = ", ".join(f"{name}://" for name in ("file", "pvc", "s3", "gs", "https", "hf"))
        hint = "KFP's minio:// is s3:// with its credentials" if scheme == "minio" else ""
        raise StorageFailed(f"storageUri {uri}: the scheme {scheme}:// is none of {known}", hint)
    # A remote source may change under the same name: every revision fetches it once, when it first starts.
    target = models / _digest(uri, uuid.uuid4().hex)
    return _place(target, lambda folder: _download(uri, folder))


def discard_unused(home: Path, used: set[Path]) -> list[Path]:
    """Move the models below `home` that no server has out of the way; where to, for `delete`. Quick.

    No `fetch` may run at the same time: what it has placed is nobody's yet. A `delete` may: what it deletes meanwhile
    is nobody's to move any more, and what cannot be moved stays until the next time.
    """
    models = home / "kserve" / "models"
    discarded: list[Path] = []
    for folder in models.iterdir() if models.is_dir() else ():
        if folder not in used:
            place = folder.with_name(f".gone.{uuid.uuid4().hex}")
            with contextlib.suppress(OSError):
                discarded.append(folder.rename(place))
    return discarded


def delete(folders: list[Path]) -> None:
    """Delete folders that `discard_unused` gave."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _local(uri: str, scheme: str, home: Path) -> Path:
    if scheme == "pvc":
        parsed = urlparse(uri)
        root = (home / "pvc" / parsed.netloc).resolve()
        source = (root / unquote(parsed.path).lstrip("/")).resolve()
        if not source.is_relative_to(root) or not parsed.netloc:
            raise StorageFailed(f"storageUri {uri}: the path leaves the claim")
    else:
        source = Path(unquote(urlparse(uri).path)) if scheme == "file" else Path(uri)
        if not source.is_absolute():
            raise StorageFailed(f"storageUri {uri}: a local path must be absolute")
    if not source.exists():
        hint = f"the claims of the sandbox lie in {home / 'pvc'}" if scheme == "pvc" else ""
        raise StorageFailed(f"storageUri {uri}: {source} does not exist", hint)
    return source


def _fingerprint(source: Path) -> Iterator[str]:
    for path in _files(source):
        found = path.stat()
        name = path.relative_to(source) if path != source else path.name
        yield f"{name} {found.st_size} {found.st_mtime_ns}"


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return sorted(Path(folder) / name for folder, _, names in os.walk(source, followlinks=True) for name in names)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _place(target: Path, fill: Callable[[Path], None]) -> Path:
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.mkdir()
        fill(beside)
        _make_read_only(beside)
        try:
            beside.rename(target)
        except OSError:
            if not target.is_dir():  # else another fetch of the same model was first
                raise
    except (OSError, shutil.Error) as error:
        raise StorageFailed(f"cannot store the model: {error}", "is the disk full?") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target


def _copy(source: Path, folder: Path, uri: str) -> None:
    files = _files(source)
    if not files:
        raise StorageFailed(f"storageUri {uri}: {source} holds no file")
    for path in files:
        place = folder / (path.relative_to(source) if path != source else path.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)


def _download(uri: str, folder: Path) -> None:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        text = f"storageUri {uri}: fetching it needs fsspec, which is not installed"
        raise StorageFailed(text, 'pip install "kanary[pipelines]"') from error
    try:
        filesystem, path = url_to_fs(uri)
        if filesystem.isfile(path):
            name = Path(urlparse(uri).path).name or "model"
            filesystem.get_file(path, str(folder / name))
            _unpack(folder / name)
        else:
            filesystem.get(path.rstrip("/") + "/", str(folder) + "/", recursive=True)
    except ImportError as error:
        raise StorageFailed(f"storageUri {uri}: {error}") from error
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise StorageFailed(f"storageUri {uri}: {type(error).__name__}: {error}") from error
    if not _files(folder):
        raise StorageFailed(f"storageUri {uri}: nothing there")


def _unpack(path: Path) -> None:
    """As KServe does with what it gets over https; nothing is written outside the archive's folder."""
    if not path.name.endswith(_ARCHIVES):
        return
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.parent)  # zipfile drops absolute paths and ".."
    else:
        with tarfile.open(path) as archive:
            _extract(archive, path.parent)
    path.unlink()


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Files and folders only, and only below `folder`. (tarfile's own filters are missing from 3.11.0 to 3.11.3.)"""
    root = folder.resolve()
    for member in archive:
        place = (root / member.name).resolve()
        if not place.is_relative_to(root):
            raise tarfile.ExtractError(f"{member.name!r} would be put outside the destination")
        if member.isdir():
            place.mkdir(parents=True, exist_ok=True)
        elif (content := archive.extractfile(member)) is not None and member.isfile():
            place.parent.mkdir(parents=True, exist_ok=True)
            with content, place.open("wb") as file:
                shutil.copyfileobj(content, file)
        else:
            raise tarfile.ExtractError(f"{member.name!r} is neither a file nor a folder")


def _make_read_only(folder: Path) -> None:
    for path in _files(folder):
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | (path.stat().st_mode & stat.S_IXUSR))
