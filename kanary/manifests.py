"""InferenceServices as plain dicts: the same arguments give the same document. Writes and sends nothing.

What describes a model (its version, its digest) stands in spec.predictor.annotations, together with the model that it
describes: KServe makes a revision of every change to the InferenceService's own annotations and labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kanary.errors import InputError

Document = dict[str, Any]

API_VERSION = "serving.kserve.io/v1beta1"
VERSION, DIGEST = "model-version", "model-digest"  # keys in spec.predictor.annotations
TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
MODE = "serving.kserve.io/deploymentMode"
PERCENT = "canaryTrafficPercent"
DIGEST_VARIABLE = "KANARY_MODEL_DIGEST"


def inference_service(
    name: str,
    namespace: str,
    storage_uri: str,
    model_version: str,
    digest: str,
    canary_percent: int | None = None,
    *,
    min_replicas: int = 1,
    max_replicas: int | None = None,
    model_format: str = "kanary",
    runtime: str = "",
    protocol: str = "",
    resources: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    service_account: str = "",
) -> Document:
    """An InferenceService of one model, in Knative mode, that can be rolled out by steps.

    Raises InputError for a storage URI that no storage initializer reads, such as KFP's own minio://.
    """
    scheme = storage_uri.partition("://")[0]
    if not storage_uri or scheme == "minio":
        raise InputError(
            f"KServe cannot load a model from {storage_uri!r}.",
            "Copy the release to a place of its own, and write minio:// as s3:// with its credentials.",
        )
    model: Document = {"modelFormat": {"name": model_format}, "storageUri": storage_uri}
    optional: Document = {"runtime": runtime, "protocolVersion": protocol}
    optional |= {"resources": _plain(resources), "args": list(args)}
    # The predictor refuses to serve anything else.
    variables = ({DIGEST_VARIABLE: digest} if digest.startswith("sha256:") else {}) | dict(env or {})
    optional |= {"env": [{"name": key, "value": value} for key, value in sorted(variables.items())]}
    model |= {key: value for key, value in optional.items() if value}
    predictor: Document = {
        "annotations": {VERSION: model_version, DIGEST: digest},
        "minReplicas": min_replicas,
        "model": model,
    }
    predictor |= {"maxReplicas": max_replicas} if max_replicas is not None else {}
    predictor |= {"serviceAccountName": service_account} if service_account else {}
    predictor |= {PERCENT: canary_percent} if canary_percent is not None else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        # There from the creation on: adding an annotation later would make a revision.
        "metadata": {"name": name, "namespace": namespace, "annotations": {MODE: "Knative", TAG_ROUTING: "true"}},
        "spec": {"predictor": predictor},
    }


def content(service: Mapping[str, Any]) -> Document:
    """What an InferenceService serves: its predictor without the percentage."""
    predictor = (service.get("spec") or {}).get("predictor") or {}
    return {key: value for key, value in predictor.items() if key != PERCENT}


def percent(service: Mapping[str, Any]) -> int | None:
    """The percentage asked for; None where the field is not there."""
    found: int | None = ((service.get("spec") or {}).get("predictor") or {}).get(PERCENT)
    return found


def model_version(predictor: Mapping[str, Any]) -> str:
    """The version that a predictor's annotations name; empty for none."""
    return str((predictor.get("annotations") or {}).get(VERSION) or "")


def model_digest(predictor: Mapping[str, Any]) -> str:
    """What identifies a predictor's model: the digest its annotations name, else one of the predictor itself."""
    named = (predictor.get("annotations") or {}).get(DIGEST)
    if named:
        return str(named)
    kept = {key: value for key, value in predictor.items() if key != PERCENT}
    return f"predictor-sha256:{hashlib.sha256(_canonical(kept).encode()).hexdigest()}"


def storage_uri(predictor: Mapping[str, Any]) -> str:
    """Where a predictor's model comes from; empty where it is a container of its own."""
    return str((predictor.get("model") or {}).get("storageUri") or "")


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> Document:
    """The JSON merge patch (RFC 7386) that makes `after` of `before`; {} where they are the same."""
    found: Document = {key: None for key in before if key not in after}
    for key, value in after.items():
        known = before.get(key)
        if isinstance(value, Mapping) and isinstance(known, Mapping):
            if inner := merge_patch(known, value):
                found[key] = inner
        elif key not in before or known != value:
            found[key] = value
    return found


def _plain(value: Mapping[str, Any] | None) -> Document:
    found: Document = json.loads(json.dumps(value)) if value else {}
    return found


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
