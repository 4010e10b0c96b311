"""What KServe 0.20's webhooks ask of ServingRuntimes: no two that could be chosen for one format with one priority.

Source: kserve pkg/webhook/admission/servingruntime. Its rules for several nodes are left out: nothing here has any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Body = dict[str, Any]
KINDS = ("ServingRuntime", "ClusterServingRuntime")


def refusal(kind: str, body: Body, existing: Iterable[Body]) -> str:
    """Why KServe denies the runtime beside those that there are, "" if it does not."""
    spec, name = body["spec"], body["metadata"]["name"]
    if spec.get("disabled"):
        return ""
    for other in existing:
        # Sic: asked once for each runtime that there is, so never of the first.
        if odd := _two_priorities(spec):
            why = f"different priorities assigned for the model format {odd}"
            return f"{why} under the {kind.lower()} {name}"
        other_name = other["metadata"]["name"]
        if other_name != name and (shared := _same_priority(spec, other["spec"])):
            why = f"same priority assigned for the model format {shared} in the {kind.lower()}s {other_name} and {name}"
            return why if kind == KINDS[1] else f"{why} in namespace {body['metadata']['namespace']}"
    return ""


def _two_priorities(spec: Body) -> str:
    """A format to which the spec gives two priorities."""
    seen: dict[str, int | None] = {}
    for form in _chosen_by_itself(spec):
        first = seen.setdefault(form["name"], form.get("priority"))
        if None not in (first, form.get("priority")) and first != form["priority"]:
            return str(form["name"])
    return ""


def _same_priority(spec: Body, other: Body) -> str:
    """A format for which neither of two runtimes goes before the other."""
    if bool(spec.get("multiModel")) != bool(other.get("multiModel")) or other.get("disabled"):
        return ""
    if not set(spec.get("protocolVersions") or ()) & set(other.get("protocolVersions") or ()):
        return ""
    for theirs in _chosen_by_itself(other):
        for ours in _chosen_by_itself(spec):
            alike = ours["name"].lower() == theirs["name"].lower() and ours.get("version") == theirs.get("version")
            if alike and ours.get("priority") is not None and ours["priority"] == theirs.get("priority"):
                return str(ours["name"])
    return ""


def _chosen_by_itself(spec: Body) -> list[Body]:
    return [form for form in spec.get("supportedModelFormats") or () if form.get("autoSelect")]
