"""Which ServingRuntime serves a model, and what its container becomes for one InferenceService.

Source: predictor_model.go, components/predictor.go and utils.go in KServe 0.20.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sandbox.kserve.knative import Document

# On a ServingRuntime's metadata: modules, separated by commas, that its servers are forked from in the sandbox.
PRELOAD_ANNOTATION = "kanary.dev/preload"

_PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")
_MERGE_KEYS = {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath", "volumeDevices": "devicePath"}
_PLACEHOLDER = re.compile(r"{{-?\s*(.*?)\s*-?}}")
_FIELD = re.compile(r"\.(Name|Namespace|UID|Labels|Annotations)(?:\.([A-Za-z_]\w*))?")
_INDEX = re.compile(r'index\s+\.(Labels|Annotations)\s+\\?"([^"\\]+)\\?"')


class NoRuntime(Exception):
    """No runtime fits. `failure` is KServe's FailureReason, `message` what the status says, `event` what the event."""

    def __init__(self, failure: str, message: str, event: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message
        self.event = event


@dataclass(frozen=True)
class Runtime:
    """A ServingRuntime or, `cluster`, a ClusterServingRuntime."""

    name: str
    spec: Document
    annotations: Document
    created: str
    cluster: bool

    @property
    def preload(self) -> tuple[str, ...]:
        """The modules that its servers are forked from; empty where they are started cold."""
        return preload(self.annotations)


def preload(annotations: Document) -> tuple[str, ...]:
    """The modules named by the preload annotation."""
    return tuple(name.strip() for name in annotations.get(PRELOAD_ANNOTATION, "").split(",") if name.strip())


def runtimes(namespaced: Iterable[Document], cluster: Iterable[Document]) -> tuple[Runtime, ...]:
    """The runtimes that an InferenceService may use: those of its namespace and the cluster's."""
    found = [_runtime(document, False) for document in namespaced]
    return (*found, *(_runtime(document, True) for document in cluster))


def choose(model: Document, available: Sequence[Runtime]) -> Runtime:
    """The runtime that `model` (spec.predictor.model) names, else the first that fits. Raises NoRuntime."""
    named = model.get("runtime")
    if named:
        return _named(named, model, available)
    fitting = [
        runtime
        for runtime in available
        if not runtime.spec.get("disabled")
        and not runtime.spec.get("multiModel")
        and not runtime.spec.get("workerSpec")
        and _supports(runtime, model)
        and _speaks(runtime, model.get("protocolVersion") or "v1")
    ]
    if not fitting:
        wanted = model.get("modelFormat") or {}
        event = f"no runtime found to support predictor with model type: {{{wanted.get('name')} <nil>}}"
        raise NoRuntime("NoSupportingRuntime", "No runtime found to support specified framework/version", event)
    # Python's sort is stable: the last key sorted by is the first to count.
    fitting.sort(key=lambda runtime: runtime.name)
    fitting.sort(key=lambda runtime: runtime.created, reverse=True)
    fitting.sort(key=lambda runtime: _protocol(runtime))
    fitting.sort(key=lambda runtime: -_priority(runtime, model))
    fitting.sort(key=lambda runtime: runtime.cluster)
    return fitting[0]


def container(runtime: Runtime, model: Document) -> Document:
    """The runtime's `kserve-container` with what `model` overrides; arguments are appended. Raises NoRuntime."""
    found = [entry for entry in runtime.spec.get("containers") or [] if entry.get("name") == "kserve-container"]
    if not found:
        text = "no container configuration found in selected serving runtime"
        raise NoRuntime("InvalidPredictorSpec", text, text)
    own = {key: value for key, value in model.items() if key not in _MODEL_ONLY}
    merged: Document = _merge(found[0], own | {"name": "kserve-container"})
    args = [*(found[0].get("args") or []), *(own.get("args") or [])]
    if args:
        merged["args"] = args
    if version := model.get("runtimeVersion"):
        merged["image"] = re.sub(r"(:[\w.\-]*)?$", f":{version}", merged.get("image", ""), count=1)
    return merged


def fill(document: Document, metadata: Document) -> Document:
    """`document` with `{{.Name}}` and its like filled in from `metadata`. ValueError for anything else in braces."""

    def value(match: re.Match[str]) -> str:
        inner = match.group(1)
        if (index := _INDEX.fullmatch(inner)) is not None:
            return _quoted((metadata.get(index.group(1).lower()) or {}).get(index.group(2), ""))
        field = _FIELD.fullmatch(inner)
        if field is None:
            raise ValueError(f"{match.group(0)} is no field of the InferenceService's metadata")
        found = metadata.get(field.group(1).lower(), "")
        if field.group(2) is not None or isinstance(found, dict):
            found = found.get(field.group(2), "<no value>") if isinstance(found, dict) else "<no value>"
        return _quoted(str(found))

    filled: Document = json.loads(_PLACEHOLDER.sub(value, json.dumps(document)))
    return filled


_MODEL_ONLY = frozenset(
    {"modelFormat", "runtime", "runtimeVersion", "protocolVersion", "storageUri", "storage", "name", "confidential"}
)


def _runtime(document: Document, cluster: bool) -> Runtime:
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    created = metadata.get("creationTimestamp", "")
    return Runtime(metadata["name"], document.get("spec") or {}, annotations, created, cluster)


def _named(name: str, model: Document, available: Sequence[Runtime]) -> Runtime:
    found = [runtime for runtime in available if runtime.name == name]
    if not found:
        event = f"No ServingRuntimes or ClusterServingRuntimes with the name: {name}"
        raise NoRuntime("RuntimeNotRecognized", "Waiting for runtime to become available", event)
    runtime = min(found, key=lambda candidate: candidate.cluster)
    if runtime.spec.get("disabled"):
        raise NoRuntime("RuntimeDisabled", "Specified runtime is disabled", f"specified runtime {name} is disabled")
    protocol = model.get("protocolVersion")
    if protocol and not _speaks(runtime, protocol):
        text = f"specified runtime {name} does not support specified protocol version"
        raise NoRuntime("NoSupportingRuntime", text.replace(f"specified runtime {name}", "Specified runtime"), text)
    if not _supports(runtime, model):
        text = f"specified runtime {name} does not support specified framework/version"
        raise NoRuntime("NoSupportingRuntime", text.replace(f"specified runtime {name}", "Specified runtime"), text)
    return runtime


def _supports(runtime: Runtime, model: Document) -> bool:
    wanted = model.get("modelFormat") or {}
    for offered in runtime.spec.get("supportedModelFormats") or []:
        if not (model.get("runtime") or offered.get("autoSelect")) or offered.get("name") != wanted.get("name"):
            continue
        if "version" not in wanted or offered.get("version") == wanted["version"]:
            return True
    return False


def _speaks(runtime: Runtime, protocol: str) -> bool:
    spoken = runtime.spec.get("protocolVersions") or []
    return not spoken or protocol in spoken


def _protocol(runtime: Runtime) -> int:
    spoken = runtime.spec.get("protocolVersions") or []
    order = [_PROTOCOLS.index(protocol) if protocol in _PROTOCOLS else len(_PROTOCOLS) for protocol in spoken]
    return min(order, default=len(_PROTOCOLS))


def _priority(runtime: Runtime, model: Document) -> int:
    name = (model.get("modelFormat") or {}).get("name")
    for offered in runtime.spec.get("supportedModelFormats") or []:
        if offered.get("name") == name:
            return int(offered.get("priority") or 0)
    return 0


def _merge(base: Document, patch: Document) -> Document:
    """A strategic merge of two containers: maps by key, lists with a merge key by it, everything else replaced."""
    merged = dict(base)
    for key, value in patch.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            merged[key] = _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list) and key in _MERGE_KEYS:
            by = _MERGE_KEYS[key]
            entries = {entry.get(by): entry for entry in known}
            entries |= {entry.get(by): _merge(entries.get(entry.get(by), {}), entry) for entry in value}
            merged[key] = list(entries.values())
        else:
            merged[key] = value
    return merged


def _quoted(text: str) -> str:
    """`text` as it stands inside a JSON string."""
    return json.dumps(text)[1:-1]
