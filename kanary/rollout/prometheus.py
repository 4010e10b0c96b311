"""Instant queries to a Prometheus: behind a token, a tenant or a private CA, and never an answer that is half one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kanary.config import TENANT
from kanary.errors import ApiError, ConfigError, Unreachable
from kanary.rollout import policy as policies
from kanary.text import one_line, shortened

_LOCAL = ("localhost", "127.0.0.1", "::1")
SETTING = "prometheus_"


@dataclass(frozen=True)
class Sample:
    """One series of an instant vector: its labels, its value as it stands."""

    labels: Mapping[str, str]
    value: float


class Prometheus:
    """One server, asked one query after the other. Use it as a context manager, or close it."""

    def __init__(self, settings: policies.Prometheus, named: str = "rollout.prometheus.") -> None:
        """`named` is what errors write before a setting's name: it is a policy's, or (SETTING) one of Kanary's own.

        Raises ConfigError where no address or no CA file is there.
        """
        # 0.25 s to import: only who asks pays for it.
        from prometheus_api_client.prometheus_connect import PrometheusConnect
        from requests import Session
        from urllib3.util.retry import Retry

        if not settings.url:
            raise ConfigError(
                "There is no Prometheus to ask, and nothing is decided without numbers.",
                f"Give {named}url, --prometheus or KANARY_PROMETHEUS_URL.",
            )
        if settings.ca_file and not Path(settings.ca_file).is_file():
            raise ConfigError(f"{named}ca_file {settings.ca_file} is no file.", "Name a PEM file of CAs.")
        self.url = settings.url
        self._settings, self._named = settings, named
        session = Session()
        session.verify = settings.ca_file or True
        session.trust_env = urlsplit(settings.url).hostname not in _LOCAL
        # It is asked again at the next look: to wait here would only make the numbers older than they say.
        self._api = PrometheusConnect(
            settings.url, retry=Retry(0), session=session, timeout=math.ceil(settings.timeout), method="POST"
        )

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._api.close()

    def instant(self, query: str, at: float) -> tuple[Sample, ...]:
        """The vector at that moment (seconds since the epoch). Raises Unreachable, ApiError, ConfigError."""
        from prometheus_api_client.exceptions import PrometheusApiClientException
        from requests.exceptions import RequestException

        self._api.headers = self._headers()
        try:
            result = self._api.custom_query(query, params={"time": f"{at:.3f}"})
            if not isinstance(result, list):
                raise TypeError(result)
        except PrometheusApiClientException as error:
            raise ApiError(
                f"Prometheus at {self.url} refused a query: {shortened(one_line(str(error)), 400)}",
                "Look at " + ", ".join(f"{self._named}{name}" for name in ("token_file", "tenant", "selectors")) + ".",
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ApiError(f"{self.url} does not answer as Prometheus does.", f"Look at {self._named}url.") from error
        except (RequestException, OSError) as error:
            raise Unreachable(
                f"Prometheus at {self.url} cannot be reached: {shortened(one_line(str(error)), 300)}",
                f"Look at {self._named}url, or give --prometheus.",
            ) from error
        return tuple(_sample(entry) for entry in result)

    def _headers(self) -> dict[str, str]:
        headers = dict(self._settings.headers)
        if self._settings.tenant:
            headers[TENANT] = self._settings.tenant
        if self._settings.token_file:
            path = Path(self._settings.token_file)
            try:
                token = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"The token for Prometheus cannot be read: {error}", f"Look at {self._named}token_file."
                ) from error
            if not token.isascii() or not token.isprintable() or not token:
                raise ConfigError(f"{path} holds no bearer token.", f"Look at {self._named}token_file.")
            headers["Authorization"] = f"Bearer {token}"
        return headers


def _sample(entry: Any) -> Sample:
    try:
        value = float(entry["value"][1])
        return Sample(dict(entry["metric"]), value if math.isfinite(value) else math.nan)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ApiError(
            "Prometheus answered a query with something that is no vector.",
            "Look at what is asked, such as rollout.prometheus.queries.",
        ) from error
