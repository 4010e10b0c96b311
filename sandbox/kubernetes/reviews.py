"""Reviews: who am I, may I. Everyone with a token may."""

from __future__ import annotations

from typing import Any

from sandbox.kubernetes.auth import User

Body = dict[str, Any]


def self_subject_review(body: Body, user: User, now: str) -> Body:
    meta = {"creationTimestamp": now}
    head = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": meta}
    return head | {"status": {"userInfo": user.info()}}


def self_subject_access_review(body: Body, user: User, now: str) -> Body:
    head = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": body.get("metadata") or {},
    }
    return head | {"spec": body.get("spec") or {}, "status": {"allowed": True}}


def self_subject_rules_review(body: Body, user: User, now: str) -> Body:
    head = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    paths = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
    status = {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
    return head | {"spec": body.get("spec") or {}, "status": status}


ANSWERS = {
    ("authentication.k8s.io", "selfsubjectreviews"): self_subject_review,
    ("authorization.k8s.io", "selfsubjectaccessreviews"): self_subject_access_review,
    ("authorization.k8s.io", "selfsubjectrulesreviews"): self_subject_rules_review,
}
