"""What Prometheus knows of a service's drift and accuracy, as the policy wants it. Asks; decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kanary.errors import ApiError, InputError, Unreachable
from kanary.policy import Evidence
from kanary.promql import quoted

# Prometheus answers with what was scraped in the last minutes: a detector that is gone says nothing.
_METRICS = (
    "kanary_drift_verdict",
    "kanary_drift_detected",
    "kanary_drift_accuracy",
    "kanary_drift_accuracy_rows",
    "kanary_drift_accuracy_baseline",
    "kanary_drift_events_total",
)


@dataclass(frozen=True)
class Sample:
    """One series: its labels with its name as `__name__`, its value."""

    labels: Mapping[str, str]
    value: float


Ask = Callable[[str], Sequence[Sample]]


def query(namespace: str, service: str) -> str:
    """The PromQL for all that is needed of one service."""
    names = "|".join(_METRICS)
    labels = {"namespace": namespace, "service": service}
    matchers = "".join(f",{name}={quoted(value)}" for name, value in labels.items() if value)
    return f'{{__name__=~"{names}"{matchers}}}'


def evidence(samples: Sequence[Sample], revision: str) -> Evidence:
    """What the samples say of a revision's model; whose it is, the caller fills in.

    Rows are counted by events: a service that is mostly asked for one row at a time.
    """
    kept = [sample for sample in samples if sample.labels.get("revision", "") == revision]
    counted = [sample.value for sample in kept if sample.labels["__name__"] == "kanary_drift_events_total"]

    def value(metric: str, **labels: str) -> float | None:
        for sample in kept:
            if sample.labels["__name__"] == metric and labels.items() <= sample.labels.items():
                return sample.value
        return None

    verdicts = [name for name in ("drift", "no drift") if value("kanary_drift_verdict", verdict=name) == 1]
    drifting = sorted(
        sample.labels["feature"]
        for sample in kept
        if sample.labels["__name__"] == "kanary_drift_detected" and sample.value == 1
    )
    return Evidence(
        namespace="",
        service="",
        version="",
        verdict=verdicts[0] if verdicts else "unknown",
        drifting=tuple(drifting),
        accuracy=value("kanary_drift_accuracy", bound="value"),
        accuracy_high=value("kanary_drift_accuracy", bound="high"),
        accuracy_rows=int(value("kanary_drift_accuracy_rows") or 0),
        baseline=value("kanary_drift_accuracy_baseline"),
        new_rows=int(max(counted)) if counted else None,
    )


def prometheus(url: str) -> Ask:
    """How that Prometheus is asked. InputError where no URL is given."""
    if not url:
        raise InputError("no Prometheus is named", "give prometheus_url, or set KANARY_PROMETHEUS_URL")

    def ask(text: str) -> list[Sample]:
        from prometheus_api_client import PrometheusConnect
        from prometheus_api_client.exceptions import PrometheusApiClientException
        from requests import Session
        from requests.exceptions import RequestException
        from urllib3.util.retry import Retry

        session = Session()
        session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost")
        api = PrometheusConnect(url, retry=Retry(0), session=session, timeout=30)
        try:
            found: list[dict[str, Any]] = api.custom_query(text)
        except PrometheusApiClientException as error:
            raise ApiError(f"Prometheus at {url} refused a query: {error}", "is the URL that of Prometheus?") from None
        except (RequestException, OSError, ValueError, KeyError) as error:
            raise Unreachable(f"Prometheus at {url} cannot be reached: {error}", "is it running?") from None
        return [Sample(entry["metric"], float(entry["value"][1])) for entry in found]

    return ask
