"""The rules for names, labels, annotations, finalizers and owners of any object; worded as apimachinery words them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.kubernetes.status import Cause
from sandbox.kubernetes.validation import quote

Body = dict[str, Any]
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
DNS_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
MAX_ANNOTATIONS = 256 * 1024

SUBDOMAIN_MESSAGE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    f"and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"
)
LABEL_MESSAGE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    f"with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
)
DNS_1035_MESSAGE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    f"and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '{DNS_1035}')"
)
QUALIFIED_MESSAGE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    f"character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{QUALIFIED}')"
)
VALUE_MESSAGE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{VALUE}')"
)
Rule = Callable[[str], list[str]]


def _rule(pattern: str, message: str, longest: int, unit: str = "bytes") -> Rule:
    def check(value: str) -> list[str]:
        found = [] if len(value) <= longest else [f"must be no more than {longest} {unit}"]
        return found if re.fullmatch(pattern, value) else [*found, message]

    return check


subdomain = _rule(SUBDOMAIN, SUBDOMAIN_MESSAGE, 253, "characters")
label = _rule(LABEL, LABEL_MESSAGE, 63, "characters")
dns_1035 = _rule(DNS_1035, DNS_1035_MESSAGE, 63, "characters")
label_value = _rule(VALUE, VALUE_MESSAGE, 63)


def qualified_name(value: str, *, label: bool = False) -> list[str]:
    """Faults of a label key, annotation key or finalizer: an optional DNS prefix, a slash, a name."""
    if value.count("/") > 1:
        what = "a valid label key" if label else "a qualified name"
        rest = QUALIFIED_MESSAGE.removeprefix("name part")
        return [f"{what}{rest} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    prefix, slash, name = value.rpartition("/")
    found = []
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        found += [f"prefix part {fault}" for fault in subdomain(prefix)]
    if not name:
        found.append("name part must be non-empty")
    elif len(name) > 63:
        found.append("name part must be no more than 63 bytes")
    if not re.fullmatch(QUALIFIED, name):
        found.append(QUALIFIED_MESSAGE)
    return found


def _any(value: str) -> list[str]:
    return []


def rule_for(kind: str) -> Rule:
    """The rule that names of a kind follow."""
    return {"Namespace": label, "Service": dns_1035, "Event": _any}.get(kind, subdomain)


def invalid(field: str, value: Any, why: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {quote(value)}: {why}")


def faults(metadata: Body, kind: str) -> list[Cause]:
    """Faults of an object's metadata, its name included."""
    found = []
    name = metadata.get("name", "")
    if not name:
        required = "Required value: name or generateName is required"
        found.append(Cause("metadata.name", "FieldValueRequired", required))
    else:
        prefix = metadata.get("generateName")
        if prefix:
            found += [invalid("metadata.generateName", prefix, fault) for fault in _prefix_faults(prefix, kind)]
        found += [invalid("metadata.name", name, fault) for fault in _name_faults(name, kind)]
    found += label_faults(metadata.get("labels") or {}, "metadata.labels")
    found += _annotation_faults(metadata.get("annotations") or {})
    for finalizer in metadata.get("finalizers") or ():
        found += [invalid("metadata.finalizers", finalizer, fault) for fault in qualified_name(finalizer)]
    if {"orphan", "foregroundDeletion"} <= set(metadata.get("finalizers") or ()):
        why = "finalizer orphan and foregroundDeletion cannot be both set"
        found.append(invalid("metadata.finalizers", metadata["finalizers"], why))
    found += _owner_faults(metadata.get("ownerReferences") or [])
    return found


def warnings(metadata: Body, old: Body | None) -> list[str]:
    """What the API server finds unwise in the metadata of a custom object that it takes."""
    known = (old or {}).get("finalizers") or ()
    return [
        f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name to avoid accidental conflicts with '
        "other finalizer writers"
        for name in metadata.get("finalizers") or ()
        if "/" not in name and name not in known and name not in ("orphan", "foregroundDeletion", "kubernetes")
    ]


def _name_faults(name: str, kind: str) -> list[str]:
    faults = rule_for(kind)(name)
    return ["must not contain dots"] if kind == "Namespace" and "." in name and faults else faults


def _prefix_faults(prefix: str, kind: str) -> list[str]:
    """A dash at the end of a prefix is fine: letters follow."""
    return _name_faults(f"{prefix[:-1]}a" if prefix.endswith("-") and len(prefix) > 1 else prefix, kind)


def label_faults(labels: Mapping[str, str], field: str) -> list[Cause]:
    found = []
    for key, value in labels.items():
        found += [invalid(field, key, fault) for fault in qualified_name(key, label=True)]
        found += [invalid(field, value, fault) for fault in label_value(value)]
    return found


def _annotation_faults(annotations: Mapping[str, str]) -> list[Cause]:
    found = []
    for key in annotations:
        found += [invalid("metadata.annotations", key, fault) for fault in qualified_name(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"
        found.append(Cause("metadata.annotations", "FieldValueTooLong", message))
    return found


def _owner_faults(owners: list[Body]) -> list[Cause]:
    found = []
    for owner in owners:
        version = owner.get("apiVersion", "")
        if not version or version.count("/") > 1:
            found.append(invalid("metadata.ownerReferences.apiVersion", version, "version must not be empty"))
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                found.append(invalid(f"metadata.ownerReferences.{field}", "", "must not be empty"))
        if (version, owner.get("kind")) == ("v1", "Event"):
            why = "/v1, Kind=Event is disallowed from being an owner"
            found.append(invalid("metadata.ownerReferences", _in_gos_order(owner), why))
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        first, second = (f"{o.get('kind')}/{o.get('name')}" for o in controllers[:2])
        found_in = f'Found "true" in references for {first} and {second}'
        why = f"Only one reference can have Controller set to true. {found_in}"
        found.append(invalid("metadata.ownerReferences", [_in_gos_order(owner) for owner in owners], why))
    return found


def _in_gos_order(owner: Body) -> Body:
    fields = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
    return {field: owner[field] for field in fields if field in owner}
