"""Kubernetes' protobuf bodies, decoded to JSON values: kubectl and client-go send them for built-in kinds.

Only requests, and only the kinds below; answers are JSON, which every client that sends protobuf accepts.
Source: the generated.proto files of k8s.io/api and k8s.io/apimachinery.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

MEDIA = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
Body = dict[str, Any]
# message -> field number -> "name type"; [] repeats, {} is a map from strings.
MESSAGES: dict[str, dict[int, str]] = {
    "Unknown": {1: "typeMeta TypeMeta", 2: "raw raw", 3: "contentEncoding string", 4: "contentType string"},
    "TypeMeta": {1: "apiVersion string", 2: "kind string"},
    "ObjectMeta": {
        1: "name string",
        2: "generateName string",
        3: "namespace string",
        5: "uid string",
        6: "resourceVersion string",
        7: "generation int",
        8: "creationTimestamp time",
        9: "deletionTimestamp time",
        10: "deletionGracePeriodSeconds int",
        11: "labels {}string",
        12: "annotations {}string",
        13: "ownerReferences []OwnerReference",
        14: "finalizers []string",
        17: "managedFields []ManagedFieldsEntry",
    },
    "OwnerReference": {
        1: "kind string",
        3: "name string",
        4: "uid string",
        5: "apiVersion string",
        6: "controller bool",
        7: "blockOwnerDeletion bool",
    },
    "ManagedFieldsEntry": {
        1: "manager string",
        2: "operation string",
        3: "apiVersion string",
        4: "time time",
        6: "fieldsType string",
        7: "fieldsV1 fields",
        8: "subresource string",
    },
    "ConfigMap": {1: "metadata ObjectMeta", 2: "data {}string", 3: "binaryData {}bytes", 4: "immutable bool"},
    "Secret": {
        1: "metadata ObjectMeta",
        2: "data {}bytes",
        3: "type string",
        4: "stringData {}string",
        5: "immutable bool",
    },
    "Namespace": {1: "metadata ObjectMeta", 2: "spec NamespaceSpec", 3: "status NamespaceStatus"},
    "NamespaceSpec": {1: "finalizers []string"},
    "NamespaceStatus": {1: "phase string"},
    "ServiceAccount": {
        1: "metadata ObjectMeta",
        2: "secrets []ObjectReference",
        3: "imagePullSecrets []LocalObjectReference",
        4: "automountServiceAccountToken bool",
    },
    "LocalObjectReference": {1: "name string"},
    "ObjectReference": {
        1: "kind string",
        2: "namespace string",
        3: "name string",
        4: "uid string",
        5: "apiVersion string",
        6: "resourceVersion string",
        7: "fieldPath string",
    },
    "Event": {
        1: "metadata ObjectMeta",
        2: "involvedObject ObjectReference",
        3: "reason string",
        4: "message string",
        5: "source EventSource",
        6: "firstTimestamp time",
        7: "lastTimestamp time",
        8: "count int",
        9: "type string",
        10: "eventTime microtime",
        11: "series EventSeries",
        12: "action string",
        13: "related ObjectReference",
        14: "reportingComponent string",
        15: "reportingInstance string",
    },
    "events.k8s.io/v1 Event": {
        1: "metadata ObjectMeta",
        2: "eventTime microtime",
        3: "series EventSeries",
        4: "reportingController string",
        5: "reportingInstance string",
        6: "action string",
        7: "reason string",
        8: "regarding ObjectReference",
        9: "related ObjectReference",
        10: "note string",
        11: "type string",
        12: "deprecatedSource EventSource",
        13: "deprecatedFirstTimestamp time",
        14: "deprecatedLastTimestamp time",
        15: "deprecatedCount int",
    },
    "EventSource": {1: "component string", 2: "host string"},
    "EventSeries": {1: "count int", 2: "lastObservedTime microtime"},
    "Lease": {1: "metadata ObjectMeta", 2: "spec LeaseSpec"},
    "LeaseSpec": {
        1: "holderIdentity string",
        2: "leaseDurationSeconds int",
        3: "acquireTime microtime",
        4: "renewTime microtime",
        5: "leaseTransitions int",
        6: "strategy string",
        7: "preferredHolder string",
    },
    "SelfSubjectReview": {1: "metadata ObjectMeta"},
    "SelfSubjectAccessReview": {1: "metadata ObjectMeta", 2: "spec SelfSubjectAccessReviewSpec"},
    "SelfSubjectAccessReviewSpec": {
        1: "resourceAttributes ResourceAttributes",
        2: "nonResourceAttributes NonResourceAttributes",
    },
    "ResourceAttributes": {
        1: "namespace string",
        2: "verb string",
        3: "group string",
        4: "version string",
        5: "resource string",
        6: "subresource string",
        7: "name string",
    },
    "NonResourceAttributes": {1: "path string", 2: "verb string"},
    "SelfSubjectRulesReview": {1: "metadata ObjectMeta", 2: "spec SelfSubjectRulesReviewSpec"},
    "SelfSubjectRulesReviewSpec": {1: "namespace string"},
    "DeleteOptions": {
        1: "gracePeriodSeconds int",
        2: "preconditions Preconditions",
        3: "orphanDependents bool",
        4: "propagationPolicy string",
        5: "dryRun []string",
    },
    "Preconditions": {1: "uid string", 2: "resourceVersion string"},
}
# Pointers in Go: their zero means something.
KEPT_ZEROS = {"leaseTransitions", "holderIdentity", "immutable", "orphanDependents", "gracePeriodSeconds", "controller"}


class Undecodable(Exception):
    """Not a body that this module knows, or a broken one."""


def decode(raw: bytes) -> Body:
    """The object with its apiVersion and kind. Raises Undecodable."""
    if not raw.startswith(MAGIC):
        raise Undecodable("the body does not start with the bytes of Kubernetes' protobuf")
    try:
        envelope = _message(raw[len(MAGIC) :], "Unknown")
        about = envelope.get("typeMeta", {})
        kind, api_version = about.get("kind", ""), about.get("apiVersion", "")
        special = f"{api_version} {kind}"
        name = special if special in MESSAGES else kind
        if name not in MESSAGES:
            raise Undecodable(f"{kind} is not served as protobuf")
        body = _message(envelope.get("raw", b""), name)
    except (IndexError, UnicodeDecodeError) as error:
        raise Undecodable("the body is cut short") from error
    return {"apiVersion": api_version, "kind": kind, **body}


def _message(raw: bytes, name: str) -> Body:
    fields = MESSAGES[name]
    found: Body = {}
    for number, value in _fields(raw):
        if number not in fields:
            continue
        key, kind = fields[number].split(" ")
        if kind.startswith("[]"):
            found.setdefault(key, []).append(_value(value, kind[2:]))
        elif kind.startswith("{}"):
            entry = dict(_fields(value)) if isinstance(value, bytes) else {}
            text = entry.get(1, b"")
            found.setdefault(key, {})[_value(text, "string")] = _value(entry.get(2, b""), kind[2:])
        else:
            decoded = _value(value, kind)
            # Go writes every field that is not a pointer; what JSON would omit is left out here.
            if decoded not in ("", 0, None, {}) or key in KEPT_ZEROS:
                found[key] = decoded
    return found


def _value(value: int | bytes, kind: str) -> Any:
    if isinstance(value, int):
        signed = value - (1 << 64) if value >= 1 << 63 else value
        return bool(value) if kind == "bool" else signed
    match kind:
        case "string":
            return value.decode()
        case "bytes":
            return base64.b64encode(value).decode()
        case "raw":
            return value
        case "time" | "microtime":
            return _time(value, micro=kind == "microtime")
        case "fields":
            content = dict(_fields(value)).get(1, b"{}")
            return json.loads(content) if isinstance(content, bytes) else {}
    return _message(value, kind)


def _time(value: bytes, *, micro: bool) -> str | None:
    parts = {number: part for number, part in _fields(value) if isinstance(part, int)}
    if not parts:
        return None
    seconds = parts.get(1, 0)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds - (1 << 64) if seconds >= 1 << 63 else seconds))
    return f"{text}.{parts.get(2, 0) // 1000:06d}Z" if micro else f"{text}Z"


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield number, value
        elif wire == 2:
            length, at = _varint(raw, at)
            if at + length > len(raw):
                raise IndexError(at)
            yield number, raw[at : at + length]
            at += length
        else:
            raise Undecodable(f"wire type {wire} is not used by Kubernetes")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
