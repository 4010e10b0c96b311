"""What the detector is told by its command line and environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kanary.rollout.policy import Prometheus
from serving.drift.findings import Multivariate
from serving.drift.window import Rule
from serving.options import natural, port, positive, share

Online = Literal["none", "mmd", "lsdd"]

# Of Envoy as the sandbox runs it; for another proxy, any query that gives these three labels.
REQUESTS = 'sum by (namespace, service, revision) (envoy_cluster_upstream_rq_xx{envoy_response_code_class="2"})'


@dataclass(frozen=True)
class Settings:
    """`coverage` is the least share of the proxy's requests that must have left an event; 0: none is asked for."""

    host: str
    port: int
    home: Path
    releases: tuple[Path, ...]
    rule: Rule
    coverage: float
    alarms_per_month: float
    multivariate: Multivariate
    permutations: int
    online: Online
    online_ert: int
    outlier_share: float
    plotted: int
    prometheus: Prometheus
    requests_query: str
    max_streams: int
    max_rows: int
    max_body_bytes: int
    quarantine_bytes: int
    labelled: int
    labelled_ert: int
    forget_s: float


def settings(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in `argv`. SystemExit(2) for a wrong word."""
    environment = os.environ if environment is None else environment
    given = _parser(environment).parse_args(argv)
    rule = Rule(given.window_rows, given.window_seconds, given.minimum_rows)
    return Settings(
        host=given.host,
        port=given.port,
        home=given.home,
        releases=tuple(given.releases or ()),
        rule=rule,
        coverage=given.coverage,
        alarms_per_month=given.alarms_per_month,
        multivariate=given.multivariate,
        permutations=given.permutations,
        online=given.online,
        online_ert=given.online_ert,
        outlier_share=given.outlier_share,
        plotted=given.plotted_columns,
        prometheus=Prometheus(
            given.prometheus, given.prometheus_token_file, given.prometheus_ca_file, given.prometheus_tenant
        ),
        requests_query=given.requests_query,
        max_streams=given.max_streams,
        max_rows=given.max_rows,
        max_body_bytes=given.max_body_bytes,
        quarantine_bytes=given.quarantine_bytes,
        labelled=given.labelled_rows,
        labelled_ert=given.labelled_ert,
        forget_s=given.forget_seconds,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.drift", description="Watch inference events for drift.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--host", default=environment.get("KANARY_HOST") or "127.0.0.1", help="address to listen on ($KANARY_HOST)")
    add("--port", type=port, default=8085, help="port to listen on, 0 for a free one (default: %(default)s)")
    add("--home", type=Path, required=True, help="folder of what must outlast a restart")
    add(
        "--releases",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="where models lie, as FOLDER/NAME/VERSION; may be given more than once",
    )
    add("--window_rows", type=natural, default=1000, help="rows that end a window (default: %(default)s)")
    add("--window_seconds", type=positive, default=3600.0, help="seconds that end one (default: %(default)s)")
    add("--minimum_rows", type=natural, default=200, help="rows it must have then (default: %(default)s)")
    add("--coverage", type=share, default=0.5, help="least share of requests with an event, 0 for none (default: 0.5)")
    add("--alarms_per_month", type=positive, default=1.0, help="false alarms that are put up with (default: 1)")
    add("--multivariate", choices=get_args(Multivariate), default="mmd", help="test of all features together")
    add("--permutations", type=natural, default=100, help="of the multivariate test (default: %(default)s)")
    add("--online", choices=get_args(Online), default="none", help="online test of all features together")
    add("--online_ert", type=natural, default=2000, help="its expected run time in rows (default: %(default)s)")
    add("--outlier_share", type=share, default=0.001, help="share of reference rows that count as outliers; 0: none")
    add(
        "--plotted_columns",
        type=natural,
        default=24,
        help="columns of each model, those that drift most, whose distributions are metrics (default: %(default)s)",
    )
    add("--prometheus", default=environment.get("KANARY_PROMETHEUS_URL", ""), help="where the proxy's counts are")
    for name, text in (
        ("token_file", "its bearer token"),
        ("ca_file", "whom to trust, PEM"),
        ("tenant", "X-Scope-OrgID"),
    ):
        variable = f"KANARY_PROMETHEUS_{name.upper()}"
        add(f"--prometheus_{name}", default=environment.get(variable, ""), help=f"{text} (${variable})")
    add("--requests_query", default=REQUESTS, help="PromQL: successful requests by namespace, service, revision")
    add("--max_streams", type=natural, default=64, help="models in revisions watched at once (default: %(default)s)")
    add("--max_rows", type=natural, default=500_000, help="rows held at once; then 429 (default: %(default)s)")
    add("--max_body_bytes", type=natural, default=10 << 20, help="longest event (default: %(default)s)")
    add("--quarantine_bytes", type=natural, default=4 << 20, help="of corrupt events that are kept")
    add("--labelled_rows", type=natural, default=500, help="rows of a window of ground truth (default: %(default)s)")
    add("--labelled_ert", type=natural, default=1000, help="expected run time of their online tests (default: 1000)")
    add("--forget_seconds", type=positive, default=7 * 24 * 3600.0, help="without events until a stream is forgotten")
    return parser
