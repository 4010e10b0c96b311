"""The conditions of Knative's own objects, for whoever reads them: KServe goes by the record, not by these.

Source: revision_lifecycle.go, service_lifecycle.go in Knative Serving, and recordings of Knative 0.48.
"""

from __future__ import annotations

from sandbox.kserve.conditions import FALSE, TRUE, UNKNOWN, State
from sandbox.kserve.knative import Document, Knative, Revision
from sandbox.kserve.status import states

_BUFFERED = "Requests to the target are being buffered as resources are provisioned."
_DEPLOYING = State(UNKNOWN, "Deploying")


def of_service(knative: Knative) -> list[Document]:
    """The conditions of a Knative Service."""
    ready, route, configuration = states(knative)
    found = {"ConfigurationsReady": configuration, "Ready": ready, "RoutesReady": route}
    return [condition(kind, state) for kind, state in found.items()]


def of_revision(revision: Revision, runs: bool, exit_code: int = 0) -> list[Document]:
    """The conditions of a Revision; `runs`: it has a server, which ended with `exit_code` where it never answered."""
    resources = healthy = ready = _DEPLOYING
    active = State(UNKNOWN, "Queued", _BUFFERED)
    if revision.ready:
        resources = healthy = ready = State(TRUE)
        active = State(TRUE) if runs else State(FALSE, "NoTraffic", "The target is not receiving traffic.")
    elif revision.failed:
        timed_out = f'ReplicaSet "{revision.name}-deployment" has timed out progressing.'
        resources = ready = State(FALSE, "ProgressDeadlineExceeded", timed_out)
        healthy = State(UNKNOWN)
        if revision.failed != timed_out:
            healthy = ready = State(FALSE, f"ExitCode{exit_code}", revision.failed)
    found = {"Active": active, "ContainerHealthy": healthy, "Ready": ready, "ResourcesAvailable": resources}
    made = [condition(kind, state) for kind, state in found.items()]
    return [one | {"severity": "Info"} if one["type"] == "Active" and one["status"] != TRUE else one for one in made]


def condition(kind: str, state: State) -> Document:
    """A condition as it stands in a status."""
    text = {"reason": state.reason, "message": state.message}
    return {"type": kind, "status": state.status} | {key: value for key, value in text.items() if value}
