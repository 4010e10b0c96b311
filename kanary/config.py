"""Kanary's settings: flag, then environment, then file, then the running sandbox, then default.

Every value remembers where it came from (`kanary info` prints it). Reads files, never writes one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from kanary.errors import ConfigError

DEFAULT_ENDPOINT = "http://127.0.0.1:8888"
TENANT = "X-Scope-OrgID"  # the header of Prometheus' tenants


@dataclass(frozen=True)
class Source:
    """Where a value came from: `kind` is flag, environment, file, sandbox or default; `where` names the place."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}".rstrip()


@dataclass(frozen=True)
class Config:
    """All settings, checked. `sources` says for each field's name where its value came from."""

    home: Path  # the folder with the sandbox's state
    kfp_endpoint: str  # base URL of the Kubeflow Pipelines API, no slash at its end
    namespace: str  # "" leaves it to the server, as a single-user installation demands
    token_file: Path | None  # holds a bearer token; read again for every request, because they rotate
    cookie_file: Path | None  # holds a session cookie, as a Cookie header has it
    timeout: float  # seconds that one request may take
    readonly: bool
    context: str
    prometheus_url: str
    prometheus_token_file: Path | None  # as token_file
    prometheus_ca_file: Path | None  # PEM; whom to trust instead of the system's authorities
    prometheus_tenant: str  # sent as X-Scope-OrgID (Mimir, Cortex, Thanos)
    prometheus_selectors: Mapping[str, str]  # label matchers of every query
    readonly_contexts: str  # patterns of contexts' names, commas between them: read-only there
    protected_contexts: str  # the same: whoever changes something there has to type its name
    kubeconfig: str  # one path, or several with os.pathsep between them, as KUBECONFIG has them
    sources: Mapping[str, Source] = field(compare=False)


@dataclass(frozen=True)
class Setting:
    """One setting: its names in the three places, how a raw value becomes a checked one, and what is allowed.

    `read(raw, base)` gives the value or raises ValueError; relative paths are seen from the folder `base`.
    """

    key: str
    flag: str
    environment: str
    read: Callable[[Any, Path], Any]
    allowed: str
    help: str
    default: Any = ""


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

# Where a running sandbox's endpoints.json says what: setting -> (part, key).
_SANDBOX_KEYS = {"kfp_endpoint": ("kfp", "url"), "prometheus_url": ("prometheus", "url")}


@dataclass(frozen=True)
class _Layer:
    """The raw values of one place; `name(setting)` is how that place calls a setting."""

    kind: str
    values: Mapping[str, Any]
    base: Path
    name: Callable[[Setting], str]


def config_file(environ: Mapping[str, str]) -> Path:
    """The path of the configuration file (XDG base directories); it need not exist."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "kanary" / "config.toml"


def state_folder(environ: Mapping[str, str]) -> Path:
    """The folder of the monitor's own logs (XDG base directories); it need not exist."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "kanary"


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Config:
    """The settings that hold for this process.

    `flags` maps settings' keys to what the command line gave. Raises ConfigError naming key, source and what is
    allowed.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    file = config_file(environ)
    given = [
        _Layer("flag", {k: v for k, v in (flags or {}).items() if v is not None}, cwd, lambda s: s.flag),
        _Layer("environment", _from_environment(environ), cwd, lambda s: s.environment),
        _Layer("file", _from_file(file), file.parent, lambda s: str(file)),
    ]
    # The home comes first: what a running sandbox says is known only once its folder is.
    first, *others = SETTINGS
    home, home_source = _resolve(first, given) or (nearest_home(cwd), Source("default"))
    endpoints = home / "endpoints.json"
    given.append(_Layer("sandbox", _from_sandbox(endpoints), home, lambda s: str(endpoints)))
    values: dict[str, Any] = {"home": home}
    sources = {"home": home_source}
    for setting in others:
        values[setting.key], sources[setting.key] = _resolve(setting, given) or (setting.default, Source("default"))
    return Config(**values, sources=MappingProxyType(sources))


def nearest_home(cwd: Path) -> Path:
    """The `.kanary` folder of `cwd` or of the nearest parent that has one, else `cwd/.kanary`."""
    for folder in (cwd, *cwd.parents):
        if (folder / ".kanary").is_dir():
            return folder / ".kanary"
    return cwd / ".kanary"


def _resolve(setting: Setting, layers: list[_Layer]) -> tuple[Any, Source] | None:
    for layer in layers:
        raw = layer.values.get(setting.key)
        if raw is None or raw == "":
            continue
        source = Source(layer.kind, layer.name(setting))
        try:
            return setting.read(raw, layer.base), source
        except (ValueError, KeyError, TypeError, RuntimeError):
            raise ConfigError(
                f"{setting.key} = {raw!r} (from {source}) is not allowed.", f"Allowed: {setting.allowed}."
            ) from None
    return None


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    folder = environ.get(variable, "")
    # The XDG specification says to ignore relative paths.
    return Path(folder) if os.path.isabs(folder) else Path(environ.get("HOME") or Path.home()) / fallback


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {setting.key: environ[setting.environment] for setting in SETTINGS if setting.environment in environ}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error}", "Mend the file, or remove it."
        ) from error
    known = [setting.key for setting in SETTINGS]
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known settings: {', '.join(known)}."
            raise ConfigError(f"{key} (from file {path}) is no setting of Kanary.", hint)
    return values


def _from_sandbox(path: Path) -> dict[str, str]:
    """What the sandbox that runs in this folder says; empty where none runs."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(answer, dict) or not _alive(answer.get("pid")):
        return {}
    found = {}
    for key, (part, name) in _SANDBOX_KEYS.items():
        entry = answer.get(part)
        if isinstance(entry, dict) and isinstance(entry.get(name), str):
            found[key] = entry[name]
    return found


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
