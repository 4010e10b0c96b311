"""What of KServe's ConfigMap `inferenceservice-config` (namespace `kserve`) the sandbox heeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.kserve.knative import Document

NAMESPACE, NAME = "kserve", "inferenceservice-config"
KNATIVE, STANDARD = "Knative", "Standard"

STORAGE_URI_ANNOTATION = "internal.serving.kserve.io/storage-initializer-sourceuri"
# constants.go: copied into no pod template, whatever the ConfigMap adds to them.
_ANNOTATIONS = (
    "autoscaling.knative.dev/min-scale",
    "autoscaling.knative.dev/max-scale",
    STORAGE_URI_ANNOTATION,
    "kubectl.kubernetes.io/last-applied-configuration",
    "modelFormat",
)
_LABELS = ("networking.knative.dev/visibility",)
_LEGACY = {"Serverless": KNATIVE, "RawDeployment": STANDARD}


@dataclass(frozen=True)
class Config:
    """Keys that do not reach the pod template, and the mode of a service that names none."""

    annotations: frozenset[str] = frozenset(_ANNOTATIONS)
    labels: frozenset[str] = frozenset(_LABELS)
    mode: str = KNATIVE


def read(config_map: Mapping[str, Any] | None) -> Config:
    """The configuration in that ConfigMap; defaults where there is none or it cannot be read."""
    data = (config_map or {}).get("data") or {}
    service, deploy = _json(data.get("inferenceService")), _json(data.get("deploy"))
    mode = str(deploy.get("defaultDeploymentMode") or KNATIVE)
    return Config(
        frozenset((*_ANNOTATIONS, *_strings(service.get("serviceAnnotationDisallowedList")))),
        frozenset((*_LABELS, *_strings(service.get("serviceLabelDisallowedList")))),
        _LEGACY.get(mode, mode),
    )


def mode(isvc: Document, config: Config) -> str:
    """The deployment mode: what the status has recorded, else the annotation, else the default."""
    recorded = str((isvc.get("status") or {}).get("deploymentMode") or "")
    if recorded:
        return _LEGACY.get(recorded, recorded)
    asked = ((isvc["metadata"].get("annotations")) or {}).get("serving.kserve.io/deploymentMode", "")
    asked = _LEGACY.get(asked, asked)
    return asked if asked in (KNATIVE, STANDARD, "ModelMesh") else config.mode


def _json(text: object) -> Document:
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _strings(found: object) -> list[str]:
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
