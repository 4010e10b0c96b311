"""Answers that are refusals: one exception, and the Status objects that kube-apiserver sends for each reason.

Source: k8s.io/apimachinery api/errors and the recordings of a 1.36 server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.errors import SandboxError

Body = dict[str, Any]


@dataclass(frozen=True)
class Cause:
    """One fault in one field: `reason` is the API's FieldValue* word, `message` what kubectl shows after the field."""

    field: str
    reason: str
    message: str


class ApiError(SandboxError):
    """A request that the API refuses. `body` is what is sent: a Status, or plain text when `text` is given."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        text: str = "",
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details
        self.text = text
        self.headers = dict(headers or {})
        self.metadata = dict(metadata or {})
        self.warnings = list(warnings)

    def body(self) -> Body:
        """The Status object."""
        status: Body = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = dict(self.details)
        status["code"] = self.code
        return status


def details(group: str, kind: str, name: str = "") -> Body:
    """The `details` of a Status: empty parts are left out, as Go's omitempty does."""
    return {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}


def qualified(group: str, kind: str) -> str:
    return f"{kind}.{group}" if group else kind


def not_found(group: str, plural: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{qualified(group, plural)} "{name}" not found', details(group, plural, name))


def page_not_found() -> ApiError:
    return ApiError(404, "NotFound", "404 page not found", text="404 page not found\n")


def already_exists(group: str, plural: str, name: str, prefix: str = "") -> ApiError:
    message = f'{prefix}{qualified(group, plural)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(group, plural, name))


def conflict(group: str, kind: str, name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on {qualified(group, kind)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(group, kind, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 with one cause a fault; the message names each distinct fault once."""
    faults = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    joined = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    message = f'{qualified(group, kind)} "{name}" is invalid: {joined}'
    return ApiError(422, "Invalid", message, details(group, kind, name) | {"causes": listed})


def bad_request(message: str, warnings: Sequence[str] = ()) -> ApiError:
    return ApiError(400, "BadRequest", message, warnings=warnings)


def internal(message: str) -> ApiError:
    """500 the way the API server wraps an error that nobody gave a reason."""
    return ApiError(500, "", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(message: str, about: Mapping[str, Any]) -> ApiError:
    return ApiError(403, "Forbidden", message, about)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable(message: str) -> ApiError:
    return ApiError(406, "NotAcceptable", message)


def verb_not_supported(group: str, plural: str, verb: str) -> ApiError:
    message = f'{verb} is not supported on resources of kind "{qualified(group, plural)}"'
    return ApiError(405, "MethodNotAllowed", message, details(group, plural))


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def expired(message: str, next_page: str = "") -> ApiError:
    return ApiError(410, "Expired", message, metadata={"continue": next_page} if next_page else None)


def version_too_large(asked: int, current: int) -> ApiError:
    about = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return ApiError(504, "Timeout", message, about, headers={"Retry-After": "1"})


def success(group: str, plural: str, name: str, uid: str) -> Body:
    """The Status that answers a DELETE which took effect."""
    about = details(group, plural, name) | {"uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}
