"""The rights of deploy/rbac, and whether they allow a request: what the clusters of these tests enforce."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from kanary.operations import Request

ROLES = Path(__file__).parents[2] / "deploy" / "rbac" / "roles.yaml"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# What every user may ask about himself (system:basic-user).
OWN = "/apis/auth"
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v[^/]+(?:/namespaces/[^/]+)?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?"
)


class Right(NamedTuple):
    """One verb on one kind of object; `resource` with its subresource, as in a rule."""

    verb: str
    group: str
    resource: str


@cache
def rights(role: str) -> frozenset[Right]:
    """Everything that a ClusterRole allows."""
    documents = yaml.safe_load_all(ROLES.read_text(encoding="utf-8"))
    (rules,) = (found["rules"] for found in documents if found["metadata"]["name"] == role)
    return frozenset(
        Right(verb, group, resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def needed(request: Request) -> Right:
    """The right that the API server asks for."""
    found = _PATH.fullmatch(request.path)
    assert found is not None, request.path
    resource = f"{found['resource']}/{found['sub']}" if found["sub"] else found["resource"]
    verb = VERBS.get(request.method) or ("get" if found["name"] else "list")
    if "watch" in request.params:
        verb = "watch"
    return Right(verb, found["group"] or "", resource)


def allowed(request: Request, role: str = "kanary-edit") -> None:
    """Fails where the role does not allow the request."""
    if not request.path.startswith(OWN):
        right = needed(request)
        assert right in rights(role), f"deploy/rbac/roles.yaml: {role} may not {right}"
