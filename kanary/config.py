"""Kanary's settings: flag, then environment, file, the running sandbox, the pod that this runs in, default.

Every value remembers where it came from (`kanary info` prints it). Reads files, never writes one.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kanary.errors import ConfigError
from kanary.settings import SETTINGS, Setting

TENANT = "X-Scope-OrgID"  # the header of Prometheus' tenants
# Where Kubeflow puts a pod's own token for its pipelines, and the variable that says otherwise: the kfp SDK's.
POD_TOKEN, POD_TOKEN_VARIABLE = "/var/run/secrets/kubeflow/pipelines/token", "KF_PIPELINES_SA_TOKEN_PATH"


@dataclass(frozen=True)
class Source:
    """Where a value came from: `kind` is flag, environment, file, sandbox, pod or default; `where` names the place."""

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
    cookie: str = field(repr=False)  # the same itself, from the environment
    token_account: str  # [NAMESPACE/]NAME; a token of its own is asked for where there is no token file
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
    projected = _from_pod(environ)
    given.append(_Layer("pod", projected, cwd, lambda s: str(projected[s.key])))
    values: dict[str, Any] = {"home": home}
    sources = {"home": home_source}
    for setting in others:
        values[setting.key], sources[setting.key] = _resolve(setting, given) or (setting.default, Source("default"))
    if sources["token_file"].kind == "pod" and values["token_account"]:
        values["token_file"], sources["token_file"] = None, Source("default")  # another account was asked for
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
            said = setting.key if setting.secret else f"{setting.key} = {raw!r}"
            raise ConfigError(f"{said} (from {source}) is not allowed.", f"Allowed: {setting.allowed}.") from None
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
    known = [setting.key for setting in SETTINGS if not setting.secret]
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


def _from_pod(environ: Mapping[str, str]) -> dict[str, str]:
    """The token that Kubeflow has put into this pod; empty where there is none."""
    path = environ.get(POD_TOKEN_VARIABLE) or POD_TOKEN
    return {"token_file": path} if os.path.isfile(path) else {}


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
