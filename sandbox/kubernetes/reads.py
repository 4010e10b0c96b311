"""GET of one object and lists: versions, pages, selectors."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from sandbox.kubernetes import gojson
from sandbox.kubernetes.cluster import Cluster
from sandbox.kubernetes.decode import parse_json
from sandbox.kubernetes.options import ListOptions, parse_version
from sandbox.kubernetes.selectors import matcher
from sandbox.kubernetes.status import ApiError, bad_request, expired, version_too_large
from sandbox.kubernetes.storage import Stored
from sandbox.kubernetes.writes import Target, current_object

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
    """One object. Raises ApiError 404, 400, 504."""
    number = parse_version(version)
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
    selected = [stored for stored in found if _after(stored, start) and matches(stored.body)]
    # A list "at any version" comes whole from the watch cache of the real server.
    limit = 0 if options.version == 0 and not options.page else options.limit
    if limit <= 0 or len(selected) <= limit:
        return Page(selected, version)
    page = selected[:limit]
    remaining = None if options.labels or options.fields else len(selected) - limit
    return Page(page, version, _token(version, page[-1]), remaining)


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


def _after(stored: Stored, start: str) -> bool:
    return not start or _place(stored) >= start


def _place(stored: Stored) -> str:
    return f"{stored.namespace}/{stored.name}"


def _token(version: int, last: Stored) -> str:
    return _encoded(version, _place(last) + "\0")


def _encoded(version: int, start: str) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": start}
    return base64.urlsafe_b64encode(json.dumps(token, separators=(",", ":")).encode()).decode().rstrip("=")


def _parse_token(text: str) -> tuple[int, str]:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        token = parse_json(raw).value
        return int(token["rv"]), str(token["start"])
    except gojson.Malformed as error:
        raise _invalid_token(str(error)) from error
    except binascii.Error as error:
        raise _invalid_token("illegal base64 data at input byte 0") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid_token("incorrect encoded start resourceVersion") from error


def _invalid_token(why: str) -> ApiError:
    return bad_request(f"invalid continue token: continue key is not valid: {why}")
