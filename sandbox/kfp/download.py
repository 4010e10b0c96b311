"""Brings a pipeline from the URL that a client names: http and https alone, bounded in size, time and redirections."""

from __future__ import annotations

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from sandbox.documents import MAX_BYTES
from sandbox.errors import InvalidSpec

_SILENCE_S = 10.0
_LONGEST_S = 60.0
_MOST_REDIRECTIONS = 5
_CHUNK = 1 << 16


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows a few, and none to anything but http and https."""

    max_redirections = _MOST_REDIRECTIONS
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check(newurl, "it redirects to ")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


async def download(url: str, where: str) -> tuple[str, bytes]:
    """The file's name and content. Raises InvalidSpec, naming `where` the URL was given."""
    try:
        _check(url)
        return PurePosixPath(unquote(urlsplit(url).path)).name, await asyncio.to_thread(_read, url)
    except urllib.error.HTTPError as error:
        raise InvalidSpec(f"{url} answers {error.code} {error.reason}", where) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise InvalidSpec(f"{url} cannot be fetched: {reason}", where) from None


def _check(url: str, told: str = "") -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{told}{url!r}, and only http and https are fetched")


def _read(url: str) -> bytes:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirections(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    deadline = time.monotonic() + _LONGEST_S
    content = bytearray()
    with opener.open(url, timeout=_SILENCE_S) as answer:
        while chunk := answer.read1(_CHUNK):
            content += chunk
            if len(content) > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"it takes longer than {_LONGEST_S:g} s")
    return bytes(content)
