"""Query parameters of reads and writes, checked and complained about as the API server does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
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
    """What is to be read. `version` is None where the client gave none; `exact`: at that very version.

    A page at a version without a match is exact, too, as in the days before there were matches.
    """

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


def first_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Query parameters; of one that is given several times the first value counts."""
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def write_options(query: Query, kind: str, user_agent: str, applies: bool = False) -> WriteOptions:
    """Options of a CreateOptions, UpdateOptions, PatchOptions (`applies`: of an apply). Raises ApiError 422."""
    causes = []
    if "force" in query and kind == "PatchOptions" and not applies:
        causes.append(Cause("force", "FieldValueForbidden", "Forbidden: may not be specified for non-apply patch"))
    validation = query.get("fieldValidation", "")
    dry_run = [query["dryRun"]] if "dryRun" in query else []
    causes += dry_run_faults(dry_run)
    if validation not in VALIDATIONS:
        causes.append(_unsupported("fieldValidation", validation, VALIDATIONS))
    manager = query.get("fieldManager", "")
    causes += _manager_faults(manager)
    if causes:
        raise invalid(META, kind, "", causes)
    manager = manager or user_agent.split("/")[0][:128] or "unknown"
    return WriteOptions(bool(dry_run), manager, validation or "Warn", truth(query.get("force")))


def dry_run_faults(given: list[str]) -> list[Cause]:
    """What is wrong with the `dryRun` of any options; the one thing that it may be is All."""
    if all(value == "All" for value in given):
        return []
    message = f'Unsupported value: {json.dumps(given)}: supported values: "All"'
    return [Cause("dryRun", "FieldValueNotSupported", message)]


def _manager_faults(manager: str) -> list[Cause]:
    found = []
    if len(manager.encode()) > 128:
        found.append(Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes"))
    bad = next((position for position, letter in enumerate(manager) if not letter.isprintable()), None)
    if bad is not None:
        shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in manager)
        why = f"invalid character U+{ord(manager[bad]):04X} (at position {bad})"
        found.append(Cause("fieldManager", "FieldValueInvalid", f'Invalid value: "{shown}": {why}'))
    return found


def list_options(query: Query, *, watch: bool = False) -> ListOptions:
    """Options of a ListOptions; `watch` is forced by the deprecated /watch/ paths. Raises ApiError 400, 422."""
    watch = watch or truth(query.get("watch"))
    limit = integer(query.get("limit", ""))
    timeout = integer(query.get("timeoutSeconds", ""))
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    bookmarks = truth(query.get("allowWatchBookmarks"))
    given = query.get("sendInitialEvents")
    _check_match(version, match, given, query.get("continue", ""), watch)
    legacy = not match and limit > 0 and version not in ("", "0") and not query.get("continue")
    number = parse_version(version, watch=watch)
    initial = watch and (truth(given) if given is not None else number in (None, 0))
    return ListOptions(
        query.get("labelSelector", ""),
        query.get("fieldSelector", ""),
        limit,
        query.get("continue", ""),
        number,
        (match == "Exact" or legacy) and not watch,
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
    if not -(2**63) <= int(text) < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return int(text)


def _check_match(version: str, match: str, initial: str | None, page: str, watch: bool) -> None:
    causes = _watch_faults(match, initial) if watch else _list_faults(version, match, initial)
    # A watch from the start has a match of its own, which its request does not show.
    if page and (match or (watch and initial is None and version in ("", "0"))):
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
