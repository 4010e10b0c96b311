"""What the payload log is told: KServe's `logger` and the identity that KServe's agent is given. Standard library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from kanary.errors import ConfigError

Mode = Literal["all", "request", "response"]
Kind = Literal["request", "response"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_WHERE = "payload log"
_HINT = "give it as JSON, as serving/predictor/README.md shows, or leave it out"
# The words of the JSON that are texts, by the field they fill.
_TEXTS = {
    "url": "url",
    "inferenceservicename": "service",
    "namespace": "namespace",
    "component": "component",
    "endpoint": "endpoint",
    "source": "source",
    "revision": "revision",
}
_WORDS = frozenset({*_TEXTS, "mode", "metadataHeaders", "metadataAnnotations"})


@dataclass(frozen=True)
class PayloadLog:
    """Where events go and what they carry. `sample` is the share of predictions that is logged, from 0 to 1,
    `niceness` (0 to 19) how far the process that sends gives way to the one that predicts.

    `source` is the pod's name, `annotations` those that `logger.metadataAnnotations` names, with the pod's values.
    """

    url: str
    mode: Mode
    metadata_headers: tuple[str, ...]
    annotations: Mapping[str, str]
    service: str
    namespace: str
    component: str
    endpoint: str
    source: str
    revision: str
    sample: float
    niceness: int = 19

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of events that `mode` asks for."""
        return KINDS if self.mode == "all" else (self.mode,)


def payload_log(text: str, sample: float, niceness: int, environment: Mapping[str, str]) -> PayloadLog | None:
    """The payload log that the JSON `text` asks for; None for no text.

    `environment` gives the revision (K_REVISION) and the source (HOSTNAME) where the text does not. ConfigError for a
    word that is not known, a wrong value, or a URL that is none of http or https.
    """
    if not text.strip():
        return None
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{_WHERE}: {error}", _HINT) from None
    if not isinstance(given, dict):
        raise ConfigError(f"{_WHERE}: an object is needed", _HINT)
    if unknown := sorted(given.keys() - _WORDS):
        raise ConfigError(f"{_WHERE}: unknown {', '.join(unknown)}; known are {', '.join(sorted(_WORDS))}", _HINT)
    defaults = {
        "component": "predictor",
        "source": environment.get("HOSTNAME") or "kanary-predictor",
        "revision": environment.get("K_REVISION", ""),
    }
    texts = {field: _line(given, word, defaults.get(word, "")) for word, field in _TEXTS.items()}
    _check_url(texts["url"])
    mode = given.get("mode", "all")
    if mode not in get_args(Mode):
        raise ConfigError(f"{_WHERE}: mode is none of {', '.join(get_args(Mode))}", _HINT)
    headers, annotations = given.get("metadataHeaders", []), given.get("metadataAnnotations", {})
    if not isinstance(headers, list) or not all(isinstance(name, str) for name in headers):
        raise ConfigError(f"{_WHERE}: metadataHeaders is no list of names", _HINT)
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise ConfigError(f"{_WHERE}: metadataAnnotations is no object of texts", _HINT)
    return PayloadLog(
        mode=mode, metadata_headers=tuple(headers), annotations=annotations, sample=sample, niceness=niceness, **texts
    )


def canonical(name: str) -> str:
    """A header's name as Go spells it, and so the agent compares and writes it: X-Request-Id."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def _line(given: Mapping[str, Any], word: str, default: str) -> str:
    value = given.get(word, default)
    if not isinstance(value, str) or any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise ConfigError(f"{_WHERE}: {word} is no line of text", _HINT)
    return value


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or " " in url or not url.isascii():
        raise ConfigError(f"{_WHERE}: {url!r} is no http or https URL that events can be sent to", _HINT)
