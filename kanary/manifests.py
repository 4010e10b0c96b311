"""InferenceServices as plain dicts: the same arguments give the same document. Writes and sends nothing.

What describes a model (its version, its digest) stands in spec.predictor.annotations, together with the model that it
describes: KServe makes a revision of every change to the InferenceService's own annotations and labels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kanary.errors import InputError

Document = dict[str, Any]

API_VERSION = "serving.kserve.io/v1beta1"
VERSION, DIGEST = "model-version", "model-digest"  # keys in spec.predictor.annotations
TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
PERCENT = "canaryTrafficPercent"
DIGEST_VARIABLE = "KANARY_MODEL_DIGEST"
KNATIVE, STANDARD = "Knative", "Standard"
_MODES = {"Serverless": KNATIVE, "RawDeployment": STANDARD}
# What KServe refuses in an entry of spec.canary, which has a fixed number of replicas.
_SCALING = ("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling")


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
    mode: str = KNATIVE,
) -> Document:
    """An InferenceService of one model that can be rolled out by steps, in the mode Knative or Standard.

    Raises InputError for another mode, for a percentage in Standard mode, and for a storage URI that no storage
    initializer reads, such as KFP's own minio://.
    """
    if mode not in (KNATIVE, STANDARD):
        raise InputError(f"{mode!r} is no mode of KServe that Kanary drives.", f"Give {KNATIVE} or {STANDARD}.")
    if mode == STANDARD and canary_percent is not None:
        raise InputError(
            f"{PERCENT} means nothing in Standard mode: KServe ignores it silently.",
            "Deploy the canary with kanary.kserve.deploy, which writes spec.canary.",
        )
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
    # There from the creation on: adding an annotation later would make a revision, or restart a Deployment.
    annotations = {MODE: mode} | ({TAG_ROUTING: "true"} if mode == KNATIVE else {})
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"predictor": predictor},
    }


def mode(service: Mapping[str, Any]) -> str:
    """Knative or Standard. Where nothing says it, Knative: the status says it before anything is served."""
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    said = (service.get("status") or {}).get("deploymentMode") or annotations.get(MODE) or KNATIVE
    return _MODES.get(said, said)


def content(service: Mapping[str, Any]) -> Document:
    """The newest content of an InferenceService: its canary's, else its predictor's.

    Without the percentage, and in Standard mode without the predictor's name, which is the Deployment's. A canary in
    Standard mode has what it does not set from the stable predictor; this is what it would be once promoted.
    """
    entry = canary(service)
    if entry is None:
        return stable_content(service)
    stable = stable_content(service)
    merged = _inherited(stable, entry.get("predictor") or {})
    kept = {key: stable[key] for key in ("minReplicas", *_SCALING) if key in stable}
    without = {key: value for key, value in merged.items() if key not in ("name", "minReplicas", *_SCALING)}
    return without | kept


def stable_content(service: Mapping[str, Any]) -> Document:
    """The content of spec.predictor; in Knative mode that is the canary's, where there is one."""
    predictor = (service.get("spec") or {}).get("predictor") or {}
    left_out = (PERCENT, "name") if mode(service) == STANDARD else (PERCENT,)
    return {key: value for key, value in predictor.items() if key not in left_out}


def canary(service: Mapping[str, Any]) -> Document | None:
    """The entry of spec.canary in Standard mode; None where there is none, and in Knative mode."""
    found = (service.get("spec") or {}).get("canary") or []
    return dict(found[0]) if found and mode(service) == STANDARD else None


def canary_entry(service: Mapping[str, Any], wanted: Mapping[str, Any], percent: int) -> Document:
    """The entry of spec.canary that gives the content `wanted` so many percent beside the service's predictor.

    Its name is made of the digest, so that the same model gets the same Deployment. Raises InputError where it could
    never have a replica.
    """
    stable = (service.get("spec") or {}).get("predictor") or {}
    known = canary(service)
    name = canary_name(wanted, str(stable.get("name") or ""))
    if known is not None and model_digest(content(service)) == model_digest(wanted):
        name = known["predictor"]["name"]
    own = {key: value for key, value in wanted.items() if key not in (PERCENT, "name", "minReplicas", *_SCALING)}
    return {"trafficPercent": percent, "predictor": own | {"name": name, "minReplicas": _replicas(service, percent)}}


def with_percent(service: Mapping[str, Any], percent: int) -> list[Document]:
    """spec.canary with its one entry at `percent`, and replicas for that share. Raises InputError as canary_entry."""
    entry = canary(service)
    assert entry is not None
    predictor = dict(entry.get("predictor") or {}) | {"minReplicas": _replicas(service, percent)}
    return [entry | {"trafficPercent": percent, "predictor": predictor}]


def canary_name(wanted: Mapping[str, Any], taken: str) -> str:
    """A name for the predictor of a content, from its digest; from all of it where the stable one has that name."""
    name = _name_of(model_digest(wanted))
    return name if name != taken else _name_of(_canonical(dict(wanted)))


def _name_of(text: str) -> str:
    return f"r{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _replicas(service: Mapping[str, Any], percent: int) -> int:
    """A canary's replicas: its share of stable's, at least one, and no more than stable's, which KServe refuses."""
    predictor = (service.get("spec") or {}).get("predictor") or {}
    least = predictor.get("minReplicas")
    stable = 1 if least is None else int(least)
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    own = predictor.get("annotations") or {}
    scaling = own.get(AUTOSCALER) or annotations.get(AUTOSCALER)
    if stable == 0 and scaling == "none":
        metadata = service.get("metadata") or {}
        raise InputError(
            f"A canary of {metadata.get('namespace')}/{metadata.get('name')} would have no replica: minReplicas is 0, "
            f"{AUTOSCALER} is none, and KServe gives a canary no more replicas than its stable predictor asks for.",
            "Set spec.predictor.minReplicas to 1 or more.",
        )
    return min(stable, max(1, math.ceil(stable * percent / 100)))


def _inherited(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    """What KServe makes of a canary: maps are merged, lists and values replaced, what is empty is inherited."""
    found = dict(base)
    for key, value in over.items():
        known = found.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            found[key] = _inherited(known, value)
        elif value or key not in found:
            found[key] = value
    return found


def percent(service: Mapping[str, Any]) -> int | None:
    """The canary's percentage that is asked for; None where there is none, or no canary in Standard mode."""
    if mode(service) == STANDARD:
        entry = canary(service)
        return int(entry.get("trafficPercent") or 0) if entry is not None else None
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
