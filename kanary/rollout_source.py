"""The Prometheus that a rollout reads: where its policy or the settings say, else where it is found in the cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kanary import discovery, promql
from kanary.api import Client
from kanary.config import Config
from kanary.rollout import policy as policies
from kanary.rollout.observe import Source
from kanary.rollout.policy import Policy
from kanary.rollout.prometheus import Prometheus, Sample


def with_settings(policy: Policy, config: Config) -> Policy:
    """The policy, and what it leaves open of how Prometheus is entered as Kanary's settings have it.

    Another server than the settings' is never sent their token or tenant.
    """
    asked = policy.prometheus
    if asked.url and asked.url != config.prometheus_url:
        return policy
    known = bool(asked.url) or not discovery.wanted(config, "prometheus_url")
    entered = replace(
        asked,
        url=config.prometheus_url if known else "",
        token_file=asked.token_file or str(config.prometheus_token_file or ""),
        ca_file=asked.ca_file or str(config.prometheus_ca_file or ""),
        tenant=asked.tenant or config.prometheus_tenant,
        selectors={**config.prometheus_selectors, **asked.selectors},
    )
    return replace(policy, prometheus=entered)


@contextmanager
def opened(asked: policies.Prometheus, config: Config, named: str = "rollout.prometheus.") -> Iterator[Source]:
    """What `with_settings` gave, ready to be asked. Without an address: one behind the API server's service proxy.

    `named`: as for kanary.rollout.prometheus.Prometheus.

    Raises ConfigError, ApiError: none is named and none is found.
    """
    if asked.url:
        with Prometheus(asked, named) as source:
            yield source
    else:
        with discovery.prometheus_client(replace(config, timeout=asked.timeout)) as found:
            yield Behind(found)


class Behind:
    """A Prometheus that is asked through the API server's service proxy."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def instant(self, query: str, at: float) -> tuple[Sample, ...]:
        """As kanary.rollout.prometheus.Prometheus."""
        found = self._client.call(promql.instant(query, at))
        return tuple(Sample(labels, value if math.isfinite(value) else math.nan) for labels, value in found)
