"""What Prometheus is told: what to scrape, how often, and its command line. To start it is the supervisor's."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Target:
    """A model server to scrape; its samples get the labels `namespace`, `service` and `revision`."""

    namespace: str
    service: str
    revision: str
    port: int
    address: str = LOOPBACK
    path: str = "/metrics"


def prepare(
    home: Path, binary: Path, port: int, envoy_admin_port: int, drift_port: int = 0, scrape_interval_s: float = 1.0
) -> list[str]:
    """Write HOME/prometheus/prometheus.yml and, where there are none yet, empty targets; return the command line.

    Prometheus logs to its stderr and reads a changed configuration on SIGHUP; changed targets it notices by itself.
    """
    home = home.resolve()
    folder = home / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    _write(folder / "prometheus.yml", configuration(home, envoy_admin_port, scrape_interval_s, drift_port))
    targets_file(home).parent.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError), targets_file(home).open("x") as empty:  # the controller may be quicker
        empty.write("[]")
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "storage.tsdb.retention.time": "15d",
        "storage.tsdb.retention.size": "1GB",
        "web.listen-address": f"{LOOPBACK}:{port}",
        "log.level": "warn",
    }
    return [str(binary), *(f"--{name}={value}" for name, value in options.items())]


def configuration(home: Path, envoy_admin_port: int, scrape_interval_s: float, drift_port: int = 0) -> dict[str, Any]:
    """The configuration document: Envoy's own numbers, the model servers', the drift detector's where one runs."""
    interval = f"{round(scrape_interval_s * 1000)}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [
            {
                "job_name": "gateway",
                "metrics_path": "/stats/prometheus",
                "static_configs": [{"targets": [f"{LOOPBACK}:{envoy_admin_port}"]}],
            },
            {
                "job_name": "model-servers",
                # A server that names its own service is believed: no exported_service beside it.
                "honor_labels": True,
                "file_sd_configs": [{"files": [str(targets_file(home))], "refresh_interval": "10s"}],
            },
            *([_drift(drift_port)] if drift_port else []),
        ],
    }


def _drift(port: int) -> dict[str, Any]:
    """The detector names the services that it watches: no exported_service beside them."""
    return {"job_name": "drift", "honor_labels": True, "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}]}


def targets_file(home: Path) -> Path:
    """The file of model servers to scrape."""
    return home / "prometheus" / "targets" / "model-servers.json"


def write_targets(home: Path, targets: Iterable[Target]) -> None:
    """Have exactly these model servers scraped, from about 5 s on: Prometheus takes up new targets that often."""
    groups = [
        {
            "targets": [f"{target.address}:{target.port}"],
            "labels": {
                "namespace": target.namespace,
                "service": target.service,
                "revision": target.revision,
                "__metrics_path__": target.path,
            },
        }
        for target in targets
    ]
    _write(targets_file(home.resolve()), groups)


def ready(port: int) -> bool:
    """Whether Prometheus answers queries: the supervisor's probe."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(document, indent=1), encoding="utf-8")
    beside.replace(path)
