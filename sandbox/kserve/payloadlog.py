"""`logger` of a component: the annotations that KServe makes of it, and what the sandbox tells a model server instead.

In a cluster KServe's agent beside the server sends the events. The sandbox runs no agent: it says in the environment
of the server what the agent's command line would say, and it is the server that sends; one that does not know the
variable sends nothing.

Source: kserve/kserve 0.20, pkg/controller/v1beta1/inferenceservice/components/component.go,
pkg/webhook/admission/pod/agent_injector.go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandbox.kserve.knative import Document, Revision, pod_name

VARIABLE = "KANARY_PAYLOAD_LOG"
_LOGGER = "internal.serving.kserve.io/logger"
_URL, _MODE = f"{_LOGGER}-sink-url", f"{_LOGGER}-mode"
_HEADERS, _ANNOTATIONS = f"{_LOGGER}-metadata-headers", f"{_LOGGER}-metadata-annotations"


def annotated(logger: Mapping[str, Any] | None) -> dict[str, str]:
    """The pod template's annotations for a component's `logger`."""
    if logger is None:
        return {}
    found = {_LOGGER: "true", _MODE: str(logger.get("mode") or "all")}
    if logger.get("url"):
        found[_URL] = str(logger["url"])
    for field, key in (("metadataHeaders", _HEADERS), ("metadataAnnotations", _ANNOTATIONS)):
        if logger.get(field) is not None:
            found[key] = ",".join(logger[field])
    return found


def environment(namespace: str, uid: str, revision: Revision) -> dict[str, str]:
    """What the server of a revision is told; nothing where there is no logger, or none that can be obeyed."""
    known: Document = revision.template.document["annotations"]
    if _LOGGER not in known or ignored(revision.template.document):
        return {}
    labels: Document = revision.template.document["labels"]
    named = {key: known[key] for key in _split(known.get(_ANNOTATIONS)) if key in known}
    told = {
        "url": known[_URL],
        "mode": known[_MODE],
        "metadataHeaders": _split(known.get(_HEADERS)),
        "metadataAnnotations": named,
        "inferenceservicename": labels.get("serving.kserve.io/inferenceservice", ""),
        "namespace": namespace,
        "component": labels.get("component", ""),
        "endpoint": labels.get("endpoint", ""),
        "source": pod_name(revision, uid),
        "revision": revision.name,
    }
    return {VARIABLE: json.dumps(told, sort_keys=True)}


def ignored(template: Document) -> str:
    """Why a pod template's logger sends nothing here; empty where it does, or where there is none."""
    known = template["annotations"]
    if _LOGGER not in known:
        return ""
    field, url = f"spec.{template['labels'].get('component', 'predictor')}.logger", known.get(_URL, "")
    if not url:
        return f"{field} has no url, and the sandbox has no default broker: no payloads are logged"
    if not url.startswith(("http://", "https://")):
        return f"{field}.url {url}: the sandbox sends to http and https only: no payloads are logged"
    return ""


def _split(text: str | None) -> list[str]:
    return text.split(",") if text else []
