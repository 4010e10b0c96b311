"""What looks like a secret is left out of recordings: they are made to be handed on. Pure.

By the name under which a text stands, by what the text looks like, and whatever an environment variable of a container
is set to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

LEFT_OUT = "(left out)"
# Names are taken apart at case, digits, dashes, dots and underscores.
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET = frozenset(
    ("password", "passwords", "passwd", "pwd", "passphrase", "secret", "secrets", "token", "tokens", "credential",
     "credentials", "apikey", "authorization", "bearer", "cookie", "cookies", "signature", "jwt", "dsn")
)  # fmt: skip
_SECRET_PAIRS = frozenset(
    ("api key", "access key", "private key", "account key", "secret key", "signing key", "encryption key", "auth key",
     "connection string", "client key", "shared key")
)  # fmt: skip
# Where these stand a name is no secret, but says where one lies.
_HARMLESS = frozenset(
    ("name", "names", "ref", "file", "path", "mount", "account", "count", "seconds", "expiration", "uri", "url", "type",
     "id")
)  # fmt: skip
_FREE = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
    r"[\w-]*[\"']?\s*[=:]\s*[\"']?)(?!\(left out\))([^\s\"',;&)]+)"
)
_SHAPES = tuple(
    (re.compile(pattern), f"\\1{LEFT_OUT}")
    for pattern in (
        r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@\"']+(?=@)",  # a URL's user and password
        r"(?i)([?&][\w.-]*(?:signature|token|credential|key|secret|password|sig)[\w.-]*=)[^&\s\"']+",
        r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
        r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*",  # JWT
        r"()\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"()\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}"
        r"|xox[abprs]-[\w-]{10,}|npm_[A-Za-z0-9]{30,}|AIza[\w-]{30,})",
        r"()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"(?i)(--?[\w-]*(?:password|passwd|secret|token|api-?key|access-?key|credentials?)[\w-]*[= ])(?!-)[^\s\"']+",
    )
)
_FLAG = re.compile(r"--?[\w-]+")
# Copies of the whole object, and of its history of writers.
_DROPPED = ("managedFields", "kubectl.kubernetes.io/last-applied-configuration")


def clean(value: Any, name: str = "") -> Any:
    """`value` (plain JSON) without what looks like a secret; `name` is what it stands under."""
    if isinstance(value, str):
        return LEFT_OUT if value and is_secret(name) else clean_text(value)
    if isinstance(value, Mapping):
        found = {key: clean(part, key) for key, part in value.items() if key not in _DROPPED}
        if isinstance(found.get("name"), str) and isinstance(found.get("value"), str) and is_secret(found["name"]):
            found["value"] = LEFT_OUT
        for key in ("env", "envFrom"):
            if isinstance(found.get(key), list):
                found[key] = [_variable(entry) for entry in found[key]]
        return found
    if isinstance(value, list | tuple):
        parts = [clean(part, name) for part in value]
        # ["--token", "abc"]
        for index in range(1, len(parts)):
            before, part = parts[index - 1], parts[index]
            if isinstance(before, str) and isinstance(part, str) and _FLAG.fullmatch(before) and is_secret(before):
                parts[index] = part if part.startswith("-") else LEFT_OUT
        return parts
    return value


def clean_text(text: str) -> str:
    """A text without what looks like a secret in it."""
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return _FREE.sub(rf"\1{LEFT_OUT}", text)


def clean_json(text: str, without: Sequence[str] = ()) -> str:
    """The same for a text that is JSON itself; one that is none is left out: nobody knows what it holds.

    `without`: keys of it that go, too.
    """
    try:
        found = clean(json.loads(text))
        if isinstance(found, dict):
            found = {key: value for key, value in found.items() if key not in without}
        return json.dumps(found, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return LEFT_OUT


def is_secret(name: str) -> bool:
    """Whether what stands under this name is to be kept from others."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _HARMLESS:
        return False
    pairs = {f"{one} {other}" for one, other in pairwise(words)}
    return bool(_SECRET.intersection(words) or _SECRET_PAIRS & pairs)


def _variable(entry: Any) -> Any:
    """An environment variable: its name, and where its value comes from, never the value."""
    return dict(entry) | {"value": LEFT_OUT} if isinstance(entry, Mapping) and entry.get("value") else entry
