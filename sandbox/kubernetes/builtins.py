"""What the API server itself adds to and asks of built-in kinds: defaults, normal forms, rules beyond types."""

from __future__ import annotations

import base64
import re
from typing import Any

from sandbox.kubernetes import gojson
from sandbox.kubernetes.names import invalid, label_faults, qualified_name
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
# What Go writes of an object of which nothing was said. Nobody owns these.
BLANKS: dict[str, Body] = {
    "Event": {"involvedObject": {}, "reason": "", "message": "", "type": "", "action": "", **EVENT_DEFAULTS},
    "Lease": {"spec": {}},
    "Namespace": {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
}
SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
ACCOUNT = "kubernetes.io/service-account.name"
DATA_KEY = r"[-._a-zA-Z0-9]+"
DATA_KEY_MESSAGE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    f"or 'key-name', regex used for validation is '{DATA_KEY}')"
)
MAX_DATA = 1024 * 1024


def blank(resource: Resource) -> Body:
    """An object of a kind before anybody has said anything of it."""
    return {"metadata": {}, **BLANKS.get(resource.kind, {})}


def complete(resource: Resource, body: Body, old: Body | None) -> None:
    """Adds the defaults of a built-in kind, in place."""
    match resource.kind:
        case "Event":
            for field, value in EVENT_DEFAULTS.items():
                body.setdefault(field, value)
            for field in ("type", "action", "reason", "message"):
                if body.get(field) == "":
                    del body[field]
        case "Lease":
            # A server without coordinated leader election keeps nothing of it.
            spec = body.get("spec") or {}
            body["spec"] = {key: item for key, item in spec.items() if key not in ("strategy", "preferredHolder")}
        case "Secret":
            body["type"] = body.get("type") or "Opaque"
            plain = body.pop("stringData", None) or {}
            if plain:
                encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
                body["data"] = {**(body.get("data") or {}), **encoded}
        case "Namespace":
            _complete_namespace(body, old)
    for field in ("data", "binaryData"):
        if body.get(field) == {}:
            del body[field]
    field = {"Secret": "data", "ConfigMap": "binaryData"}.get(resource.kind, "")
    if body.get(field):
        body[field] = {key: re.sub(r"[\r\n]", "", value) for key, value in body[field].items()}


def _complete_namespace(body: Body, old: Body | None) -> None:
    name = body["metadata"].get("name", "")
    body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    if old is None:
        given = [name for name in (body.get("spec") or {}).get("finalizers") or () if name != "kubernetes"]
        body["spec"] = {"finalizers": [*given, "kubernetes"]}
        body["status"] = {"phase": "Active"}
    else:
        body["spec"] = old.get("spec", {})


def faults(resource: Resource, body: Body, old: Body | None) -> list[Cause]:
    """What is wrong with a built-in object beyond its types."""
    match resource.kind:
        case "ConfigMap":
            return _data_faults(body, ("data", "binaryData")) + _immutable_faults(body, old)
        case "Secret":
            return _data_faults(body, ("data",)) + _secret_faults(body) + _immutable_faults(body, old)
        case "Lease":
            return _lease_faults(body.get("spec") or {})
        case "Namespace":
            return _phase_faults(body)
        case "Event":
            return _event_faults(resource, body) + _new_event_faults(resource, body, old)
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
            found += [invalid(f"{field}[{key}]", key, fault) for fault in _key_faults(key)]
    for key in sorted(set(body.get("data") or ()) & set(body.get("binaryData") or ())):
        found.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    if size > MAX_DATA:
        found.append(Cause("", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA} bytes"))
    return found


def _key_faults(key: str) -> list[str]:
    found = [] if len(key) <= 253 else ["must be no more than 253 characters"]
    if not re.fullmatch(DATA_KEY, key):
        found.append(DATA_KEY_MESSAGE)
    elif key in (".", ".."):
        found.append(f"must not be '{key}'")
    elif key.startswith(".."):
        found.append("must not start with '..'")
    return found


def _secret_faults(body: Body) -> list[Cause]:
    """What each of Kubernetes' own types of secret must hold."""
    data, kind = body.get("data") or {}, body.get("type", "")

    match kind:
        case "kubernetes.io/service-account-token":
            named = (body["metadata"].get("annotations") or {}).get(ACCOUNT)
            return [] if named else [_required(f"metadata.annotations[{ACCOUNT}]")]
        case "kubernetes.io/basic-auth":
            return (
                []
                if {"username", "password"} & set(data)
                else [_required("data[username]"), _required("data[password]")]
            )
        case "kubernetes.io/ssh-auth":
            return [] if data.get("ssh-privatekey") else [_required("data[ssh-privatekey]")]
    found = [_required(f"data[{key}]") for key in SECRET_KEYS.get(kind, ()) if key not in data]
    if kind.startswith(("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")):
        for key in SECRET_KEYS.get(kind, ()):
            fault = gojson.syntax_error(base64.b64decode(data.get(key, "e30=")).decode("utf-8", "replace"))
            if fault:
                found.append(invalid(f"data[{key}]", "<secret contents redacted>", fault))
    return found


def _phase_faults(body: Body) -> list[Cause]:
    phase, going = (body.get("status") or {}).get("phase"), body["metadata"].get("deletionTimestamp")
    if not going and phase not in (None, "Active"):
        return [invalid("status.Phase", phase, "may only be 'Active' if `deletionTimestamp` is empty")]
    return []


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
    return found


def _new_event_faults(resource: Resource, body: Body, old: Body | None) -> list[Cause]:
    """The rules of the newer API, which hold for events that came by it, and for core's that name an eventTime.

    They are worded in core's names of fields, but for the controller in the newer API.
    """
    view = bool(resource.stored_as)
    if not (view or body.get("eventTime")):
        return []
    if old is not None:
        return _frozen_event_faults(body, old) if view else []
    controller = "reportingController" if view else "reportingComponent"
    name = body.get("reportingComponent") or ""
    found = [] if body.get("eventTime") else [_required("eventTime")]
    found += [] if name else [_required(controller)]
    found += [invalid(controller, name, fault) for fault in qualified_name(name)]
    found += [_required(field) for field in ("reportingInstance", "action", "reason") if not body.get(field)]
    for field, most in (("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)):
        if len(body.get(field) or "") > most:
            found.append(invalid(field, "", f"can have at most {most} characters"))
    if view:
        found += _view_faults(body)
    return found


def _view_faults(body: Body) -> list[Cause]:
    found = []
    if body.get("type") not in ("Normal", "Warning"):
        found.append(invalid("type", "", f"has invalid value: {body.get('type', '')}"))
    series = body.get("series")
    if series is not None and series.get("count", 0) < 2:
        found.append(invalid("series.count", "", "should be at least 2"))
    for field in ("firstTimestamp", "lastTimestamp", "count", "source"):
        if body.get(field):
            found.append(invalid(field, "", "needs to be unset"))
    return found


def _frozen_event_faults(body: Body, old: Body) -> list[Cause]:
    fields = ("involvedObject", "reason", "message", "type", "action", "reportingComponent", "reportingInstance")
    return [
        invalid(field, body.get(field, ""), "field is immutable")
        for field in (*fields, "related", "eventTime")
        if body.get(field) != old.get(field)
    ]


def _required(field: str) -> Cause:
    return Cause(field, "FieldValueRequired", "Required value")


def _event_faults(resource: Resource, body: Body) -> list[Cause]:
    involved = (body.get("involvedObject") or {}).get("namespace", "")
    namespace = body["metadata"].get("namespace", "")
    # Events about cluster-scoped objects live in "default"; the newer API leaves it to who reports.
    fits = namespace in ("default", "kube-system") if involved == "" else involved == namespace or resource.stored_as
    if not fits:
        return [invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    return []
