"""GET of one object and lists: versions, pages, selectors."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass

from sandbox.kubernetes import gojson
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import parse_json
from sandbox.kubernetes.options import ListOptions, parse_version
from sandbox.kubernetes.selectors import matcher
from sandbox.kubernetes.status import ApiError, bad_request, expired, version_too_large
from sandbox.kubernetes.storage import Stored
from sandbox.kubernetes.writes import Target, current_object

_FORM = "meta.k8s.io/v1"
TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True)
class Page:
    """A part of a list: `next` continues it, `remaining` counts what is left (None where selectors hide it)."""

    items: list[Stored]
    version: int
    next: str = ""
    remaining: int | None = None


def get(cluster: Cluster, target: Target, version: str) -> Stored:
    """One object. Raises ApiError 404, 500 for garbage, 504."""
    number = parse_version(version, watch=True)
    if number is not None and number > cluster.store.version:
        raise version_too_large(number, cluster.store.version)
    return current_object(cluster, target)


def list_objects(cluster: Cluster, target: Target, options: ListOptions) -> Page:
    """A list, or the page of it that was asked for. Raises ApiError 400, 410, 504."""
    store = cluster.store
    matches = matcher(options.labels, options.fields, target.resource)
    version, start = _position(cluster, options)
    if version is None:
        found = list(store.objects(target.resource.id, target.namespace))
        version = store.version
    else:
        found = store.objects_at(target.resource.id, target.namespace, version)
    selected = [stored for stored in found if _place(stored, target) >= start and matches(stored.body)]
    # A list "at any version" comes whole from the watch cache of the real server.
    limit = 0 if options.version == 0 else options.limit
    if limit <= 0 or len(selected) <= limit:
        return Page(selected, version)
    page = selected[:limit]
    remaining = None if options.labels or options.fields else len(selected) - limit
    return Page(page, version, _encoded(version, _place(page[-1], target) + "\0"), remaining)


def _position(cluster: Cluster, options: ListOptions) -> tuple[int | None, str]:
    store = cluster.store
    if options.page:
        if options.version:
            raise bad_request("specifying resource version is not allowed when using continue")
        version, start = _parse_token(options.page)
        if version == -1:
            return None, start
        if version < store.compacted:
            raise expired(TOO_OLD, _encoded(-1, start))
        return version, start
    if options.version is not None and options.version > store.version:
        raise version_too_large(options.version, store.version)
    if options.exact and options.version:
        if options.version < store.compacted:
            raise expired("The resourceVersion for the provided list is too old.")
        return options.version, ""
    return None, ""


def _place(stored: Stored, target: Target) -> str:
    """Where an object stands in a list: below its namespace, unless the list is that namespace's."""
    return stored.name if target.namespace else f"{stored.namespace}/{stored.name}"


def _encoded(version: int, start: str) -> str:
    token = {"v": _FORM, "rv": version, "start": start}
    return base64.urlsafe_b64encode(json.dumps(token, separators=(",", ":")).encode()).decode().rstrip("=")


def _parse_token(text: str) -> tuple[int, str]:
    bad = re.search(r"[^A-Za-z0-9_-]", text)
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise _invalid_token("illegal base64 data at input byte 0") from error
    if bad:
        raise _invalid_token(f"illegal base64 data at input byte {bad.start()}")
    try:
        token = parse_json(raw).value
    except gojson.Malformed as error:
        raise _invalid_token(str(error)) from error
    form, version, start = (token.get(key) for key in ("v", "rv", "start")) if isinstance(token, dict) else ("",) * 3
    if form != _FORM:
        raise _invalid_token(f"server does not recognize this encoded version {form or ''}")
    if not isinstance(version, int) or version == 0:
        raise _invalid_token(f"incorrect encoded start resourceVersion (version {_FORM})")
    if not isinstance(start, str) or not start:
        raise _invalid_token(f"encoded start key empty (version {_FORM})")
    return version, start


def _invalid_token(why: str) -> ApiError:
    return bad_request(f"invalid continue token: continue key is not valid: {why}")
