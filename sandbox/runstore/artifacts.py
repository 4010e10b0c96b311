"""Artifacts as the next release of KFP counts them: each with an id, and of a Metrics artifact one for each number.

Source: backend/api/v2beta1/artifact.proto of kubeflow/pipelines, branch mlmd-removal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TYPES = {
    "Metrics": "Metric",
    "ClassificationMetrics": "ClassificationMetric",
    "SlicedClassificationMetrics": "SlicedClassificationMetric",
}
_KNOWN_TYPES = {"Artifact", "Model", "Dataset", "HTML", "Markdown", *_TYPES.values()}


@dataclass(frozen=True)
class Artifact:
    """One artifact. `created_at` is seconds since the epoch; `number` the value of a Metric, None for others."""

    artifact_id: str
    name: str
    type: str
    created_at: float
    uri: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    number: float | None = None


def artifact_id(artifact: dict[str, Any]) -> str:
    """A positive 63-bit number in decimal: the same for a producer's output and for every input it becomes."""
    return _number_of(str(artifact.get("uri") or artifact.get("name", "")))


def _number_of(place: str) -> str:
    return str(int.from_bytes(hashlib.sha256(place.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1)


def artifacts_of(artifact: dict[str, Any], created_at: float) -> Iterator[Artifact]:
    """What one artifact of a task's record is in this API."""
    title = str((artifact.get("type") or {}).get("schemaTitle", "")).removeprefix("system.")
    kind = _TYPES.get(title, title)
    name, uri = str(artifact.get("name", "")), str(artifact.get("uri") or "")
    metadata: dict[str, Any] = artifact.get("metadata") or {}
    if kind != "Metric":
        shown = kind if kind in _KNOWN_TYPES else "Artifact"
        yield Artifact(artifact_id(artifact), name, shown, created_at, uri, metadata)
        return
    for key, value in metadata.items():
        if isinstance(value, int | float):
            yield Artifact(_number_of(f"{uri or name}#{key}"), key, kind, created_at, "", {key: value}, value)
