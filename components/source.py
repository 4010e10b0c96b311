"""Reading what a URI names: a local path, or anything fsspec can open. Never writes to it.

Messages name it without credentials.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.utils import get_protocol

from kanary.errors import InputError

# What `pip install` needs for a protocol that fsspec knows but does not carry.
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp",
    "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "hf": "huggingface_hub", "sftp": "paramiko", "ssh": "paramiko",
    "smb": "smbprotocol", "oci": "ocifs", "hdfs": "pyarrow", "github": "requests", "webhdfs": "requests",
}  # fmt: skip

# The libraries below fsspec have error trees of their own; the one in use has been imported when it raises.
_FOREIGN_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("requests.exceptions", "RequestException"),
)


@contextlib.contextmanager
def local_copy(uri: str, beside: Path | None = None) -> Iterator[Path]:
    """The file a URI names, as a local path: itself where it is local, else a copy that goes when the block ends.

    The copy is made in the folder `beside` (the system's temporary folder by default). Raises InputError when the
    URI names no readable file, or a protocol that is unknown or whose package is missing (the hint names it).
    """
    if get_protocol(uri) in ("file", "local"):
        yield _local_file(uri)
        return
    with tempfile.TemporaryDirectory(prefix="source-", dir=beside) as folder:
        copy = Path(folder) / "copy"
        _download(uri, copy)
        yield copy


def read_text(uri: str, limit: int = 1 << 20) -> str:
    """The UTF-8 text a URI names. InputError as for `local_copy`, and when it is over `limit` bytes or not UTF-8."""
    with local_copy(uri) as path, _reading(uri), path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{shown(uri)} is larger than {limit} bytes", "is it the file you meant?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(uri)} is not UTF-8 text: byte {error.start} does not fit") from error


def contents_below(uri: str, endings: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The files below the folder that a URI names, by name, whose names end so, with their contents; or the file.

    Raises InputError as `local_copy` does, and for a folder without such a file.
    """
    protocol = get_protocol(uri).partition("::")[0]
    if protocol in ("file", "local") and not Path(re.sub(r"^(file|local):(//)?", "", uri)).is_dir():
        yield uri, _local_file(uri).read_bytes()
        return
    filesystem, path = _filesystem(uri, protocol)
    with _reading(uri):
        found = filesystem.find(path)
    names = [name for name in sorted(found) if name.endswith(endings) or name == path]
    if not names:
        raise InputError(f"below {shown(uri)} there is no file that ends with {' or '.join(endings)}")
    for name in names:
        with _reading(uri):
            content: bytes = filesystem.cat_file(name)
        yield name, content


def shown(uri: str) -> str:
    """A URI as it is logged and recorded: without user and password, and without an HTTP query (a signed URL's key)."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    host, slash, path = rest.partition("/")
    if scheme.startswith("http"):
        path = re.split("[?#]", path)[0]
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def path_of(uri: str) -> str:
    """The path in a URI, for what its name ends with."""
    return shown(uri).partition("://")[2] or uri


def _local_file(uri: str) -> Path:
    if not uri.strip():
        raise InputError("no file is named: the path or URL is empty")
    path = Path(re.sub(r"^(file|local):(//)?", "", uri)).expanduser().absolute()
    with _reading(str(path)):
        if not path.exists():
            raise InputError(f"there is no file {path}", "a step reads paths on its own machine; elsewhere give a URL")
        if not path.is_file():
            raise InputError(f"{path} is not a file")
        path.open("rb").close()
    return path


def _download(uri: str, copy: Path) -> None:
    filesystem, path = _filesystem(uri, get_protocol(uri).partition("::")[0])
    with _reading(uri):
        filesystem.get_file(path, str(copy))
    if not copy.is_file():
        raise InputError(f"{shown(uri)} is not a file")


def _filesystem(uri: str, protocol: str) -> tuple[Any, str]:
    """What reads the URI, and the path in it."""
    if protocol not in fsspec.available_protocols():
        hint = "give an object in MinIO as s3://, with AWS_ENDPOINT_URL set" if protocol == "minio" else ""
        raise InputError(f"{shown(uri)}: the protocol {protocol!r} is not known", hint)
    try:
        with _reading(uri):
            found: tuple[Any, str] = fsspec.url_to_fs(uri, **_options(protocol))
            return found
    except ImportError as error:
        package = _PACKAGES.get(protocol, "")
        hint = f"pip install {package}" if package else str(error)
        raise InputError(f"{shown(uri)}: reading {protocol}:// needs a package that is not installed", hint) from error


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("http", "https"):
        return {}
    import aiohttp

    # aiohttp gives up after five minutes in all, which a large file on a slow line takes.
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[None]:
    """Turns whatever a filesystem raises into an InputError that names the URI."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"there is no file {shown(uri)}") from error
    except PermissionError as error:
        raise InputError(f"{shown(uri)} may not be read", "check its permissions, or the credentials for it") from error
    except (OSError, ValueError, *_foreign_errors()) as error:  # type: ignore[misc]  # mypy cannot see into the star
        raise InputError(f"{shown(uri)} cannot be read: {type(error).__name__}: {_safe(str(error), uri)}") from error


def _foreign_errors() -> tuple[type[Exception], ...]:
    loaded = [(sys.modules[module], name) for module, name in _FOREIGN_ERRORS if module in sys.modules]
    return tuple(getattr(module, name) for module, name in loaded)


def _safe(text: str, uri: str) -> str:
    return text.replace(uri, shown(uri))[:300]
