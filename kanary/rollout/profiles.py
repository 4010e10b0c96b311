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
from kanary.promql import escaped, further

INSTANCE = "instance"
PARTS = ("requests", "errors", "retried", "retries", "latency")


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
    active: str = ""  # requests under way
    arm: str = "revision"
    unit: float = 1.0
    at_caller: bool = True
    blind: str = ""
    counter: str = ""  # who counts, for a person
    wide: Wide | None = None

    def queries(self, where: Where) -> dict[str, str]:
        """The PromQL of each part that this profile has."""
        parts = {part: str(getattr(self, part)) for part in (*PARTS, "seen")}
        return {part: filled(template, where) for part, template in parts.items() if template}


@dataclass(frozen=True)
class Wide:
    """The same counters of all services at once, by the labels `namespace` and the profile's `arm`.

    Templates of $more and $span, a range such as 30s. `probe` is a vector of how many samples each series has in it.
    """

    namespace: str
    probe: str
    requests: str = ""
    failed: str = ""  # errors, and what was retried: it has failed once, though its caller did not see it
    latency: str = ""


@dataclass(frozen=True)
class Where:
    """Whose numbers: the service, its two arms by name, further label matchers."""

    namespace: str
    service: str
    arms: tuple[str, ...]
    selectors: Mapping[str, str]


@dataclass(frozen=True)
class _Counter:
    """A metric, and the matchers that pick its series."""

    metric: str
    labels: str = ""


@dataclass(frozen=True)
class _Labels:
    """How a proxy labels what it counts: the labels of the arm, its namespace and (where there is one) its service.

    `resource`: they are not on the counters, but on this series of the same job and instance.
    """

    arm: str
    namespace: str
    service: str = ""
    always: str = ""  # a matcher that picks who counts
    resource: str = ""

    @property
    def one(self) -> str:
        """Matchers of one service's arms."""
        service = f', {self.service}="$service"' if self.service else ""
        return f'{self._always}{self.namespace}="$namespace"{service}, {self.arm}=~"$arms"'

    @property
    def all(self) -> str:
        """Matchers of whatever has an arm."""
        return f'{self._always}{self.arm}!=""'

    @property
    def _always(self) -> str:
        return f"{self.always}, " if self.always else ""

    def vector(self, counter: _Counter, call: str = "", *, wide: bool = False) -> str:
        """The counter's series of one service's arms, or of all, with `call` around them."""
        labels, span = (self.all, "[$span]") if wide else (self.one, "")
        if self.resource:
            inside, by = f"{{{counter.labels}}}" if counter.labels else "", self.arm
            by = f"{self.namespace}, {by}" if wide else by
            joined = f"max by (job, instance, {by}) ({self.resource}{{{labels}$more}})"
            inner = f"{counter.metric}{inside}{span}"
            return f"{f'{call}({inner})' if call else inner} * on (job, instance) group_left ({by}) {joined}"
        inside = ", ".join(part for part in (labels, counter.labels) if part)
        inner = f"{counter.metric}{{{inside}$more}}{span}"
        return f"{call}({inner})" if call else inner

    def by_instance(self, counter: _Counter, how: str = "sum", call: str = "", more: str = "") -> str:
        """One service's, as the counters stand."""
        return f"{how} by ({self.arm}, {INSTANCE}{more}) ({self.vector(counter, call)})"

    def rates(self, *counters: _Counter, more: str = "") -> str:
        """Everybody's, a second; of several counters the sum, whose series must differ in a label."""
        each = " or ".join(self.vector(counter, "rate", wide=True) for counter in counters)
        return f"sum by ({self.namespace}, {self.arm}{more}) ({each})"


def _profile(
    name: str,
    counter: str,
    labels: _Labels,
    requests: _Counter,
    errors: _Counter,
    latency: _Counter,
    retried: _Counter | None = None,
    retries: _Counter | None = None,
    active: _Counter | None = None,
    **more: Any,
) -> Profile:
    return Profile(
        name,
        probe=f"count({labels.vector(requests)})",
        requests=labels.by_instance(requests),
        errors=labels.by_instance(errors),
        retried=labels.by_instance(retried) if retried else "",
        retries=labels.by_instance(retries) if retries else "",
        latency=labels.by_instance(latency, more=", le"),
        seen=labels.by_instance(requests, "max", "timestamp"),
        active=labels.by_instance(active) if active else "",
        arm=labels.arm,
        counter=counter,
        wide=Wide(
            labels.namespace,
            probe=labels.vector(requests, "count_over_time", wide=True),
            requests=labels.rates(requests),
            failed=labels.rates(errors, *([retried] if retried else [])),
            latency=labels.rates(latency, more=", le"),
        ),
        **more,
    )


_SANDBOX = _profile(
    "sandbox",
    "Envoy",
    _Labels("revision", "namespace", "service"),
    # Never upstream_rq_total, which counts attempts, nor upstream_rq_retry for requests: up to 32 of one.
    requests=_Counter("envoy_cluster_upstream_rq_completed"),
    errors=_Counter("envoy_cluster_upstream_rq_xx", 'envoy_response_code_class="5"'),
    retried=_Counter("envoy_cluster_upstream_rq_retry_success"),
    retries=_Counter("envoy_cluster_upstream_rq_retry"),
    latency=_Counter("envoy_cluster_upstream_rq_time_bucket"),
    active=_Counter("envoy_cluster_upstream_rq_active"),
    unit=0.001,
)
_ISTIO = _profile(
    "istio",
    "Istio's proxies",
    _Labels("destination_service_name", "destination_service_namespace", always='reporter="source"'),
    # 0 is a caller who did not wait for the answer.
    requests=_Counter("istio_requests_total", 'response_code!="0"'),
    errors=_Counter("istio_requests_total", 'response_code=~"5.."'),
    latency=_Counter("istio_request_duration_milliseconds_bucket", 'response_code!="0"'),
    unit=0.001,
)
_KNATIVE = _profile(
    "knative",
    "Knative's queue-proxies",
    _Labels("revision_name", "namespace_name"),
    requests=_Counter("revision_app_request_count"),
    errors=_Counter("revision_app_request_count", 'response_code_class="5xx"'),
    latency=_Counter("revision_app_request_latencies_bucket"),
    unit=0.001,
    at_caller=False,
)
_INVOCATION = "kn_serving_invocation_duration_seconds"
_KNATIVE_OTEL = _profile(
    "knative-otel",
    "Knative's queue-proxies",
    _Labels("kn_revision_name", "k8s_namespace_name", resource="target_info"),
    requests=_Counter(f"{_INVOCATION}_count"),
    errors=_Counter(f"{_INVOCATION}_count", 'http_response_status_code=~"5.."'),
    latency=_Counter(f"{_INVOCATION}_bucket"),
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
    counter="Envoy Gateway",
    wide=Wide(
        "",
        'count_over_time(envoy_cluster_upstream_rq_total{envoy_cluster_name=~"httproute/.+/rule/[0-9]+"$more}[$span])',
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
    arms = "|".join(re.escape(arm).replace("\\-", "-") for arm in where.arms)
    return Template(template).substitute(
        namespace=escaped(where.namespace),
        service=escaped(where.service),
        arms=escaped(arms),
        more=further(where.selectors),
    )


def spanned(template: str, selectors: Mapping[str, str], seconds: float) -> str:
    """The PromQL of a wide template over so many seconds, whatever stands in it quoted."""
    return Template(template).substitute(more=further(selectors), span=f"{seconds:.0f}s")
