"""A ServiceAccount's token for Kubeflow Pipelines, asked of the Kubernetes API and again before it runs out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from kanary import kubernetes
from kanary.config import Config
from kanary.errors import ApiError, KanaryError
from kanary.kubernetes import Act

AUDIENCE = "pipelines.kubeflow.org"  # what KFP's API server asks tokens to be for
_SECONDS = 3600  # the server may give another time
_EARLY = 0.2  # of its time a token is not used any more


class AccountToken:
    """Gives the token when called; from any thread. Raises KanaryError saying whose token could not be had."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._config, self._clock = config, clock
        self._one_at_a_time = threading.Lock()
        self._token, self._until = "", 0.0

    def __call__(self) -> str:
        with self._one_at_a_time:
            if self._clock() >= self._until:
                self._token, self._until = self._asked()
            return self._token

    def _asked(self) -> tuple[str, float]:
        with kubernetes.connect(self._config) as api:
            given, _, name = self._config.token_account.rpartition("/")
            namespace = given or self._config.namespace or api.access.namespace
            try:
                token, expires = api.call(_requested(namespace, name))
            except ApiError as error:
                raise KanaryError(
                    f"No token of ServiceAccount {namespace}/{name} was given: {error.message}",
                    "It takes the right to `create serviceaccounts/token` there; token_file and cookie_file need none.",
                ) from error
        now = self._clock()
        return token, now + (expires - now) * (1 - _EARLY)


def _requested(namespace: str, name: str) -> Act[tuple[str, float]]:
    """The token, and until when it holds (seconds since the epoch)."""
    answer = yield kubernetes.account_token(namespace, name, AUDIENCE, _SECONDS)
    try:
        status = answer["status"]
        return str(status["token"]), datetime.fromisoformat(status["expirationTimestamp"]).timestamp()
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError("The Kubernetes API answered a TokenRequest without a token.") from error
