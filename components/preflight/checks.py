"""What a pipeline was given for its later steps, checked by those steps' own parsers. Touches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.deploy.deployment import check_percent
from components.evaluate import gates as gating
from kanary.rollout import policy as policies


def check(gates: Mapping[str, Any] | None, rollout_policy: Mapping[str, Any] | None, canary_percent: int) -> None:
    """Raises GateError, ConfigError or InputError, as evaluate, rollout, deploy would. None: there is no such step."""
    if gates is not None:
        gating.parse(gates)
    if rollout_policy is not None:
        policies.parse(rollout_policy, "the rollout policy")
    check_percent(canary_percent)
