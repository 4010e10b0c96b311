"""A notification: where it goes, by a Secret or the environment alone; sent or not, it never fails and never leaks."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from kanary import config, kubernetes
from kanary.errors import KanaryError

Level = Literal["info", "success", "warning", "failure"]
VARIABLE = "KANARY_NOTIFY_URLS"
KEY = "urls"
_LONGEST = 4000
_SECONDS = 20.0

Read = Callable[[str], Mapping[str, str]]
"""A Secret's name to its data, base64 as Kubernetes has it."""


def destinations(secret: str, environment: Mapping[str, str], read: Read) -> list[str]:
    """Apprise URLs: the lines of the key `urls` of the Secret, else those of KANARY_NOTIFY_URLS. Raises KanaryError."""
    text = environment.get(VARIABLE, "")
    if secret:
        data = read(secret)
        try:
            text = base64.b64decode(data[KEY], validate=True).decode("utf-8")
        except (KeyError, binascii.Error, ValueError):
            raise KanaryError(f"the Secret {secret} has no readable key {KEY!r}", "an Apprise URL a line") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def read_secret(name: str) -> Mapping[str, str]:
    """The data of a Secret in the namespace that this step runs in. Raises KanaryError."""
    given = config.load()
    with kubernetes.connect(given) as api:
        where = given.namespace or api.access.namespace
        found = api.call(_secret(f"/api/v1/namespaces/{where}/secrets/{name}"))
    data: Mapping[str, str] = found.get("data") or {}
    return data


def _secret(path: str) -> kubernetes.Act[kubernetes.Document]:
    answer = yield kubernetes.read(path)
    if isinstance(answer, KanaryError):
        raise answer
    found: kubernetes.Document = answer
    return found


def notify(title: str, body: str, level: str, urls: Sequence[str]) -> str:
    """Send to every URL; what came of it, for the log, in which no URL is named: most hold a token or a password."""
    import logging
    import socket

    from apprise import Apprise, AppriseAsset

    if not urls:
        return f"nobody is told: no Secret is named, and {VARIABLE} is empty"
    # What it logs of a failure names the URL.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS)
    kind = level if level in get_args(Level) else "info"
    told, refused = 0, 0
    try:
        for url in urls:
            # One at a time: a URL that is none must not keep the others from being told.
            target = Apprise(asset=AppriseAsset(app_id="Kanary", async_mode=False, secure_logging=True))
            if target.add(url) and target.notify(body=body[:_LONGEST], title=title[:200], notify_type=kind):
                told += 1
            else:
                refused += 1
    finally:
        socket.setdefaulttimeout(before)
    return f"told {told} of {len(urls)}" + (f"; {refused} could not be told" if refused else "")


def tell(title: str, body: str, level: str, secret: str) -> tuple[bool, str]:
    """Send, whatever happens: whether all were told, and what is to be logged. Never raises."""
    urls: list[str] = []
    try:
        urls = destinations(secret, os.environ, read_secret)
        said = notify(title, body, level, urls)
    except KanaryError as error:
        return False, f"nobody is told: {error.message}"
    except Exception as error:  # noqa: BLE001 - to tell is a courtesy: nothing that fails there may fail the pipeline
        return False, f"not everybody is told: {type(error).__name__}"
    return bool(urls) and "could not" not in said, said
