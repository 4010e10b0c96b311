"""What the API says it serves: groups, versions, resources, in the old form and the aggregated one; its version."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sandbox.kubernetes.registry import GROUP_VERSIONS, Resource, of_version

Body = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
SUBRESOURCE_VERBS = ["get", "patch", "update"]
VERSION: Body = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "python",
    "platform": "linux/amd64",
}
# (group, resource, kind): things that are asked, not stored.
REVIEWS = (
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
)


def api_versions(server: str) -> Body:
    """GET /api."""
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def groups() -> Body:
    """GET /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name, _ in GROUP_VERSIONS]}


def group(name: str) -> Body | None:
    """GET /apis/{group}; None if there is no such group."""
    if name not in dict(GROUP_VERSIONS):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def _group(name: str) -> Body:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in dict(GROUP_VERSIONS)[name]]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resources(group_name: str, version: str) -> Body | None:
    """GET /apis/{group}/{version}; None if it is not served."""
    if version not in (dict(GROUP_VERSIONS).get(group_name, ()) if group_name else ("v1",)):
        return None
    entries: list[Body] = []
    custom = False
    for resource in of_version(group_name, version):
        custom = custom or resource.custom
        entries += _entries(resource)
    for owner, plural, kind in REVIEWS:
        if owner == group_name:
            entries.append(_entry(plural, kind.lower(), False, kind, ["create"]))
    head: Body = {"kind": "APIResourceList"} | ({"apiVersion": "v1"} if group_name else {})
    return head | {"groupVersion": f"{group_name}/{version}" if group_name else version, "resources": entries}


def _entry(name: str, singular: str, namespaced: bool, kind: str, verbs: list[str]) -> Body:
    return {"name": name, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": verbs}


def _entries(resource: Resource) -> list[Body]:
    entry = _entry(resource.plural, resource.singular, resource.namespaced, resource.kind, list(resource.all_verbs))
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.hash:
        entry["storageVersionHash"] = resource.hash
    found = [entry]
    if resource.kind == "Namespace":
        found.append(_entry("namespaces/finalize", "", False, "Namespace", ["update"]))
    if resource.log:
        found.append(_entry(f"{resource.plural}/log", "", True, resource.kind, ["get"]))
    if resource.status:
        # The short name must not stand here: kubectl would take the subresource for the resource.
        found.append(_entry(f"{resource.plural}/status", "", resource.namespaced, resource.kind, SUBRESOURCE_VERBS))
    return found


def aggregated(core: bool) -> Body:
    """GET /api or /apis in the aggregated form."""
    wanted = (("", ("v1",)),) if core else GROUP_VERSIONS
    items = []
    for name, versions in wanted:
        listed = [
            {"version": version, "resources": _aggregated_resources(name, version), "freshness": "Current"}
            for version in versions
        ]
        items.append({"metadata": {"name": name} if name else {}, "versions": listed})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_resources(name: str, version: str) -> list[Body]:
    found = [_aggregated(resource) for resource in of_version(name, version)]
    for owner, plural, kind in REVIEWS:
        if owner == name:
            review = {"group": name, "version": version, "kind": kind}
            entry: Body = {"resource": plural, "responseKind": review, "scope": "Cluster"}
            found.append(entry | {"singularResource": kind.lower(), "verbs": ["create"]})
    return found


def _aggregated(resource: Resource) -> Body:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    entry: Body = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.all_verbs),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.status:
        entry["subresources"] = [{"subresource": "status", "responseKind": kind, "verbs": SUBRESOURCE_VERBS}]
    return entry


def etag(value: Body) -> str:
    """A strong entity tag of a document."""
    return hashlib.sha512(json.dumps(value, sort_keys=True).encode()).hexdigest().upper()[:128]
