"""OpenAPI documents: v3 by group and version, from which kubectl validates and explains, and v2 in protobuf for apply.

v2 names the kinds and little more: kubectl 1.3x reads it before a client-side apply and takes merge keys from v3.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import Any

from sandbox.kubernetes import schema
from sandbox.kubernetes.registry import GROUP_VERSIONS, RESOURCES, Resource, of_version

Body = dict[str, Any]
META = "io.k8s.apimachinery.pkg.apis.meta.v1"
# Names that other tools know; every other model keeps its own.
META_MODELS = {
    "V1ObjectMeta": "ObjectMeta",
    "V1OwnerReference": "OwnerReference",
    "V1ManagedFieldsEntry": "ManagedFieldsEntry",
}
MODELS = "io.kanary.models"
MODEL = re.compile(r"io\.kanary\.models\.(\w+)")
CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
API_VERSION_TEXT = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    f"schemas to the latest internal value, and may reject unrecognized values. More info: {CONVENTIONS}#resources"
)
KIND_TEXT = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
    f"endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: {CONVENTIONS}#types-kinds"
)
METADATA_TEXT = (
    "Standard object's metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
OBJECT_TYPES = ["application/json", "application/yaml"]
WRITE_PARAMETERS = ["dryRun", "fieldManager", "fieldValidation"]
PATCH_TYPES = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]
DELETE_PARAMETERS = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
]
LIST_PARAMETERS = [
    *("allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion"),
    *("resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch"),
]
SIMPLE: Body = {
    "DeleteOptions": {"type": "object", "properties": {"preconditions": {"type": "object"}}},
    "FieldsV1": {"type": "object"},
    "ListMeta": {
        "type": "object",
        "properties": {"continue": {"type": "string"}, "resourceVersion": {"type": "string"}},
    },
    "Patch": {"type": "object"},
    "Preconditions": {
        "type": "object",
        "properties": {"uid": {"type": "string"}, "resourceVersion": {"type": "string"}},
    },
    "ShardInfo": {"type": "object"},
    "Status": {"type": "object", "properties": {"status": {"type": "string"}, "message": {"type": "string"}}},
    "StatusCause": {"type": "object"},
    "StatusDetails": {"type": "object"},
    "Time": {"type": "string", "format": "date-time"},
}


def index() -> Body:
    """GET /openapi/v3."""
    paths = {"version": {"serverRelativeURL": "/openapi/v3/version?hash=0"}}
    for group, version in _served():
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest(document(group, version))}"}
    return {"paths": dict(sorted(paths.items()))}


@cache
def digest(content: bytes) -> str:
    """What kubectl caches a document under."""
    return hashlib.sha512(content).hexdigest().upper()


def _served() -> list[tuple[str, str]]:
    return [("", "v1"), *((group, version) for group, versions in GROUP_VERSIONS for version in versions)]


@cache
def document(group: str, version: str) -> bytes:
    """GET /openapi/v3/...; raises KeyError for what is not served."""
    if (group, version) not in _served():
        raise KeyError(f"{group}/{version}")
    resources = of_version(group, version)
    components: Body = {f"{META}.{name}": value for name, value in SIMPLE.items()}
    paths: Body = {}
    for resource in resources:
        paths |= _paths(resource)
        components |= _components(resource)
    title = "Kubernetes CRD Swagger" if any(r.custom for r in resources) else "Kubernetes"
    made = {"openapi": "3.0.0", "info": {"title": title, "version": "v0.1.0"}}
    text = json.dumps(made | {"paths": paths, "components": {"schemas": components}}, separators=(",", ":"))
    return MODEL.sub(_shown_as_object if any(r.custom for r in resources) else _shown_as_type, text).encode()


def _shown_as_object(found: re.Match[str]) -> str:
    """`kubectl explain` shows what follows the last dot; of a CRD, whose schema has no names in it, that is Object."""
    return f"{found[0]}.Object"


def _shown_as_type(found: re.Match[str]) -> str:
    """Go's name of the type, without the version that the Python models begin with."""
    bare = re.sub(r"^(Core|Events)?V[0-9]+", "", found[1])
    return f"{MODELS}.{found[1]}.{bare}"


def model_name(resource: Resource) -> str:
    """The component that describes a kind, e.g. io.kserve.serving.v1beta1.InferenceService."""
    if not resource.group or "." not in resource.group:
        return f"io.k8s.api.{resource.group or 'core'}.{resource.version}.{resource.kind}"
    parts = resource.group.split(".")
    if resource.group.endswith(".k8s.io") and not resource.custom:
        return f"io.k8s.api.{parts[0]}.{resource.version}.{resource.kind}"
    return ".".join([*reversed(parts), resource.version, resource.kind])


def _component_name(name: str) -> str:
    return f"{META}.{META_MODELS[name]}" if name in META_MODELS else f"{MODELS}.{name}"


def _components(resource: Resource) -> Body:
    found: Body = {}
    queue: list[str] = []
    top = _renamed(schema.definitions()[resource.definition], queue)
    properties = dict(top.get("properties", {}))
    properties["apiVersion"] = {"type": "string", "description": API_VERSION_TEXT}
    properties["kind"] = {"type": "string", "description": KIND_TEXT}
    properties["metadata"] = {"description": METADATA_TEXT, "allOf": [_reference("V1ObjectMeta")]}
    queue.append("V1ObjectMeta")
    kind = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    top |= {"properties": properties, "x-kubernetes-group-version-kind": [kind]}
    found[model_name(resource)] = top
    items = {"type": "array", "items": {"$ref": f"{schema.REFERENCE}{model_name(resource)}"}}
    found[f"{model_name(resource)}List"] = {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "items": items,
            "metadata": {"type": "object"},
        },
        "x-kubernetes-group-version-kind": [kind | {"kind": f"{resource.kind}List"}],
    }
    while queue:
        name = queue.pop()
        if _component_name(name) not in found:
            found[_component_name(name)] = _renamed(schema.definitions()[name], queue)
    return found


def _renamed(value: Any, queue: list[str]) -> Any:
    """A schema with its references renamed and our own extensions turned into Kubernetes'."""
    if isinstance(value, list):
        return [_renamed(item, queue) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        name = value["$ref"].removeprefix(schema.REFERENCE)
        queue.append(name)
        others = {key: item for key, item in value.items() if key != "$ref"}
        return others | {"allOf": [_reference(name)]} if others else _reference(name)
    made = {key: _renamed(item, queue) for key, item in value.items() if key != "x-builtin-list-map-keys"}
    keys = value.get("x-builtin-list-map-keys")
    if isinstance(keys, list):
        # kubectl takes strategic merge keys from these.
        made |= {"x-kubernetes-patch-merge-key": keys[0], "x-kubernetes-patch-strategy": "merge"}
    return made


def _reference(name: str) -> Body:
    return {"$ref": f"{schema.REFERENCE}{_component_name(name)}"}


def _paths(resource: Resource) -> Body:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    camel = "".join(part.capitalize() for part in (resource.group or "core").replace("-", ".").split("."))
    suffix = f"{camel}{resource.version.capitalize()}{'Namespaced' if resource.namespaced else ''}{resource.kind}"
    inside = (
        f"{root}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{root}/{resource.plural}"
    )
    shared = ["namespace", "pretty"] if resource.namespaced else ["pretty"]
    patch_types = PATCH_TYPES if resource.custom else sorted([*PATCH_TYPES, "application/strategic-merge-patch+json"])
    collection = {
        "get": _operation(resource, f"list{suffix}", "list", LIST_PARAMETERS),
        "post": _operation(resource, f"create{suffix}", "post", WRITE_PARAMETERS, OBJECT_TYPES),
        "delete": _operation(
            resource, f"deleteCollection{suffix}", "deletecollection", DELETE_PARAMETERS, OBJECT_TYPES
        ),
        "parameters": _parameters(shared),
    }
    item = {
        "get": _operation(resource, f"read{suffix}", "get", ["resourceVersion"]),
        "put": _operation(resource, f"replace{suffix}", "put", WRITE_PARAMETERS, OBJECT_TYPES),
        "delete": _operation(resource, f"delete{suffix}", "delete", DELETE_PARAMETERS, OBJECT_TYPES),
        "patch": _operation(resource, f"patch{suffix}", "patch", [*WRITE_PARAMETERS, "force"], patch_types),
        "parameters": _parameters(["name", *shared]),
    }
    found: Body = {inside: collection, f"{inside}/{{name}}": item}
    if resource.namespaced:
        list_all = _operation(
            resource,
            f"list{camel}{resource.version.capitalize()}{resource.kind}ForAllNamespaces",
            "list",
            LIST_PARAMETERS,
        )
        found[f"{root}/{resource.plural}"] = {"get": list_all}
    if resource.status:
        found[f"{inside}/{{name}}/status"] = {key: item[key] for key in ("get", "put", "patch", "parameters")}
    return found


def _operation(
    resource: Resource, name: str, action: str, parameters: list[str], types: list[str] | None = None
) -> Body:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    made: Body = {
        "operationId": name,
        "parameters": _parameters(parameters),
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind,
    }
    if types:
        body = {"schema": {"$ref": f"{schema.REFERENCE}{model_name(resource)}"}}
        made["requestBody"] = {"content": dict.fromkeys(types, body)}
    return made


def _parameters(names: list[str]) -> list[Body]:
    path = ("name", "namespace")
    return [
        {"name": n, "in": "path" if n in path else "query", "schema": {"type": "string"}}
        | ({"required": True} if n in path else {})
        for n in names
    ]


@cache
def v2_protobuf() -> bytes:
    """GET /openapi/v2 as gnostic's openapi.v2.Document: every kind as an open object with its name."""
    info = _message((1, b"Kubernetes"), (2, b"v1.36.2"))
    named = b"".join(_message((1, _named_kind(resource))) for resource in RESOURCES)
    return _message((1, b"2.0"), (2, info), (8, b""), (9, named))


def v2_json() -> Body:
    """GET /openapi/v2 as JSON."""
    kinds = {model_name(resource): _v2_kind(resource) for resource in RESOURCES}
    return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": {}, "definitions": kinds}


def _v2_kind(resource: Resource) -> Body:
    kind = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    return {"type": "object", "x-kubernetes-group-version-kind": [kind]}


def _named_kind(resource: Resource) -> bytes:
    text = f'- group: "{resource.group}"\n  kind: {resource.kind}\n  version: {resource.version}\n'
    extension = _message((1, b"x-kubernetes-group-version-kind"), (2, _message((2, text.encode()))))
    # Schema: type = 16 (TypeItem.value = 1), vendor_extension = 31 (NamedAny: name = 1, value = 2 (Any: yaml = 2)).
    described = _message((16, _message((1, b"object"))), (31, extension))
    return _message((1, model_name(resource).encode()), (2, described))


def _message(*fields: tuple[int, bytes]) -> bytes:
    """Length-delimited protobuf fields."""
    return b"".join(_varint(number << 3 | 2) + _varint(len(value)) + value for number, value in fields)


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
