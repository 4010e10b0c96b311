"""What one InferenceService's status says of its revisions, whatever its mode; `knative` and `standard` read it. Pure.

In Knative mode a revision is a Knative Revision, in Standard mode a Deployment: the name by which gateways count it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Parts:
    """Who serves. Empty names: there is none. `obeyed`: the gateway does what the shares say.

    `created` is the newest revision, ready or not; `latest_ready` the newest that is ready; `shares` are effective
    percent by revision; `urls` lead to one revision alone, whatever its share.
    """

    stable: str
    canary: str
    created: str
    latest_ready: str
    previous: str
    shares: Mapping[str, int]
    failure: str = ""
    obeyed: bool = True
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def condition(service: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A condition of the status; {} where it is not there."""
    conditions = (service.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def load_failure(service: Mapping[str, Any]) -> str:
    """Why the predictor's model server does not come up, as modelStatus has it; empty where it says nothing of now."""
    model = (service.get("status") or {}).get("modelStatus") or {}
    # lastFailureInfo stays after a recovery: only these say that it is of now.
    if model.get("transitionStatus") not in ("BlockedByFailedLoad", "InvalidSpec"):
        return ""
    info = model.get("lastFailureInfo") or {}
    exited = f"exit code {info['exitCode']}" if info.get("exitCode") else ""
    return ": ".join(part for part in (info.get("reason"), exited, str(info.get("message") or "").strip()) if part)
