"""Query profiles: how the counters of both arms are asked for where Prometheus scrapes this proxy or that. Pure.

Counters are asked for as they stand, by arm and by the instance that counts, never as rate() or increase(): these guess
at the edges of their window and hide resets. Where a proxy cannot tell the arms apart, the profile says why.

Sources of the metrics' and labels' names
sandbox       envoyproxy.io, "Cluster manager statistics"; labels: sandbox/prometheus/README.md
istio         istio.io, "Istio Standard Metrics"; one Service for each revision or Deployment
knative       knative.dev until 1.18, "Revision metrics" (OpenCensus, milliseconds)
knative-otel  knative.dev from 1.19, "Knative Serving Metrics"; the revision is a resource attribute, on target_info
gateway-api   Envoy Gateway names clusters httproute/NAMESPACE/NAME/rule/N: one for all backends (gateway#6742, #7017)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import Template
from typing import Any

from kanary.errors import ConfigError

INSTANCE = "instance"
PARTS = ("requests", "errors", "retried", "retries", "latency")
_OTEL = (
    "max by (job, instance, kn_revision_name) (target_info"
    '{k8s_namespace_name="$namespace", kn_revision_name=~"$arms"$more})'
)
_JOIN = f"* on (job, instance) group_left (kn_revision_name) {_OTEL}"


@dataclass(frozen=True)
class Profile:
    """Queries as templates of $namespace, $service, $arms (a regular expression) and $more (further matchers).

    `arm` is the label that names the arm, `unit` the seconds in one of the latency edges' units. `blind`: why the arms
    cannot be told apart. `at_caller`: the counts are the caller's proxy's, not the revision's own.
    """

    name: str
    probe: str  # a series that is there exactly where this profile fits
    requests: str = ""
    errors: str = ""
    retried: str = ""  # requests that succeeded at a later attempt
    retries: str = ""  # attempts beyond the first
    latency: str = ""
    seen: str = ""  # when the requests were last counted, in seconds since the epoch
    arm: str = "revision"
    unit: float = 1.0
    at_caller: bool = True
    blind: str = ""

    def queries(self, where: Where) -> dict[str, str]:
        """The PromQL of each part that this profile has."""
        parts = {part: str(getattr(self, part)) for part in (*PARTS, "seen")}
        return {part: filled(template, where) for part, template in parts.items() if template}


@dataclass(frozen=True)
class Where:
    """Whose numbers: the service, its two arms by name, further label matchers."""

    namespace: str
    service: str
    arms: tuple[str, ...]
    selectors: Mapping[str, str]


def _by(arm: str, metric: str, labels: str, extra: str = "", more: str = "") -> str:
    inside = ", ".join(part for part in (labels, extra) if part)
    return f"sum by ({arm}, {INSTANCE}{more}) ({metric}{{{inside}$more}})"


def _seen(arm: str, metric: str, labels: str) -> str:
    return f"max by ({arm}, {INSTANCE}) (timestamp({metric}{{{labels}$more}}))"


_ENVOY = 'namespace="$namespace", service="$service", revision=~"$arms"'
_SANDBOX = Profile(
    "sandbox",
    probe=f"count(envoy_cluster_upstream_rq_completed{{{_ENVOY}$more}})",
    requests=_by("revision", "envoy_cluster_upstream_rq_completed", _ENVOY),
    errors=_by("revision", "envoy_cluster_upstream_rq_xx", _ENVOY, 'envoy_response_code_class="5"'),
    retried=_by("revision", "envoy_cluster_upstream_rq_retry_success", _ENVOY),
    retries=_by("revision", "envoy_cluster_upstream_rq_retry", _ENVOY),
    latency=_by("revision", "envoy_cluster_upstream_rq_time_bucket", _ENVOY, more=", le"),
    seen=_seen("revision", "envoy_cluster_upstream_rq_completed", _ENVOY),
    unit=0.001,
)
_MESH = 'reporter="source", destination_service_namespace="$namespace", destination_service_name=~"$arms"'
_ISTIO = Profile(
    "istio",
    probe=f"count(istio_requests_total{{{_MESH}$more}})",
    # 0 is a caller who did not wait for the answer.
    requests=_by("destination_service_name", "istio_requests_total", _MESH, 'response_code!="0"'),
    errors=_by("destination_service_name", "istio_requests_total", _MESH, 'response_code=~"5.."'),
    latency=_by(
        "destination_service_name", "istio_request_duration_milliseconds_bucket", _MESH, 'response_code!="0"', ", le"
    ),
    seen=_seen("destination_service_name", "istio_requests_total", _MESH),
    arm="destination_service_name",
    unit=0.001,
)
_QUEUE = 'namespace_name="$namespace", revision_name=~"$arms"'
_KNATIVE = Profile(
    "knative",
    probe=f"count(revision_app_request_count{{{_QUEUE}$more}})",
    requests=_by("revision_name", "revision_app_request_count", _QUEUE),
    errors=_by("revision_name", "revision_app_request_count", _QUEUE, 'response_code_class="5xx"'),
    latency=_by("revision_name", "revision_app_request_latencies_bucket", _QUEUE, more=", le"),
    seen=_seen("revision_name", "revision_app_request_count", _QUEUE),
    arm="revision_name",
    unit=0.001,
    at_caller=False,
)
_INVOCATION = "kn_serving_invocation_duration_seconds"
_KNATIVE_OTEL = Profile(
    "knative-otel",
    probe=f"count({_INVOCATION}_count {_JOIN})",
    requests=f"sum by (kn_revision_name, instance) ({_INVOCATION}_count {_JOIN})",
    errors=f'sum by (kn_revision_name, instance) ({_INVOCATION}_count{{http_response_status_code=~"5.."}} {_JOIN})',
    latency=f"sum by (kn_revision_name, instance, le) ({_INVOCATION}_bucket {_JOIN})",
    seen=f"max by (kn_revision_name, instance) (timestamp({_INVOCATION}_count) {_JOIN})",
    arm="kn_revision_name",
    at_caller=False,
)
_GATEWAY_API = Profile(
    "gateway-api",
    probe=(
        'count(envoy_cluster_upstream_rq_total{envoy_cluster_name=~"httproute/$namespace/$service'
        '(-predictor)?/rule/[0-9]+"$more})'
    ),
    blind=(
        "Envoy Gateway makes one cluster of all backends of a route's rule: what it counts cannot be told apart by arm"
    ),
)

# In the order in which they are looked for: a caller's proxy before the revision's own, and the blind one last.
ALL = (_SANDBOX, _ISTIO, _KNATIVE_OTEL, _KNATIVE, _GATEWAY_API)
CLASSES = (
    'sum by (revision, version, class, instance) (kanary_predictions_total{namespace="$namespace", '
    'service="$service"$more} or kanary_predictions_total{namespace="$namespace", exported_service="$service"$more})'
)


def named(name: str) -> Profile:
    """The profile of that name. Raises ConfigError."""
    for profile in ALL:
        if profile.name == name:
            return profile
    raise ConfigError(f"There is no query profile {name!r}.", f"Profiles: {', '.join(p.name for p in ALL)}.")


def custom(queries: Mapping[str, str], where: str) -> Profile:
    """A profile of one's own queries: requests, errors, if wanted retried, retries, latency, seen; arm, unit (s or ms).

    Their vectors carry the label `arm` (default: revision) and may carry `instance`; latency carries `le`.
    """
    known = (*PARTS, "seen", "arm", "unit")
    unknown = [key for key in queries if key not in known]
    missing = [key for key in ("requests", "errors") if not queries.get(key)]
    if unknown or missing:
        what = f"has no key {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        raise ConfigError(f"{where} {what}.", f"Its keys: {', '.join(known)}; requests and errors must be given.")
    unit = {"s": 1.0, "ms": 0.001}.get(queries.get("unit", "s"))
    if unit is None:
        raise ConfigError(f"{where}.unit is {queries['unit']!r}.", "Allowed: s or ms, that of the latency's edges.")
    for part, template in queries.items():
        names = Template(template).get_identifiers() if Template(template).is_valid() else ["?"]
        if set(names) - {"namespace", "service", "arms", "more"}:
            raise ConfigError(
                f"{where}.{part} has a placeholder that is none: {template!r}.",
                "Placeholders: $namespace, $service, $arms (a regular expression), $more; a dollar sign is $$.",
            )
    made = Profile("custom", probe=queries["requests"], arm=queries.get("arm", "revision"), unit=unit)
    texts: dict[str, Any] = {part: queries[part] for part in (*PARTS, "seen") if part in queries}
    return replace(made, **texts)


def filled(template: str, where: Where) -> str:
    """The PromQL of a template, whatever stands in it quoted."""
    more = "".join(f', {label}="{_quoted(value)}"' for label, value in sorted(where.selectors.items()))
    arms = "|".join(re.escape(arm).replace("\\-", "-") for arm in where.arms)
    return Template(template).substitute(
        namespace=_quoted(where.namespace), service=_quoted(where.service), arms=_quoted(arms), more=more
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
