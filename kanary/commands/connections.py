"""What `kanary info` says of the three servers: where each is, how that is known, how it is entered, what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from kanary import discovery, kfp, snapshot_metrics
from kanary import kubernetes as k8s
from kanary.api import Server
from kanary.config import Config
from kanary.errors import KanaryError
from kanary.operations import Request
from kanary.snapshot_metrics import Metrics
from kanary.snapshot_rights import rights
from kanary.text import one_line

_PATIENCE = 5.0  # seconds for one answer at most: a person waits


@dataclass(frozen=True)
class Connection:
    """One server: its address, where that came from, how it is entered (never the secret), and what it says."""

    address: str = ""
    source: str = ""
    login: str = ""
    ok: bool = False
    says: str = ""
    hint: str = ""


def connections(config: Config) -> Mapping[str, Mapping[str, Any]]:
    """What each server says now, asked side by side."""
    hasty = replace(config, timeout=min(config.timeout, _PATIENCE))
    asked: dict[str, Callable[[Config], Connection]] = {
        "kubernetes": _kubernetes,
        "kubeflow pipelines": _pipelines,
        "prometheus": _prometheus,
    }
    with ThreadPoolExecutor(len(asked)) as threads:
        found = {name: threads.submit(partial(ask, hasty)) for name, ask in asked.items()}
        return {name: asdict(answer.result()) for name, answer in found.items()}


def connections_text(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The same for a person."""
    lines = []
    for name, entry in found.items():
        lines.append(f"{name:18}  {one_line(entry['address']) or '-'}")
        facts = [("from", entry["source"]), ("login", entry["login"])]
        facts += [("says" if entry["ok"] else "error", entry["says"]), ("hint", entry["hint"])]
        lines += [f"{'':18}  {label:5} {one_line(text)}" for label, text in facts if text]
    return "\n".join(lines)


def _kubernetes(config: Config) -> Connection:
    known = Connection()
    try:
        with k8s.connect(config) as api:
            entered = api.access
            context = f", context {entered.context}" if entered.context else ""
            known = Connection(entered.url, f"{entered.source}{context}, namespace {entered.namespace}")
            version = api.call(_version())
            found = api.call(rights(config.namespace or entered.namespace))
    except KanaryError as error:
        return _failed(known, error)
    says = f"{version}; you are {found.user}" + (f". {found.sentence}" if found.sentence else "")
    return replace(known, ok=True, says=says)


def _version() -> k8s.Act[str]:
    answer = yield Request("GET", "/version")
    return str(answer.get("gitVersion") or "a version that it does not name")


def _pipelines(config: Config) -> Connection:
    known = Connection(config.kfp_endpoint, str(config.sources["kfp_endpoint"]))
    try:
        with discovery.kfp_client(config) as api:
            known = _entered(known, api.server, _kfp_login(config))
            health = api.call(kfp.healthz())
            page = api.call(kfp.list_runs(page_size=1, namespace=config.namespace))
    except KanaryError as error:
        return _failed(known, error)
    users = "multi-user" if health.get("multi_user") else "single-user"
    version = f", {health['tag_name']}" if isinstance(health.get("tag_name"), str) else ""
    return replace(known, ok=True, says=f"{users}{version}; {page.total} runs")


def _prometheus(config: Config) -> Connection:
    known = Connection(config.prometheus_url, str(config.sources["prometheus_url"]))
    try:
        with discovery.prometheus_client(config) as api:
            known = _entered(known, api.server, _prometheus_login(config))
            found = api.call(snapshot_metrics.found(Metrics(), config.prometheus_selectors))
    except KanaryError as error:
        return _failed(known, error)
    if found.profile is None:
        return replace(known, ok=True, says=found.note)
    says = f"requests are counted by {found.profile.counter}, every {found.interval:.3g} s"
    return replace(known, ok=True, says=says)


def _entered(known: Connection, server: Server, login: str) -> Connection:
    if server.access is None:
        return replace(known, login=login)
    return Connection(server.url, server.found, "that of the Kubernetes API, which passes none on")


def _kfp_login(config: Config) -> str:
    parts = []
    if config.token_file is not None:
        parts.append(f"token in {config.token_file}")
    elif config.token_account:
        parts.append(f"token of ServiceAccount {config.token_account}")
    if config.cookie_file is not None:
        parts.append(f"cookie in {config.cookie_file}")
    elif config.cookie:
        parts.append(f"cookie from {config.sources['cookie']}")
    return ", ".join(parts) or "none"


def _prometheus_login(config: Config) -> str:
    parts = [f"token in {config.prometheus_token_file}"] if config.prometheus_token_file is not None else []
    parts += [f"tenant {config.prometheus_tenant}"] if config.prometheus_tenant else []
    return ", ".join(parts) or "none"


def _failed(known: Connection, error: KanaryError) -> Connection:
    return replace(known, says=error.message, hint=error.hint)
