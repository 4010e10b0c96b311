"""What can be set: names in the three places, how a raw value becomes a checked one, what is allowed. Reads nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

DEFAULT_ENDPOINT = "http://127.0.0.1:8888"


@dataclass(frozen=True)
class Setting:
    """One setting: its names in the three places, how a raw value becomes a checked one, and what is allowed.

    `read(raw, base)` gives the value or raises ValueError; relative paths are seen from the folder `base`. A secret is
    taken from the environment alone, and never shown.
    """

    key: str
    flag: str
    environment: str
    read: Callable[[Any, Path], Any]
    allowed: str
    help: str
    default: Any = ""
    secret: bool = False


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _url(raw: Any, base: Path) -> str:
    if not isinstance(raw, str):
        raise ValueError
    # The stock kfp CLI takes `localhost:8888` too.
    text = raw if "://" in raw else f"http://{raw}"
    parts = urlsplit(text)
    # `port` raises ValueError where it is none; a password would end up on screens and in logs.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or "@" in parts.netloc:
        raise ValueError
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f]", text):
        raise ValueError
    return text.rstrip("/")


def _name(raw: Any, base: Path) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?", raw):
        raise ValueError
    return raw


def _account(raw: Any, base: Path) -> str:
    parts = raw.split("/") if isinstance(raw, str) else []
    if not 1 <= len(parts) <= 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise ValueError
    return str(raw)


def _text(raw: Any, base: Path) -> str:
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError
    return raw


def _path(raw: Any, base: Path) -> Path:
    if not isinstance(raw, str) or "\0" in raw:
        raise ValueError
    return Path(os.path.abspath(base / Path(raw).expanduser()))


def _paths(raw: Any, base: Path) -> str:
    if not isinstance(raw, str):
        raise ValueError
    return os.pathsep.join(str(_path(part, base)) for part in raw.split(os.pathsep) if part)


def _seconds(raw: Any, base: Path) -> float:
    if isinstance(raw, bool):
        raise ValueError
    seconds = float(raw)
    if not 0 < seconds <= 3600:
        raise ValueError
    return seconds


def _truth(raw: Any, base: Path) -> bool:
    if isinstance(raw, bool):
        return raw
    return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}[
        str(raw).lower()
    ]


def _header(raw: Any, base: Path) -> str:
    if not isinstance(raw, str) or not raw.isascii() or not raw.isprintable():
        raise ValueError
    return raw.strip()


def _labels(raw: Any, base: Path) -> Mapping[str, str]:
    """`cluster=prod,team=a`, or a table of the configuration file."""
    if isinstance(raw, str):
        parts = (part.partition("=") for part in raw.split(",") if part.strip())
        raw = {label.strip(): value.strip() if equals else None for label, equals, value in parts}
    if not isinstance(raw, dict):
        raise ValueError
    for label, value in raw.items():
        if not isinstance(value, str) or not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label) or not value.isprintable():
            raise ValueError
    return MappingProxyType(raw)


_URL = "an http:// or https:// address without credentials, such as http://127.0.0.1:8888"

SETTINGS = (  # `home` first: the others may depend on it
    Setting("home", "--home", "KANARY_HOME", _path, "a folder", "folder with the sandbox's state"),
    Setting(
        "kfp_endpoint", "--endpoint", "KFP_ENDPOINT", _url, _URL, "Kubeflow Pipelines API", default=DEFAULT_ENDPOINT
    ),
    Setting(
        "namespace", "--namespace", "KFP_NAMESPACE", _name, "a Kubernetes name", "namespace (multi-user Kubeflow only)"
    ),
    Setting(
        "token_file", "--token-file", "KANARY_TOKEN_FILE", _path, "a file", "file with a bearer token", default=None
    ),
    Setting(
        "cookie_file",
        "--cookie-file",
        "KANARY_COOKIE_FILE",
        _path,
        "a file",
        "file with a session cookie",
        default=None,
    ),
    Setting(
        "cookie",
        "",
        "KANARY_COOKIE",
        _header,
        "one line of printable ASCII text, as a Cookie header has it",
        "session cookie",
        secret=True,
    ),
    Setting(
        "token_account",
        "--token-account",
        "KANARY_TOKEN_ACCOUNT",
        _account,
        "NAME or NAMESPACE/NAME",
        "ServiceAccount whose token Kubeflow Pipelines is entered with",
    ),
    Setting(
        "timeout",
        "--timeout",
        "KANARY_TIMEOUT",
        _seconds,
        "seconds, more than 0 and at most 3600",
        "seconds that one request may take",
        default=10.0,
    ),
    Setting(
        "readonly",
        "--readonly",
        "KANARY_READONLY",
        _truth,
        "true or false",
        "refuse every action that changes a server",
        default=False,
    ),
    Setting("context", "--context", "KANARY_CONTEXT", _text, "a context's name", "context of the kubeconfig"),
    Setting(
        "readonly_contexts",
        "--readonly-contexts",
        "KANARY_READONLY_CONTEXTS",
        _text,
        "contexts' names, with * and ?, commas between them",
        "contexts that are read-only in the monitor, such as 'prod-*'",
    ),
    Setting(
        "protected_contexts",
        "--protected-contexts",
        "KANARY_PROTECTED_CONTEXTS",
        _text,
        "contexts' names, with * and ?, commas between them",
        "contexts where the monitor has a name typed before a change",
    ),
    Setting("prometheus_url", "--prometheus", "KANARY_PROMETHEUS_URL", _url, _URL, "Prometheus"),
    Setting(
        "prometheus_token_file",
        "--prometheus-token-file",
        "KANARY_PROMETHEUS_TOKEN_FILE",
        _path,
        "a file",
        "file with Prometheus' bearer token",
        default=None,
    ),
    Setting(
        "prometheus_ca_file",
        "--prometheus-ca-file",
        "KANARY_PROMETHEUS_CA_FILE",
        _path,
        "a file",
        "PEM file of the authorities that Prometheus' certificate is checked with",
        default=None,
    ),
    Setting(
        "prometheus_tenant",
        "--prometheus-tenant",
        "KANARY_PROMETHEUS_TENANT",
        _header,
        "printable ASCII text",
        "tenant, sent as X-Scope-OrgID (Mimir, Cortex, Thanos)",
    ),
    Setting(
        "prometheus_selectors",
        "--prometheus-selectors",
        "KANARY_PROMETHEUS_SELECTORS",
        _labels,
        "label=value, commas between them, such as cluster=prod,team=a",
        "label matchers of every query",
        default=MappingProxyType({}),
    ),
    Setting(
        "kubeconfig",
        "--kubeconfig",
        "KUBECONFIG",
        _paths,
        f"one or more files, `{os.pathsep}` between them",
        "kubeconfig file",
    ),
)
