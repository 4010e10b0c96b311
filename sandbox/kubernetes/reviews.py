"""Reviews: who am I, may I. Everyone with a token may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandbox.kubernetes import schema
from sandbox.kubernetes.auth import User
from sandbox.kubernetes.decode import SCHEME, decode_object
from sandbox.kubernetes.options import WriteOptions
from sandbox.kubernetes.pruning import cannot_handle, check_go_types, drop_nulls, prune
from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import ApiError, Cause, bad_request, invalid
from sandbox.kubernetes.validation import quote

Body = dict[str, Any]
AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"
BOTH = "cannot be specified in combination with resourceAttributes"
NEITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


@dataclass(frozen=True)
class Asked:
    """A review as it was sent, its unknown fields gone; `user` sent it."""

    resource: Resource
    body: Body
    user: User
    now: str

    def answer(self, metadata: Body, **fields: Any) -> Body:
        return {"kind": self.resource.kind, "apiVersion": self.resource.api_version, "metadata": metadata, **fields}


def answer(
    group: str, plural: str, raw: bytes, media: str, user: User, now: str, options: WriteOptions
) -> tuple[Body, list[str]]:
    """What a review finds, and the warnings. Raises ApiError 400, 415, 422."""
    kind, reply = ANSWERS[group, plural]
    resource = Resource(group, "v1", plural, kind, f"V1{kind}")
    value = decode_object(raw, media, resource).value
    if value["kind"] != kind:
        why = f'no kind "{value["kind"]}" is registered for version "{value["apiVersion"]}" in scheme "{SCHEME}"'
        raise bad_request(f'{value["kind"]} in version "v1" cannot be handled as a {kind}: {why}')
    node = schema.load(resource.definition, True)
    body = {key: item for key, item in value.items() if key not in ("apiVersion", "kind")}
    check_go_types(body, node, resource, kind)
    unknown: list[str] = []
    body = drop_nulls(prune(body, node, unknown))
    complaints = [f'unknown field "{path}"' for path in unknown]
    if complaints and options.validation == "Strict":
        raise cannot_handle(kind, "v1", f"strict decoding error: {', '.join(complaints)}")
    found = reply(Asked(resource, body, user, now))
    return found, complaints if options.validation == "Warn" else []


def self_subject_review(asked: Asked) -> Body:
    return asked.answer({"creationTimestamp": asked.now}, status={"userInfo": asked.user.info()})


def self_subject_access_review(asked: Asked) -> Body:
    spec, metadata = asked.body.get("spec") or {}, asked.body.get("metadata") or {}
    path = spec.get("nonResourceAttributes")
    if path is not None and spec.get("resourceAttributes") is not None:
        shown = quote({"Path": path.get("path", ""), "Verb": path.get("verb", "")})
        raise _invalid(Cause("spec.nonResourceAttributes", "FieldValueInvalid", f"Invalid value: {shown}: {BOTH}"))
    if path is None and spec.get("resourceAttributes") is None:
        raise _invalid(Cause("spec.resourceAttributes", "FieldValueInvalid", f"Invalid value: null: {NEITHER}"))
    if metadata:
        why = f"Invalid value: {quote(metadata)}: must be empty except for managedFields"
        raise _invalid(Cause("metadata", "FieldValueInvalid", why))
    return asked.answer({}, spec=spec, status={"allowed": True})


def self_subject_rules_review(asked: Asked) -> Body:
    spec = asked.body.get("spec") or {}
    if not spec.get("namespace"):
        raise bad_request("no namespace on request")
    rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    paths = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
    return asked.answer({}, spec={}, status={"resourceRules": rules, "nonResourceRules": paths, "incomplete": False})


def _invalid(cause: Cause) -> ApiError:
    # Sic: the real server names no kind.
    return invalid(AUTHORIZATION, "", "", [cause])


ANSWERS = {
    (AUTHENTICATION, "selfsubjectreviews"): ("SelfSubjectReview", self_subject_review),
    (AUTHORIZATION, "selfsubjectaccessreviews"): ("SelfSubjectAccessReview", self_subject_access_review),
    (AUTHORIZATION, "selfsubjectrulesreviews"): ("SelfSubjectRulesReview", self_subject_rules_review),
}
