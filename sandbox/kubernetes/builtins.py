"""What the API server itself adds to and asks of built-in kinds: defaults, normal forms, rules beyond types."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from sandbox.kubernetes.names import invalid, label_faults
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import Cause

Body = dict[str, Any]
EVENT_DEFAULTS: Body = {
    "source": {},
    "firstTimestamp": None,
    "lastTimestamp": None,
    "eventTime": None,
    "reportingComponent": "",
    "reportingInstance": "",
}
DATA_KEY = r"[-._a-zA-Z0-9]+"
DATA_KEY_MESSAGE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    f"or 'key-name', regex used for validation is '{DATA_KEY}')"
)
MAX_DATA = 1024 * 1024


def complete(resource: Resource, body: Body, old: Body | None) -> None:
    """Adds the defaults of a built-in kind, in place."""
    match resource.kind:
        case "Event":
            for field, value in EVENT_DEFAULTS.items():
                body.setdefault(field, value)
        case "Secret":
            body.setdefault("type", "Opaque")
            plain = body.pop("stringData", None) or {}
            if plain:
                encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
                body["data"] = {**(body.get("data") or {}), **encoded}
        case "Namespace":
            _complete_namespace(body, old)
    for field in ("data", "binaryData"):
        if body.get(field) == {}:
            del body[field]


def _complete_namespace(body: Body, old: Body | None) -> None:
    name = body["metadata"].get("name", "")
    body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    if old is None:
        body["spec"] = {"finalizers": ["kubernetes"]}
        body["status"] = {"phase": "Active"}
    else:
        body["spec"] = old.get("spec", {})


def faults(resource: Resource, body: Body, old: Body | None) -> list[Cause]:
    """What is wrong with a built-in object beyond its types."""
    match resource.kind:
        case "ConfigMap":
            return _data_faults(body, ("data", "binaryData")) + _immutable_faults(body, old)
        case "Secret":
            return _data_faults(body, ("data",)) + _base64_faults(body) + _immutable_faults(body, old)
        case "Lease":
            return _lease_faults(body.get("spec") or {})
        case "Event":
            return _event_faults(body)
        case "Deployment" | "Service" if body.get("spec", {}).get("selector"):
            selector = body["spec"]["selector"]
            labels = selector if resource.kind == "Service" else selector.get("matchLabels") or {}
            return label_faults(labels, "spec.selector")
    return []


def _data_faults(body: Body, fields: tuple[str, ...]) -> list[Cause]:
    found = []
    size = 0
    for field in fields:
        for key, value in (body.get(field) or {}).items():
            size += len(value)
            if not re.fullmatch(DATA_KEY, key):
                found.append(invalid(f"{field}[{key}]", key, DATA_KEY_MESSAGE))
    if size > MAX_DATA:
        found.append(Cause("", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA} bytes"))
    return found


def _base64_faults(body: Body) -> list[Cause]:
    found = []
    for key, value in (body.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            found.append(invalid(f"data[{key}]", value, "must be base64"))
    return found


def _immutable_faults(body: Body, old: Body | None) -> list[Cause]:
    if old is None:
        return []
    found = []
    why = "Forbidden: field is immutable when `immutable` is set"
    if old.get("immutable"):
        fields = ("immutable", "data", "binaryData")
        found = [Cause(f, "FieldValueForbidden", why) for f in fields if body.get(f) != old.get(f)]
    if "type" in old and body.get("type") != old["type"]:
        found.append(invalid("type", body.get("type"), "field is immutable"))
    return found


def _lease_faults(spec: Body) -> list[Cause]:
    found = []
    for field, least, words in (("leaseDurationSeconds", 1, "0"), ("leaseTransitions", 0, "or equal to 0")):
        value = spec.get(field)
        if value is not None and value < least:
            found.append(invalid(f"spec.{field}", value, f"must be greater than {words}"))
    if spec.get("holderIdentity") == "":
        found.append(invalid("spec.holderIdentity", "", "must not be empty"))
    return found


def _event_faults(body: Body) -> list[Cause]:
    involved = (body.get("involvedObject") or {}).get("namespace", "")
    namespace = body["metadata"].get("namespace", "")
    # Events about cluster-scoped objects live in "default".
    if involved != namespace and not (involved == "" and namespace == "default"):
        return [invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    return []
