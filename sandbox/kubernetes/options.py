"""Query parameters of reads and writes, checked and complained about as the API server does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sandbox.kubernetes.status import ApiError, Cause, bad_request, invalid

META = "meta.k8s.io"
VALIDATIONS = ("", "Ignore", "Strict", "Warn")
MATCHES = ("Exact", "NotOlderThan", "")
Query = Mapping[str, str]


@dataclass(frozen=True)
class WriteOptions:
    """`manager` is the field manager (from the User-Agent where none is given)."""

    dry_run: bool
    manager: str
    validation: str
    force: bool = False


@dataclass(frozen=True)
class ListOptions:
    """What is to be read. `version` is None where the client gave none; `exact`: at that very version."""

    labels: str
    fields: str
    limit: int
    page: str
    version: int | None
    exact: bool
    watch: bool
    bookmarks: bool
    initial_events: bool
    timeout: float | None


def write_options(query: Query, kind: str, user_agent: str) -> WriteOptions:
    """Options of a CreateOptions, UpdateOptions, PatchOptions. Raises ApiError 422."""
    causes = []
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        causes.append(_unsupported("dryRun", dry_run, ("All",)))
    validation = query.get("fieldValidation", "")
    if validation not in VALIDATIONS:
        causes.append(_unsupported("fieldValidation", validation, VALIDATIONS))
    manager = query.get("fieldManager", "")
    if len(manager) > 128:
        causes.append(Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes"))
    if causes:
        raise invalid(META, kind, "", causes)
    manager = manager or user_agent.split("/")[0][:128] or "unknown"
    return WriteOptions(dry_run == "All", manager, validation or "Warn", truth(query.get("force")))


def list_options(query: Query, *, watch: bool = False) -> ListOptions:
    """Options of a ListOptions; `watch` is forced by the deprecated /watch/ paths. Raises ApiError 400, 422."""
    watch = watch or truth(query.get("watch"))
    limit = integer(query.get("limit", ""))
    timeout = integer(query.get("timeoutSeconds", ""))
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    bookmarks = truth(query.get("allowWatchBookmarks"))
    given = query.get("sendInitialEvents")
    _check_match(version, match, given, query.get("continue", ""), watch)
    number = parse_version(version, watch=watch)
    initial = watch and (truth(given) if given is not None else number in (None, 0))
    return ListOptions(
        query.get("labelSelector", ""),
        query.get("fieldSelector", ""),
        limit,
        query.get("continue", ""),
        number,
        match == "Exact" and not watch,
        watch,
        bookmarks,
        initial,
        timeout if timeout > 0 else None,
    )


def named(chosen: ListOptions, name: str) -> ListOptions:
    """The options narrowed to one object, for the deprecated watch of an item."""
    terms = [term for term in (chosen.fields, f"metadata.name={name}") if term]
    return replace(chosen, fields=",".join(terms))


def parse_version(text: str, *, watch: bool = False) -> int | None:
    """A resourceVersion; None if there is none. Garbage is a 400 on lists and, as recorded, a 500 on watches."""
    if text == "":
        return None
    if re.fullmatch(r"[0-9]+", text):
        return int(text)
    why = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
    raise ApiError(500, "", why) if watch else bad_request(f"invalid resource version: {why}")


def truth(value: str | None) -> bool:
    """A boolean query parameter: there, and neither 0 nor false."""
    return value is not None and value.lower() not in ("false", "0")


def integer(text: str) -> int:
    if text == "":
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _check_match(version: str, match: str, initial: str | None, page: str, watch: bool) -> None:
    causes = _watch_faults(match, initial) if watch else _list_faults(version, match, initial)
    if match and page:
        causes.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
    if causes:
        raise invalid(META, "ListOptions", "", causes)


def _watch_faults(match: str, initial: str | None) -> list[Cause]:
    causes = []
    if initial is not None and match != "NotOlderThan":
        causes.append(_forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match and initial is None:
        causes.append(_forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
    if match and match != "NotOlderThan":
        causes.append(_unsupported("resourceVersionMatch", match, ("NotOlderThan",)))
    return causes


def _list_faults(version: str, match: str, initial: str | None) -> list[Cause]:
    causes = []
    if match and not version:
        causes.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match not in MATCHES:
        causes.append(_unsupported("resourceVersionMatch", match, MATCHES))
    if match == "Exact" and version == "0":
        causes.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if initial is not None:
        why = "Forbidden: sendInitialEvents is forbidden for list"
        causes.append(Cause("sendInitialEvents", "FieldValueForbidden", why))
    return causes


def _forbidden(why: str) -> Cause:
    return Cause("resourceVersionMatch", "FieldValueForbidden", f"Forbidden: {why}")


def _unsupported(field: str, value: str, allowed: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{item}"' for item in allowed)
    return Cause(field, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {listed}')
