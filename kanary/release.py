"""What Kanary remembers of a service: intent, epoch, history, denied digests, in the ConfigMap kanary-<service>.

Pure: documents in, documents out. An intent is written here before the InferenceService is changed; whoever finds one
unfinished compares it with what is and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from kanary.errors import Held, KanaryError

Document = dict[str, Any]
T = TypeVar("T")

HISTORY, DENIED = 20, 200  # the newest that are kept: below 1 MiB, what a ConfigMap may hold
FOUND, CANARY, PROMOTED, ROLLED_BACK, FAILED, REPLACED = (
    *("found", "canary", "promoted"),
    *("rolled back", "failed", "replaced"),
)
DEPLOY, SET_TRAFFIC, PROMOTE, ROLLBACK = "deploy", "set-traffic", "promote", "rollback"
BEGUN, DONE, HELD = "begun", "done", "held"


@dataclass(frozen=True)
class Release:
    """One model that was deployed. `predictor` is what the API server stored of it, without the percentage.

    `when` is ISO 8601 in UTC; `revision` the last that served it; `verdict` how it ended so far, since `concluded`;
    `seconds` how long its revision took to become ready; `evidence` the URI of what it was judged by, with its sha256.
    """

    version: str
    storage_uri: str
    digest: str
    predictor: Document
    run_id: str = ""
    who: str = ""
    when: str = ""
    why: str = ""
    revision: str = ""
    verdict: str = CANARY
    seconds: float | None = None
    concluded: str = ""
    evidence: str = ""
    evidence_sha256: str = ""


@dataclass(frozen=True)
class Denial:
    """A digest that must not be deployed again."""

    digest: str
    version: str
    who: str
    when: str
    why: str = ""


@dataclass(frozen=True)
class Intent:
    """What somebody set out to do, so that anybody can finish it or tell that it is being undone."""

    action: str
    who: str
    when: str
    why: str = ""
    phase: str = BEGUN
    percent: int | None = None
    run_id: str = ""
    version: str = ""  # of the model that the act is about
    digest: str = ""
    # A deployment's: the newest revision before it. A rollback's: the revisions that must get no traffic.
    before: str = ""
    bad: tuple[str, ...] = ()
    kind: str = ""  # of a rollback: see kanary.kserve.decide
    target: Document | None = None  # a rollback's: the predictor to be restored; None where nobody knows it
    target_version: str = ""
    target_digest: str = ""


@dataclass(frozen=True)
class State:
    """All that is remembered of one service. `resource_version` is empty while there is no ConfigMap."""

    epoch: int = 0
    intent: Intent | None = None
    history: tuple[Release, ...] = ()  # oldest first
    denied: tuple[Denial, ...] = ()
    resource_version: str = ""
    other: Mapping[str, str] = field(default_factory=dict)  # keys of others, kept as they are


def name_of(service: str) -> str:
    """The name of a service's ConfigMap and Lease."""
    return f"kanary-{service}"


def parse(config_map: Mapping[str, Any] | None) -> State:
    """The state in a ConfigMap; an empty one for None. Raises KanaryError where it is damaged."""
    if config_map is None:
        return State()
    metadata, data = config_map.get("metadata") or {}, config_map.get("data") or {}
    known = {key: data[key] for key in ("epoch", "intent", "history", "denied") if key in data}
    try:
        intent = json.loads(known.get("intent", "null"))
        return State(
            int(known.get("epoch", 0)),
            _made(Intent, intent) if intent else None,
            tuple(_made(Release, entry) for entry in json.loads(known.get("history", "[]"))),
            tuple(_made(Denial, entry) for entry in json.loads(known.get("denied", "[]"))),
            str(metadata.get("resourceVersion") or ""),
            {key: value for key, value in data.items() if key not in known},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise KanaryError(
            f"The ConfigMap {metadata.get('name')} in {metadata.get('namespace')} is damaged: {error}",
            "Mend it, or delete it: the service's release history and denied digests are then lost.",
        ) from error


def document(state: State, service: str, namespace: str) -> Document:
    """The ConfigMap that holds `state`."""
    metadata: Document = {
        "name": name_of(service),
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "kanary", "kanary.dev/service": service},
    }
    metadata |= {"resourceVersion": state.resource_version} if state.resource_version else {}
    data = dict(state.other) | {
        "epoch": str(state.epoch),
        "intent": _written(asdict(state.intent) if state.intent else None),
        "history": _written([asdict(release) for release in _bounded(state.history)]),
        "denied": _written([asdict(denial) for denial in state.denied[-DENIED:]]),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def timestamp(seconds: float) -> str:
    """A moment (seconds since the epoch) as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def denial(state: State, digest: str) -> Denial | None:
    """Who denied this digest, if anybody did."""
    return next((entry for entry in reversed(state.denied) if entry.digest == digest), None)


def deny(state: State, entry: Denial) -> State:
    """`state` with that digest denied; who denied it first stays."""
    return state if denial(state, entry.digest) else replace(state, denied=(*state.denied, entry))


def record(state: State, release: Release) -> State:
    """`state` with the release as its newest; an earlier entry of the same model in the same run is replaced."""
    kept = [r for r in state.history if not (r.digest == release.digest and r.run_id == release.run_id)]
    return replace(state, history=_bounded((*kept, release)))


def newest(state: State, digest: str) -> Release | None:
    """The newest release of a model."""
    return next((release for release in reversed(state.history) if release.digest == digest), None)


def amend(state: State, digest: str, **changes: Any) -> State:
    """`state` with the newest release of a model changed in these fields."""
    for index in range(len(state.history) - 1, -1, -1):
        if state.history[index].digest == digest:
            changed = replace(state.history[index], **changes)
            return replace(state, history=(*state.history[:index], changed, *state.history[index + 1 :]))
    return state


def begin(state: State, intent: Intent, *, operator: bool) -> State:
    """`state` with a new intent. An operator's act bumps the epoch, which stops every automation."""
    return replace(state, intent=intent, epoch=state.epoch + 1 if operator else state.epoch)


def check_epoch(state: State, epoch: int) -> None:
    """Raises Held where somebody has acted since `epoch`."""
    if state.epoch == epoch:
        return
    intent = state.intent
    who, what, when = (intent.who, intent.action, intent.when) if intent else ("somebody", "acted", "meanwhile")
    raise Held(
        f"Held: {who} started {what} at {when}; this act stops here.",
        "Look at the service with `kanary status`, then start again.",
        who,
    )


def _bounded(history: tuple[Release, ...]) -> tuple[Release, ...]:
    """The newest entries, and always the two newest good ones: what serves, and what a rollback would put back."""
    good = [index for index, entry in enumerate(history) if entry.verdict in (PROMOTED, FOUND)][-2:]
    others = [index for index in range(len(history)) if index not in good]
    dropped = others[: max(0, len(history) - HISTORY)]
    return tuple(entry for index, entry in enumerate(history) if index not in dropped)


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    # A newer Kanary may have written more than this one knows.
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    given = {key: tuple(value) if key == "bad" else value for key, value in values.items() if key in known}
    return kind(**given)


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
