"""What a CRD asks beyond types and bounds: the rules of HTTPRoute's, written there in CEL, that people run into.

Source: Gateway API 1.5, config/crd/standard. A cluster has some more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sandbox.kubernetes.registry import Resource
from sandbox.kubernetes.status import Cause

Body = dict[str, Any]
# Reasons after which the API server does not look at rules any more.
BLOCKING = (
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
)
UNCHECKED = (
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation"
)
ABSOLUTE = "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"
CONFIGURATIONS = (
    *("RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect"),
    *("URLRewrite", "ExtensionRef", "CORS"),
)


def faults(resource: Resource, body: Body, found: Sequence[Cause]) -> list[Cause]:
    """The broken rules of an object of which `found` is known to be wrong already."""
    if resource.kind != "HTTPRoute":
        return []
    if any(cause.reason in BLOCKING for cause in found):
        return [Cause("<nil>", "FieldValueInvalid", UNCHECKED)]
    return [Cause(path, "FieldValueInvalid", f"Invalid value: {why}") for path, why in _of_route(body["spec"])]


def _of_route(spec: Body) -> Iterator[tuple[str, str]]:
    for index, rule in enumerate(spec.get("rules") or ()):
        at = f"spec.rules[{index}]"
        for number, match in enumerate(rule.get("matches") or ()):
            path = match.get("path") or {}
            if path.get("type") in ("Exact", "PathPrefix") and not path.get("value", "/").startswith("/"):
                yield f"{at}.matches[{number}].path", ABSOLUTE
        for number, backend in enumerate(rule.get("backendRefs") or ()):
            if (backend.get("group"), backend.get("kind")) == ("", "Service") and "port" not in backend:
                yield f"{at}.backendRefs[{number}]", "Must have port for Service reference"
        for number, filtering in enumerate(rule.get("filters") or ()):
            for kind in CONFIGURATIONS:
                field = "cors" if kind == "CORS" else kind[:1].lower() + kind[1:]
                field = "urlRewrite" if kind == "URLRewrite" else field
                wanted = filtering.get("type") == kind
                if wanted and field not in filtering:
                    why = f"filter.{field} must be specified for {kind} filter.type"
                    yield f"{at}.filters[{number}]", why
                elif not wanted and field in filtering:
                    why = f"filter.{field} must be nil if the filter.type is not {kind}"
                    yield f"{at}.filters[{number}]", why
