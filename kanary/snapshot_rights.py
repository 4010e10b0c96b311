"""What the monitor's user may do, asked of the API server itself (SelfSubjectAccessReview). Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kanary import kubernetes as k8s
from kanary.errors import ApiError
from kanary.kubernetes import Act
from kanary.operations import Request

LOOK, ACT, LOGS, EVENTS = "look at services", "change services", "read server logs", "read events"

ASKED: Mapping[str, tuple[tuple[str, str, str, str], ...]] = {  # verb, group, resource, subresource
    LOOK: (("watch", "serving.kserve.io", "inferenceservices", ""), ("watch", "", "configmaps", "")),
    ACT: (
        ("patch", "serving.kserve.io", "inferenceservices", ""),
        ("update", "", "configmaps", ""),
        ("update", "coordination.k8s.io", "leases", ""),
    ),
    LOGS: (("get", "", "pods", "log"),),
    EVENTS: (("watch", "", "events", ""),),
}


@dataclass(frozen=True)
class Rights:
    """Who we are to the API server, and why what may not be done may not be: ability -> the rights that lack."""

    user: str = "unknown"
    lacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What may not be done, for a person; empty where everything may."""
        if not self.lacks:
            return ""
        parts = (f"{ability} (no {', '.join(missing)})" for ability, missing in self.lacks.items())
        return f"{self.user} may not {'; '.join(parts)}"


def rights(namespace: str) -> Act[Rights]:
    """The rights in a namespace, "" for all; what the server will not say counts as granted: it will refuse itself."""
    asked = [(ability, entry) for ability, entries in ASKED.items() for entry in entries]
    answers = yield k8s.Together((k8s.who_am_i(), *(_review(namespace, entry) for _, entry in asked)))
    lacks: dict[str, tuple[str, ...]] = {}
    for (ability, (verb, _, resource, sub)), answer in zip(asked, answers[1:], strict=True):
        if not isinstance(answer, ApiError) and (answer.get("status") or {}).get("allowed") is False:
            name = f"{resource}/{sub}" if sub else resource
            lacks[ability] = (*lacks.get(ability, ()), f"{verb} {name}")
    return Rights(k8s.username(answers[0]), lacks)


def _review(namespace: str, entry: tuple[str, str, str, str]) -> Request:
    verb, group, resource, sub = entry
    attributes: dict[str, Any] = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
    attributes |= {"subresource": sub} if sub else {}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return Request("POST", k8s.ACCESS_REVIEW, body=body)
